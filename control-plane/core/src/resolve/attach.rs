//! Which listeners a route is attached to.

use super::listeners::ListenerState;
use crate::conditions::reason;
use crate::hostname;
use crate::model::{
    FromNamespaces, GATEWAY_GROUP, Gateway, HttpRoute, ObjectKey, ParentRef, RouteGroupKind, RouteKind, World,
};
use crate::status::Finding;

/// A listener and the hosts it serves for the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    /// Index into the Gateway's listeners.
    pub listener: usize,
    /// Hosts that listener and route have in common, each with the route's hostname that it comes from.
    pub hosts: Vec<Host>,
}

/// A host in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// The narrower of the listener's and the route's hostname.
    pub hostname: String,
    /// The route's.
    pub original: String,
}

/// The Gateway that a parentRef means; None for other kinds of parents.
pub(crate) fn gateway_of(reference: &ParentRef, route: &HttpRoute) -> Option<ObjectKey> {
    let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = reference.kind.as_deref().unwrap_or("Gateway");
    (group == GATEWAY_GROUP && kind == "Gateway").then(|| {
        let namespace = reference.namespace.as_ref().unwrap_or(&route.meta.key.namespace);
        ObjectKey::new(namespace.clone(), reference.name.clone())
    })
}

/// Attaches a route by one of its parentRefs. The order of the checks is the order in which a user would fix
/// things: the listener that is asked for, the right to attach, the hostnames.
pub(crate) fn attach(
    route: &HttpRoute,
    reference: &ParentRef,
    gateway: &Gateway,
    listeners: &[ListenerState],
    world: &World,
) -> Result<Vec<Attachment>, Finding> {
    let wanted: Vec<_> =
        listeners.iter().enumerate().filter(|(_, state)| is_wanted(reference, state)).collect();
    if wanted.is_empty() {
        return Err(Finding::new(reason::NO_MATCHING_PARENT, no_such_listener(reference)));
    }
    let allowed: Vec<_> = wanted
        .into_iter()
        .filter(|(_, state)| state.takes_routes() && allows(state, route, gateway, world))
        .collect();
    if allowed.is_empty() {
        let (key, namespace) = (&gateway.meta.key, &route.meta.key.namespace);
        let message = match route.kind {
            RouteKind::Tcp => {
                format!("Gateway {key} has no listener for TCP: only HTTP and HTTPS are served")
            }
            kind => format!(
                "no listener of Gateway {key} is accepted and allows {}s from namespace {namespace}",
                kind.as_str()
            ),
        };
        return Err(Finding::new(reason::NOT_ALLOWED_BY_LISTENERS, message));
    }
    let attached: Vec<_> = allowed
        .into_iter()
        .map(|(listener, state)| Attachment { listener, hosts: common_hosts(route, state) })
        .filter(|attachment| !attachment.hosts.is_empty())
        .collect();
    if attached.is_empty() {
        let message = "no hostname of the route is one of a listener's".to_owned();
        return Err(Finding::new(reason::NO_MATCHING_LISTENER_HOSTNAME, message));
    }
    Ok(attached)
}

fn is_wanted(reference: &ParentRef, state: &ListenerState) -> bool {
    reference.section_name.as_ref().is_none_or(|name| *name == state.spec.name)
        && reference.port.is_none_or(|port| port == state.spec.port)
}

fn no_such_listener(reference: &ParentRef) -> String {
    match (&reference.section_name, reference.port) {
        (Some(name), Some(port)) => format!("the Gateway has no listener {name} on port {port}"),
        (Some(name), None) => format!("the Gateway has no listener {name}"),
        (None, Some(port)) => format!("the Gateway has no listener on port {port}"),
        (None, None) => "the Gateway has no listener".to_owned(),
    }
}

fn allows(state: &ListenerState, route: &HttpRoute, gateway: &Gateway, world: &World) -> bool {
    let kind = RouteGroupKind { group: GATEWAY_GROUP.to_owned(), kind: route.kind.as_str().to_owned() };
    let namespace = &route.meta.key.namespace;
    let namespace_allowed = match &state.spec.allowed_namespaces {
        FromNamespaces::All => true,
        FromNamespaces::Same => *namespace == gateway.meta.key.namespace,
        FromNamespaces::None => false,
        // An unknown namespace has no labels to select it by, whatever a negative selector says.
        FromNamespaces::Selector(selector) => {
            world.namespaces.get(namespace).is_some_and(|found| selector.matches(&found.labels))
        }
    };
    namespace_allowed && state.supported_kinds.contains(&kind)
}

fn common_hosts(route: &HttpRoute, state: &ListenerState) -> Vec<Host> {
    if route.hostnames.is_empty() {
        return vec![Host { hostname: state.hostname.clone(), original: hostname::ANY.to_owned() }];
    }
    let mut originals: Vec<_> = route.hostnames.iter().map(|name| hostname::normalize(Some(name))).collect();
    // Most specific first: where two of the route's hostnames meet in one host, the more specific one counts.
    originals.sort_by(|a, b| hostname::by_specificity(a, b).then_with(|| a.cmp(b)));
    let mut hosts: Vec<Host> = Vec::new();
    for original in originals {
        if let Some(common) = hostname::intersection(&state.hostname, &original)
            && !hosts.iter().any(|host| host.hostname == common)
        {
            hosts.push(Host { hostname: common, original });
        }
    }
    hosts
}
