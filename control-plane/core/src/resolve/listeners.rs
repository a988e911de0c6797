//! The listeners of one Gateway: which are accepted, which conflict, where their certificates come from.

use std::collections::BTreeSet;

use super::ControllerConfig;
use super::grants::{self, From, To};
use crate::conditions::reason;
use crate::config::PortProtocol;
use crate::hostname;
use crate::model::{
    CertificateRef, GATEWAY_GROUP, Gateway, Listener, ObjectKey, RouteGroupKind, SecretState, TlsMode, World,
};
use crate::status::Finding;

/// What was found about one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenerState {
    pub spec: Listener,
    /// Normalized, see [`hostname::normalize`].
    pub hostname: String,
    /// None for a protocol that is not supported.
    pub protocol: Option<PortProtocol>,
    /// Kinds that are both supported and allowed.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// Why it is not accepted.
    pub rejected: Option<Finding>,
    /// What guards it and is not implemented: it keeps its hosts and serves nobody.
    pub unguarded: Option<Finding>,
    /// With what it conflicts.
    pub conflict: Option<Finding>,
    /// Another listener of the port has hosts in common.
    pub overlap: Option<Finding>,
    /// What reference leads nowhere.
    pub unresolved: Option<Finding>,
    /// Secrets with a usable certificate; none if nobody is to be served.
    pub certificates: Vec<ObjectKey>,
}

impl ListenerState {
    /// Whether it is configured and keeps its hosts from others. It may still lack a certificate, or a guard.
    pub(crate) fn is_accepted(&self) -> bool {
        self.rejected.is_none() && self.conflict.is_none()
    }

    /// Whether routes may attach to it.
    pub(crate) fn takes_routes(&self) -> bool {
        self.is_accepted() && self.unguarded.is_none()
    }

    /// Whether proxies can serve it.
    pub(crate) fn is_programmable(&self) -> bool {
        self.takes_routes() && (self.protocol == Some(PortProtocol::Http) || !self.certificates.is_empty())
    }
}

/// Looks at all listeners of a Gateway. Adds the Secrets that have to be read to `secrets`.
pub(crate) fn states(
    gateway: &Gateway,
    world: &World,
    config: &ControllerConfig,
    secrets: &mut BTreeSet<ObjectKey>,
) -> Vec<ListenerState> {
    let mut states: Vec<_> =
        gateway.listeners.iter().map(|listener| state(gateway, listener, world, config, secrets)).collect();
    let conflicts: Vec<_> = (0..states.len()).map(|index| conflict(&states, index)).collect();
    let overlaps: Vec<_> = (0..states.len()).map(|index| overlap(&states, index)).collect();
    for (state, (conflict, overlap)) in states.iter_mut().zip(conflicts.into_iter().zip(overlaps)) {
        state.conflict = conflict;
        state.overlap = overlap;
    }
    states
}

fn state(
    gateway: &Gateway,
    listener: &Listener,
    world: &World,
    config: &ControllerConfig,
    secrets: &mut BTreeSet<ObjectKey>,
) -> ListenerState {
    let protocol = match listener.protocol.as_str() {
        "HTTP" => Some(PortProtocol::Http),
        "HTTPS" => Some(PortProtocol::Https),
        _ => None,
    };
    let (supported_kinds, bad_kind) = kinds(listener, protocol);
    let mut state = ListenerState {
        spec: listener.clone(),
        hostname: hostname::normalize(listener.hostname.as_deref()),
        protocol,
        supported_kinds,
        rejected: rejection(listener, protocol, config),
        unguarded: listener.missing_guard.as_deref().map(unguarded),
        conflict: None,
        overlap: None,
        unresolved: bad_kind,
        certificates: Vec::new(),
    };
    if protocol == Some(PortProtocol::Https) {
        let bad_certificate = certificates(gateway, listener, world, secrets, &mut state.certificates);
        state.unresolved = state.unresolved.or(bad_certificate);
    }
    if state.unguarded.is_some() {
        state.certificates.clear();
    }
    state
}

fn unguarded(field: &str) -> Finding {
    let message = format!("{field} is not supported, and nobody is served without it");
    Finding::new(reason::UNSUPPORTED_VALUE, message)
}

fn rejection(
    listener: &Listener,
    protocol: Option<PortProtocol>,
    config: &ControllerConfig,
) -> Option<Finding> {
    if protocol.is_none() {
        return Some(Finding::new(
            reason::UNSUPPORTED_PROTOCOL,
            format!("protocol {} is not supported; HTTP and HTTPS are", listener.protocol),
        ));
    }
    if config.reserved_ports.contains(&listener.port) {
        return Some(Finding::new(
            reason::PORT_UNAVAILABLE,
            format!("the proxy needs port {} itself", listener.port),
        ));
    }
    let passthrough = listener.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Passthrough);
    (protocol == Some(PortProtocol::Https) && passthrough).then(|| {
        Finding::new(reason::UNSUPPORTED_VALUE, "tls.mode Passthrough is not possible with protocol HTTPS")
    })
}

