//! Our part of a status put into the status that is there. Pure; the same status comes back when there is nothing to write, times included.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use meshwright_api::{CONTROLLER_NAME, gateway as api};
use meshwright_core::conditions;
use meshwright_core::model::{AddressType, AssignedAddress, ParentRef};
use meshwright_core::status::{
    ConditionUpdate, GatewayClassStatus, GatewayStatus, ListenerStatus, PolicyStatus, RouteParentStatus,
    RouteStatus,
};

/// The API allows 32,768 bytes in a message.
const MESSAGE_MAX: usize = 4096;

/// Conditions of others stay where they are; of ours, those that are not wanted any more go. A transition time moves with the status only.
pub fn conditions(
    current: &[Condition],
    wanted: &[ConditionUpdate],
    owned: &[&str],
    now: Timestamp,
) -> Vec<Condition> {
    let mut merged: Vec<Condition> = current
        .iter()
        .filter(|condition| {
            !owned.contains(&condition.type_.as_str()) || wanted.iter().any(|one| one.kind == condition.type_)
        })
        .cloned()
        .collect();
    for update in wanted {
        match merged.iter_mut().find(|condition| condition.type_ == update.kind) {
            Some(condition) => *condition = condition_of(update, Some(condition), now),
            None => merged.push(condition_of(update, None, now)),
        }
    }
    merged
}

fn condition_of(update: &ConditionUpdate, current: Option<&Condition>, now: Timestamp) -> Condition {
    let status = update.status.as_str();
    let since = current.filter(|condition| condition.status == status);
    let mut message = update.message.clone();
    if let Some((end, _)) = message.char_indices().find(|(index, _)| *index >= MESSAGE_MAX) {
        message.truncate(end);
    }
    Condition {
        type_: update.kind.to_owned(),
        status: status.to_owned(),
        reason: update.reason.to_owned(),
        message,
        observed_generation: Some(update.observed_generation),
        last_transition_time: since.map_or(Time(now), |condition| condition.last_transition_time.clone()),
    }
}

/// A GatewayClass.
pub fn gateway_class(
    current: Option<&api::GatewayClassStatus>,
    wanted: &GatewayClassStatus,
    now: Timestamp,
) -> api::GatewayClassStatus {
    let known = current.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let feature = |name: &&str| api::GatewayClassStatusSupportedFeatures { name: (*name).to_owned() };
    api::GatewayClassStatus {
        conditions: Some(conditions(known, &wanted.conditions, conditions::GATEWAY_CLASS_TYPES, now)),
        supported_features: Some(wanted.supported_features.iter().map(feature).collect()),
    }
}

/// One of the mesh's policies.
pub fn policy(
    current: Option<&meshwright_api::PolicyStatus>,
    wanted: &PolicyStatus,
    now: Timestamp,
) -> meshwright_api::PolicyStatus {
    let known = current.map(|status| status.conditions.as_slice()).unwrap_or_default();
    meshwright_api::PolicyStatus {
        conditions: conditions(known, &wanted.conditions, conditions::POLICY_TYPES, now),
        pods: i32::try_from(wanted.pods).unwrap_or(i32::MAX),
    }
}

/// A Gateway.
pub fn gateway(
    current: Option<&api::GatewayStatus>,
    wanted: &GatewayStatus,
    now: Timestamp,
) -> api::GatewayStatus {
    let known = current.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let listeners = current.and_then(|status| status.listeners.as_deref()).unwrap_or_default();
    // Unset and empty mean the same: which of the two is there must not make a write.
    let addresses: Vec<_> = wanted.addresses.iter().map(address).collect();
    let no_addresses = current.and_then(|status| status.addresses.clone()).filter(Vec::is_empty);
    api::GatewayStatus {
        addresses: if addresses.is_empty() { no_addresses } else { Some(addresses) },
        attached_listener_sets: current.and_then(|status| status.attached_listener_sets),
        conditions: Some(conditions(known, &wanted.conditions, conditions::GATEWAY_TYPES, now)),
        listeners: Some(wanted.listeners.iter().map(|one| listener(listeners, one, now)).collect()),
    }
}

