//! Routes whose parent is a Service (GEP-1294): what they make of the requests and connections that pods of the mesh send to its addresses.
//!
//! A route in the Service's own namespace is the producer's and holds for every caller. A route in another namespace is a consumer's: it
//! holds for callers in that namespace alone, and instead of the producer's. Within each of these the routes are merged as those of a
//! Gateway's listener are, but by kind first: where a GRPCRoute has a port, HTTPRoutes do not, and where either has it TCPRoutes do not. A
//! TCPRoute matches every connection, so of several the oldest has the port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::CompiledRoute;
use super::precedence::{self, Candidate};
use super::virtual_hosts::entries;
use crate::conditions::reason;
use crate::config::PortRoutes;
use crate::hostname;
use crate::mesh::{Protocol, protocol};
use crate::model::{
    HttpRoute, ObjectId, ObjectKey, ParentRef, RouteKind, Service, ServicePort, ServiceType, World,
};
use crate::status::Finding;

/// The Service that a parentRef means; None for other kinds of parents.
pub(crate) fn service_of(reference: &ParentRef, route: &HttpRoute) -> Option<ObjectKey> {
    (reference.group.as_deref() == Some("") && reference.kind.as_deref() == Some("Service")).then(|| {
        let namespace = reference.namespace.as_ref().unwrap_or(&route.meta.key.namespace);
        ObjectKey::new(namespace.clone(), reference.name.clone())
    })
}

/// The ports that a route is attached to by one of its parentRefs: those that are asked for, or all, as far as what is spoken there is what
/// the route is about.
pub(crate) fn attach(
    reference: &ParentRef,
    key: &ObjectKey,
    kind: RouteKind,
    world: &World,
) -> Result<BTreeSet<u16>, Finding> {
    let none = |message: String| Err(Finding::new(reason::NO_MATCHING_PARENT, message));
    let Some(service) = world.services.get(key) else { return none(format!("no Service {key}")) };
    if let ServiceType::ExternalName(_) = service.kind {
        return none(format!("Service {key} is of type ExternalName: it has no address of its own"));
    }
    if service.headless {
        return none(format!("Service {key} is headless: it has no address of its own"));
    }
    let wanted: Vec<_> = ports(service, reference).collect();
    if wanted.is_empty() {
        return none(match (&reference.section_name, reference.port) {
            (Some(name), Some(port)) => format!("Service {key} has no TCP port {port} of name {name}"),
            (Some(name), None) => format!("Service {key} has no TCP port of name {name}"),
            (None, Some(port)) => format!("Service {key} has no TCP port {port}"),
            (None, None) => format!("Service {key} has no TCP port"),
        });
    }
    let may_fit = |port: &ServicePort| kind == RouteKind::Tcp || protocol(port) != Protocol::Tcp;
    let fitting: BTreeSet<u16> = wanted.iter().filter(|port| may_fit(port)).map(|port| port.port).collect();
    if fitting.is_empty() {
        let numbers: Vec<_> = wanted.iter().map(|port| port.port.to_string()).collect();
        return none(format!(
            "port {} of Service {key} is not HTTP, by its appProtocol, name or number, and {} is for HTTP only",
            numbers.join(", "),
            kind.as_str()
        ));
    }
    Ok(fitting)
}

fn ports<'a>(service: &'a Service, reference: &'a ParentRef) -> impl Iterator<Item = &'a ServicePort> {
    let tcp = service.ports.iter().filter(|port| port.protocol == "TCP");
    tcp.filter(|port| {
        reference.section_name.as_ref().is_none_or(|name| *name == port.name)
            && reference.port.is_none_or(|number| number == port.port)
    })
}

/// A route at some ports of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AtService {
    pub route: Arc<HttpRoute>,
    pub compiled: Arc<CompiledRoute>,
    /// At least one.
    pub ports: BTreeSet<u16>,
    /// Those of them that one of its parentRefs names.
    pub named: BTreeSet<u16>,
}

/// A Service with the routes that are attached to it.
#[derive(Debug, Default)]
pub(crate) struct ServiceWork {
    pub attached: BTreeMap<ObjectId, AtService>,
    /// What was made of them the last time.
    routes: BTreeMap<u16, Arc<PortRoutes>>,
}

impl ServiceWork {
    /// What the routes make of each port. What is equal to what it was is the same.
    pub(crate) fn merge(&mut self, service: &ObjectKey) -> BTreeMap<u16, Arc<PortRoutes>> {
        let ports: BTreeSet<u16> = self.attached.values().flat_map(|at| at.ports.iter().copied()).collect();
        let merged = ports.into_iter().map(|port| {
            let found = self.port(service, port);
            let known = self.routes.get(&port).filter(|known| ***known == found).cloned();
            (port, known.unwrap_or_else(|| Arc::new(found)))
        });
        self.routes = merged.collect();
        self.routes.clone()
    }

    fn port(&self, service: &ObjectKey, port: u16) -> PortRoutes {
        let mut scopes: BTreeMap<(&str, bool), Vec<Candidate>> = BTreeMap::new();
        let mut routes = PortRoutes::default();
        for at in self.attached.values().filter(|at| at.ports.contains(&port)) {
            if self.displaced_by(&at.route, port).is_none() {
                let (namespace, is_tcp) = (&at.route.meta.key.namespace, at.route.kind == RouteKind::Tcp);
                routes.is_named |= !is_tcp && *namespace == service.namespace && at.named.contains(&port);
                scopes.entry((namespace, is_tcp)).or_default().extend(candidates(at));
            }
        }
        for ((namespace, is_tcp), mut candidates) in scopes {
            candidates.sort_by(precedence::compare);
            let mut entries = candidates.into_iter().map(|one| one.entry);
            match (namespace == service.namespace, is_tcp) {
                (true, false) => routes.producer = Some(entries.collect()),
                (false, false) => drop(routes.consumers.insert(namespace.to_owned(), entries.collect())),
                (true, true) => routes.connections.producer = entries.next(),
                (false, true) => {
                    let first = entries.next().map(|entry| (namespace.to_owned(), entry));
                    routes.connections.consumers.extend(first);
                }
            }
        }
        routes
    }
}

fn candidates(at: &AtService) -> impl Iterator<Item = Candidate> {
    entries(&at.route, &at.compiled).into_iter().map(|entry| Candidate {
        // Hostnames mean nothing here.
        hostname: hostname::ANY.to_owned(),
        created: at.route.meta.created,
        entry,
    })
}
