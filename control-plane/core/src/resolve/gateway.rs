//! The status of one Gateway and its listeners.

use super::listeners::ListenerState;
use crate::conditions::{ACCEPTED, CONFLICTED, OVERLAPPING_TLS_CONFIG, PROGRAMMED, RESOLVED_REFS, reason};
use crate::model::{
    AddressType, DeploymentState, Gateway, GatewayObservation, MESHWRIGHT_GROUP, ObjectId, ObjectKey,
    ObjectKind, World,
};
use crate::status::{ConditionStatus, ConditionUpdate, Finding, GatewayStatus, ListenerStatus};

/// Why the Gateway as a whole is not accepted, listeners apart. Only its status says so; its proxies go on with what of it can be had.
pub(crate) fn rejection(gateway: &Gateway, world: &World) -> Option<Finding> {
    if let Some(parameters) = &gateway.infrastructure.parameters_ref {
        let key = ObjectKey::new(gateway.meta.key.namespace.clone(), parameters.name.clone());
        let known = parameters.group == MESHWRIGHT_GROUP && parameters.kind == "GatewayParameters";
        if !known || !world.gateway_parameters.contains_key(&key) {
            let message = format!(
                "infrastructure.parametersRef names no GatewayParameters of group {MESHWRIGHT_GROUP} in the namespace: {} {}",
                parameters.kind, parameters.name
            );
            return Some(Finding::new(reason::INVALID_PARAMETERS, message));
        }
    }
    if let Some(field) = gateway.unsupported_fields.first() {
        return Some(Finding::new(reason::INVALID, format!("{field} is not supported")));
    }
    let unsupported = gateway.addresses.iter().find(|address| match &address.kind {
        AddressType::IpAddress => false,
        // A name can be reported when the cloud gives one, but not asked for.
        AddressType::Hostname => !address.value.is_empty(),
        AddressType::Other(_) => true,
    })?;
    let message = format!("an address of type {:?} cannot be requested", unsupported.kind);
    Some(Finding::new(reason::UNSUPPORTED_ADDRESS, message))
}

/// The status; `attached` counts the accepted routes of each listener.
pub(crate) fn status(
    gateway: &Gateway,
    listeners: &[ListenerState],
    attached: &[u32],
    world: &World,
) -> GatewayStatus {
    let generation = gateway.meta.generation;
    let observed = world.gateway_observations.get(&gateway.meta.key).map(AsRef::as_ref);
    let accepted = accepted(gateway, listeners, world);
    let rejected_by_proxy =
        world.rejections.get(&ObjectId { kind: ObjectKind::Gateway, key: gateway.meta.key.clone() });
    let unprogrammed = if accepted.is_true() {
        unprogrammed(gateway, observed, rejected_by_proxy)
    } else {
        Some(Finding::new(reason::INVALID, "the Gateway is not accepted; what of it can be had is served"))
    };
    let unresolved = listeners.iter().find(|state| state.unresolved.is_some()).map(|state| {
        Finding::new(reason::LISTENERS_NOT_RESOLVED, format!("see listener {}", state.spec.name))
    });
    let conditions = vec![
        accepted,
        ConditionUpdate::from_finding(PROGRAMMED, unprogrammed.as_ref(), reason::PROGRAMMED, generation),
        ConditionUpdate::from_finding(RESOLVED_REFS, unresolved.as_ref(), reason::RESOLVED_REFS, generation),
    ];
    let listeners = listeners
        .iter()
        .zip(attached)
        .map(|(state, attached)| listener_status(state, *attached, unprogrammed.as_ref(), generation));
    GatewayStatus {
        conditions,
        addresses: observed.map(|observed| observed.addresses.clone()).unwrap_or_default(),
        listeners: listeners.collect(),
    }
}