fn address(address: &AssignedAddress) -> api::GatewayStatusAddresses {
    let kind = match &address.kind {
        AddressType::IpAddress => "IPAddress",
        AddressType::Hostname => "Hostname",
        AddressType::Other(other) => other,
    };
    api::GatewayStatusAddresses {
        routability: None,
        r#type: Some(kind.to_owned()),
        value: address.value.clone(),
    }
}

fn listener(
    current: &[api::GatewayStatusListeners],
    wanted: &ListenerStatus,
    now: Timestamp,
) -> api::GatewayStatusListeners {
    let known = current.iter().find(|listener| listener.name == wanted.name);
    let known = known.map(|listener| listener.conditions.as_slice()).unwrap_or_default();
    let kinds = wanted.supported_kinds.iter().map(|kind| api::GatewayStatusListenersSupportedKinds {
        group: Some(kind.group.clone()),
        kind: kind.kind.clone(),
    });
    api::GatewayStatusListeners {
        attached_routes: i32::try_from(wanted.attached_routes).unwrap_or(i32::MAX),
        conditions: conditions(known, &wanted.conditions, conditions::LISTENER_TYPES, now),
        name: wanted.name.clone(),
        supported_kinds: Some(kinds.collect()),
    }
}

/// Kinds of routes have equal statuses in types of their own.
macro_rules! route {
    ($route:ident, $status:ident, $parents:ident, $parent_ref:ident) => {
        /// A route. `wanted` is None for one that has no parent of ours (any more): our entries go, the others' stay.
        pub fn $route(
            current: Option<&api::$status>,
            wanted: Option<&RouteStatus>,
            now: Timestamp,
        ) -> api::$status {
            let known = current.map(|status| status.parents.as_slice()).unwrap_or_default();
            let mut left: Vec<&RouteParentStatus> =
                wanted.map(|status| status.parents.iter().collect()).unwrap_or_default();
            let parent = |current: &[Condition], wanted: &RouteParentStatus| {
                let reference = &wanted.parent_ref;
                api::$parents {
                    conditions: conditions(current, &wanted.conditions, conditions::ROUTE_TYPES, now),
                    controller_name: CONTROLLER_NAME.to_owned(),
                    parent_ref: api::$parent_ref {
                        group: reference.group.clone(),
                        kind: reference.kind.clone(),
                        name: reference.name.clone(),
                        namespace: reference.namespace.clone(),
                        port: reference.port.map(i32::from),
                        section_name: reference.section_name.clone(),
                    },
                }
            };
            let is_parent = |current: &api::$parent_ref, wanted: &ParentRef| {
                current.group == wanted.group
                    && current.kind == wanted.kind
                    && current.name == wanted.name
                    && current.namespace == wanted.namespace
                    && current.port == wanted.port.map(i32::from)
                    && current.section_name == wanted.section_name
            };
            let mut parents = Vec::with_capacity(known.len().max(left.len()));
            for entry in known {
                if entry.controller_name != CONTROLLER_NAME {
                    parents.push(entry.clone());
                    continue;
                }
                let mine = left.iter().position(|one| is_parent(&entry.parent_ref, &one.parent_ref));
                if let Some(index) = mine {
                    parents.push(parent(&entry.conditions, left.remove(index)));
                }
            }
            parents.extend(left.into_iter().map(|one| parent(&[], one)));
            api::$status { parents }
        }
    };
}

route!(http_route, HttpRouteStatus, HttpRouteStatusParents, HttpRouteStatusParentsParentRef);
route!(grpc_route, GrpcRouteStatus, GrpcRouteStatusParents, GrpcRouteStatusParentsParentRef);
route!(tcp_route, TcpRouteStatus, TcpRouteStatusParents, TcpRouteStatusParentsParentRef);
