//! Routes that are for the same callers at the same port of a Service: which of them has it, and what the others are told.

use std::collections::{BTreeMap, BTreeSet};

use super::service::ServiceWork;
use crate::conditions::reason;
use crate::model::{HttpRoute, ObjectKey, RouteKind};
use crate::status::Finding;

impl ServiceWork {
    /// The kind of routes that has the port instead of this one's.
    pub(super) fn displaced_by(&self, route: &HttpRoute, port: u16) -> Option<RouteKind> {
        let stronger = self.rivals(route, port).map(|other| other.kind);
        stronger.filter(|kind| rank(*kind) < rank(route.kind)).min_by_key(|kind| rank(*kind))
    }

    /// The older TCPRoute that has the port instead of this one.
    fn older(&self, route: &HttpRoute, port: u16) -> Option<&ObjectKey> {
        let age = |one: &HttpRoute| (one.meta.created, one.meta.key.name.clone());
        let rivals = self.rivals(route, port).filter(|other| other.kind == RouteKind::Tcp);
        let older = rivals.filter(|other| route.kind == RouteKind::Tcp && age(other) < age(route));
        older.min_by_key(|other| age(other)).map(|other| &other.meta.key)
    }

    /// All routes at the port that are for the same callers.
    fn rivals(&self, route: &HttpRoute, port: u16) -> impl Iterator<Item = &HttpRoute> {
        let namespace = route.meta.key.namespace.clone();
        let at_port = self.attached.values().filter(move |other| other.ports.contains(&port));
        at_port.map(|other| &*other.route).filter(move |other| other.meta.key.namespace == namespace)
    }

    /// What a route that is attached to these ports has lost of them: why it holds on none, or what is to be said of it if it holds on some,
    /// or if it waits until an older one of its kind is gone, which is no reason not to accept it.
    pub(crate) fn conflict(
        &self,
        route: &HttpRoute,
        ports: &BTreeSet<u16>,
    ) -> Result<Option<String>, Finding> {
        let mut lost: BTreeMap<RouteKind, Vec<String>> = BTreeMap::new();
        let mut waits: BTreeMap<&ObjectKey, Vec<String>> = BTreeMap::new();
        for port in ports {
            match (self.displaced_by(route, *port), self.older(route, *port)) {
                (Some(kind), _) => lost.entry(kind).or_default().push(port.to_string()),
                (None, Some(older)) => waits.entry(older).or_default().push(port.to_string()),
                (None, None) => {}
            }
        }
        let lost_all = lost.values().map(Vec::len).sum::<usize>() == ports.len();
        let kinds = lost.iter().map(|(kind, ports)| {
            let (article, ports) = (if *kind == RouteKind::Http { "an" } else { "a" }, ports.join(", "));
            let kind = kind.as_str();
            format!("{article} {kind} has port {ports}, and only routes of one kind can hold for a port")
        });
        let older = waits.iter().map(|(older, ports)| {
            format!("TCPRoute {older} is older and has port {}, for as long as it is there", ports.join(", "))
        });
        // The API took several before v1.6.
        let is_long = route.kind == RouteKind::Tcp && route.rules.len() > 1;
        let first =
            is_long.then(|| "each connection is for the first rule: the others do nothing".to_owned());
        let why = kinds.chain(older).chain(first).collect::<Vec<_>>().join("; ");
        match why.is_empty() {
            true => Ok(None),
            false if lost_all => Err(Finding::new(reason::CONFLICTED, why)),
            false => Ok(Some(why)),
        }
    }
}

/// By GEP-1294: the more is known of what is spoken, the stronger.
fn rank(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Grpc => 0,
        RouteKind::Http => 1,
        RouteKind::Tcp => 2,
    }
}