fn accepted(gateway: &Gateway, listeners: &[ListenerState], world: &World) -> ConditionUpdate {
    let generation = gateway.meta.generation;
    if let Some(finding) = rejection(gateway, world) {
        return ConditionUpdate::bad(ACCEPTED, &finding, generation);
    }
    let Some(invalid) = listeners.iter().find(|state| !state.is_accepted()) else {
        return ConditionUpdate::ok(ACCEPTED, reason::ACCEPTED, generation);
    };
    // One accepted listener is enough for the Gateway; the reason still tells that something is wrong.
    let status = match listeners.iter().any(ListenerState::is_accepted) {
        true => ConditionStatus::True,
        false => ConditionStatus::False,
    };
    ConditionUpdate {
        kind: ACCEPTED,
        status,
        reason: reason::LISTENERS_NOT_VALID,
        message: format!("see listener {}", invalid.spec.name),
        observed_generation: generation,
    }
}

/// Why the proxies do not serve the Gateway. What is wrong with single listeners is said there: one with a
/// bad certificate must not make the others look down.
fn unprogrammed(
    gateway: &Gateway,
    observed: Option<&GatewayObservation>,
    rejected_by_proxy: Option<&String>,
) -> Option<Finding> {
    if let Some(words) = rejected_by_proxy {
        return Some(Finding::new(reason::INVALID, format!("a proxy refused the configuration: {words}")));
    }
    let pending = |message: &str| Some(Finding::new(reason::PENDING, message));
    let Some(observed) = observed else { return pending("the proxies are not made yet") };
    match &observed.deployment {
        DeploymentState::Absent => return pending("the proxies are not made yet"),
        DeploymentState::Failed(words) => return Some(Finding::new(reason::NO_RESOURCES, words.clone())),
        DeploymentState::Progressing => return pending("no proxy is ready yet"),
        DeploymentState::Ready { .. } => {}
    }
    if observed.addresses.is_empty() {
        return Some(Finding::new(reason::ADDRESS_NOT_ASSIGNED, "the Gateway's Service has no address yet"));
    }
    let requested = gateway.addresses.iter().filter(|address| !address.value.is_empty());
    let mut missing =
        requested.filter(|wanted| !observed.addresses.iter().any(|given| given.value == wanted.value));
    missing.next().map(|wanted| {
        Finding::new(
            reason::ADDRESS_NOT_USABLE,
            format!("address {} is not assigned to the Gateway's Service", wanted.value),
        )
    })
}

fn listener_status(
    state: &ListenerState,
    attached_routes: u32,
    gateway_unprogrammed: Option<&Finding>,
    generation: i64,
) -> ListenerStatus {
    let rejected = state.rejected.as_ref().or(state.conflict.as_ref()).or(state.unguarded.as_ref());
    let unprogrammed = if !state.is_programmable() {
        Some(Finding::new(reason::INVALID, "the listener is not valid, see its other conditions"))
    } else {
        gateway_unprogrammed.map(|_| Finding::new(reason::PENDING, "the Gateway is not programmed"))
    };
    let conflicted = match &state.conflict {
        Some(finding) => ConditionUpdate {
            status: ConditionStatus::True,
            ..ConditionUpdate::bad(CONFLICTED, finding, generation)
        },
        None => ConditionUpdate {
            status: ConditionStatus::False,
            ..ConditionUpdate::ok(CONFLICTED, reason::NO_CONFLICTS, generation)
        },
    };
    let mut conditions = vec![
        ConditionUpdate::from_finding(ACCEPTED, rejected, reason::ACCEPTED, generation),
        ConditionUpdate::from_finding(PROGRAMMED, unprogrammed.as_ref(), reason::PROGRAMMED, generation),
        ConditionUpdate::from_finding(
            RESOLVED_REFS,
            state.unresolved.as_ref(),
            reason::RESOLVED_REFS,
            generation,
        ),
        conflicted,
    ];
    if let Some(finding) = &state.overlap {
        let bad = ConditionUpdate::bad(OVERLAPPING_TLS_CONFIG, finding, generation);
        conditions.push(ConditionUpdate { status: ConditionStatus::True, ..bad });
    }
    ListenerStatus {
        name: state.spec.name.clone(),
        supported_kinds: state.supported_kinds.clone(),
        attached_routes,
        conditions,
    }
}