/// The kinds for `supportedKinds`, and a finding if the listener asks for one that its protocol cannot carry.
fn kinds(listener: &Listener, protocol: Option<PortProtocol>) -> (Vec<RouteGroupKind>, Option<Finding>) {
    let supported = match protocol {
        Some(_) => vec![RouteGroupKind { group: GATEWAY_GROUP.to_owned(), kind: "HTTPRoute".to_owned() }],
        None => Vec::new(),
    };
    if listener.allowed_kinds.is_empty() || protocol.is_none() {
        return (supported, None);
    }
    let unknown = listener.allowed_kinds.iter().find(|kind| !supported.contains(kind));
    let finding = unknown.map(|kind| {
        Finding::new(
            reason::INVALID_ROUTE_KINDS,
            format!(
                "kind {} of group {} is not supported with protocol {}",
                kind.kind, kind.group, listener.protocol
            ),
        )
    });
    let both = supported.into_iter().filter(|kind| listener.allowed_kinds.contains(kind)).collect();
    (both, finding)
}

/// Follows the certificateRefs. One good certificate is enough to serve, one bad reference is enough for a
/// finding.
fn certificates(
    gateway: &Gateway,
    listener: &Listener,
    world: &World,
    secrets: &mut BTreeSet<ObjectKey>,
    usable: &mut Vec<ObjectKey>,
) -> Option<Finding> {
    let references = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        return Some(Finding::new(reason::INVALID_CERTIFICATE_REF, "tls.certificateRefs is empty"));
    }
    let mut finding = None;
    for reference in references {
        match certificate(gateway, reference, world, secrets) {
            Ok(secret) if !usable.contains(&secret) => usable.push(secret),
            Ok(_) => {}
            Err(bad) => {
                finding.get_or_insert(bad);
            }
        }
    }
    finding
}

fn certificate(
    gateway: &Gateway,
    reference: &CertificateRef,
    world: &World,
    secrets: &mut BTreeSet<ObjectKey>,
) -> Result<ObjectKey, Finding> {
    let invalid = |message: String| Finding::new(reason::INVALID_CERTIFICATE_REF, message);
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    if !group.is_empty() || kind != "Secret" {
        return Err(invalid(format!("kind {kind} of group {group:?} is no certificate; only Secret is")));
    }
    let own = &gateway.meta.key.namespace;
    let key = ObjectKey::new(reference.namespace.as_ref().unwrap_or(own).clone(), reference.name.clone());
    let from = From { group: GATEWAY_GROUP, kind: "Gateway", namespace: own };
    let to = To { group: "", kind: "Secret", namespace: &key.namespace, name: &key.name };
    if !grants::permitted(world, &from, &to) {
        let message = format!("no ReferenceGrant in namespace {} permits Secret {}", key.namespace, key.name);
        return Err(Finding::new(reason::REF_NOT_PERMITTED, message));
    }
    secrets.insert(key.clone());
    match world.secrets.get(&key).map(AsRef::as_ref) {
        // Whoever publishes this should rather wait a little, see `Resolution::undecided`.
        None => Err(invalid(format!("Secret {key} has not been read yet"))),
        Some(SecretState::Missing) => Err(invalid(format!("no Secret {key}"))),
        Some(SecretState::Unreadable(why)) => Err(invalid(format!("Secret {key} cannot be read: {why}"))),
        Some(SecretState::Malformed(why)) => Err(invalid(format!("Secret {key} is no certificate: {why}"))),
        Some(SecretState::Ok(_)) => Ok(key),
    }
}

/// Listeners that cannot be told apart all lose: the API forbids to pick a winner within a Gateway.
fn conflict(states: &[ListenerState], index: usize) -> Option<Finding> {
    let this = states.get(index).filter(|state| state.rejected.is_none())?;
    let others = || same_port(states, index);
    if let Some(other) = others().find(|other| other.protocol != this.protocol) {
        let message =
            format!("listener {} has another protocol on port {}", other.spec.name, other.spec.port);
        return Some(Finding::new(reason::PROTOCOL_CONFLICT, message));
    }
    others().find(|other| other.hostname == this.hostname).map(|other| {
        let message =
            format!("listener {} has the same hostname on port {}", other.spec.name, other.spec.port);
        Finding::new(reason::HOSTNAME_CONFLICT, message)
    })
}

/// HTTPS listeners with hosts in common: clients may reuse a connection for the other's hosts, and get 421
/// for them.
fn overlap(states: &[ListenerState], index: usize) -> Option<Finding> {
    let this = states.get(index).filter(|state| state.protocol == Some(PortProtocol::Https))?;
    let other = same_port(states, index).find(|other| {
        other.protocol == this.protocol && hostname::intersection(&other.hostname, &this.hostname).is_some()
    })?;
    let message =
        format!("listener {} has hosts in common; requests on the wrong connection get 421", other.spec.name);
    Some(Finding::new(reason::OVERLAPPING_HOSTNAMES, message))
}

fn same_port(states: &[ListenerState], index: usize) -> impl Iterator<Item = &ListenerState> {
    let port = states.get(index).map(|state| state.spec.port);
    states
        .iter()
        .enumerate()
        .filter(move |(other, state)| {
            *other != index && state.rejected.is_none() && Some(state.spec.port) == port
        })
        .map(|(_, state)| state)
}
