//! Routes whose parent is a Service (GEP-1294): what they make of the requests that pods of the mesh send to its addresses.
//!
//! A route in the Service's own namespace is the producer's and holds for every caller. A route in another namespace is a consumer's: it
//! holds for callers in that namespace alone, and instead of the producer's. Within each of these the routes are merged as those of a
//! Gateway's listener are, but by kind first: where a GRPCRoute has a port, HTTPRoutes do not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::compile::CompiledRoute;
use super::precedence::{self, Candidate};
use super::virtual_hosts::entries;
use crate::conditions::reason;
use crate::config::{PortRoutes, RouteEntry};
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

/// The ports that a route is attached to by one of its parentRefs: those that are asked for, or all, as far as HTTP is spoken there.
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
    let http = wanted.iter().filter(|port| protocol(port) != Protocol::Tcp);
    let http: BTreeSet<u16> = http.map(|port| port.port).collect();
    if http.is_empty() {
        let numbers: Vec<_> = wanted.iter().map(|port| port.port.to_string()).collect();
        return none(format!(
            "port {} of Service {key} is not HTTP, by its appProtocol, name or number, and {} is for HTTP only",
            numbers.join(", "),
            kind.as_str()
        ));
    }
    Ok(http)
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
        let mut scopes: BTreeMap<&str, Vec<Candidate>> = BTreeMap::new();
        let mut routes = PortRoutes::default();
        for at in self.attached.values().filter(|at| at.ports.contains(&port)) {
            if !self.is_displaced(&at.route, port) {
                routes.is_named |=
                    at.route.meta.key.namespace == service.namespace && at.named.contains(&port);
                let entries = entries(&at.route, &at.compiled).into_iter();
                scopes.entry(&at.route.meta.key.namespace).or_default().extend(entries.map(|entry| {
                    Candidate {
                        // Hostnames mean nothing here.
                        hostname: hostname::ANY.to_owned(),
                        created: at.route.meta.created,
                        entry,
                    }
                }));
            }
        }
        for (namespace, mut candidates) in scopes {
            candidates.sort_by(precedence::compare);
            let entries: Vec<Arc<RouteEntry>> = candidates.into_iter().map(|one| one.entry).collect();
            if namespace == service.namespace {
                routes.producer = Some(entries);
            } else {
                routes.consumers.insert(namespace.to_owned(), entries);
            }
        }
        routes
    }

    /// Whether a route of another kind has the port.
    fn is_displaced(&self, route: &HttpRoute, port: u16) -> bool {
        let is_stronger = |other: &AtService| {
            other.route.kind == RouteKind::Grpc
                && other.route.meta.key.namespace == route.meta.key.namespace
                && other.ports.contains(&port)
        };
        route.kind == RouteKind::Http && self.attached.values().any(is_stronger)
    }

    /// What a route that is attached to these ports has lost of them: why it holds on none, or what is to be said of it if it holds on some.
    pub(crate) fn conflict(
        &self,
        route: &HttpRoute,
        ports: &BTreeSet<u16>,
    ) -> Result<Option<String>, Finding> {
        let lost: Vec<_> = ports.iter().filter(|port| self.is_displaced(route, **port)).collect();
        if lost.is_empty() {
            return Ok(None);
        }
        let numbers = lost.iter().map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
        let why = format!("a GRPCRoute has port {numbers}, and only routes of one kind can hold for a port");
        if lost.len() == ports.len() { Err(Finding::new(reason::CONFLICTED, why)) } else { Ok(Some(why)) }
    }
}
