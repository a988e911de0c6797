//! The one table of routes about requests that all nodes have, and the one about connections. Where a proxy refuses one of them nobody says
//! which route is the cause; but none of those that are in it for the first time is in force, and each of them is to be told.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::config::{PortRoutes, RouteEntry, ServiceRoutes};
use meshwright_core::model::ObjectId;
use meshwright_xds::mesh::{ROUTES, SERVICES};
use meshwright_xds::{Event, TypeUrl};
use tokio::time::Instant;

use super::REMEMBERED;

/// Versions that proxies may still speak of.
const KNOWN: usize = 16;

/// What a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// HTTPRoutes and GRPCRoutes.
    Requests,
    /// TCPRoutes.
    Connections,
}

impl What {
    /// The resource that has the table.
    fn resource(self) -> (TypeUrl, &'static str) {
        match self {
            Self::Requests => (TypeUrl::Route, ROUTES),
            Self::Connections => (TypeUrl::ExtensionConfig, SERVICES),
        }
    }

    fn entries(self, routes: &PortRoutes) -> impl Iterator<Item = &RouteEntry> {
        let requests = (self == Self::Requests).then(|| routes.entries());
        let connections = (self == Self::Connections).then(|| routes.connections.entries());
        requests.into_iter().flatten().chain(connections.into_iter().flatten())
    }
}

/// See the module.
pub struct Tables {
    what: What,
    /// The newest last.
    published: VecDeque<Table>,
    /// Tables since the start.
    count: u64,
    /// The newest that a proxy took. A slow one that takes an older one takes nothing back.
    good: Option<(u64, Arc<ServiceRoutes>)>,
    /// By stream: what its proxy refuses.
    refused: BTreeMap<u64, Refusal>,
}

struct Table {
    number: u64,
    version: Arc<str>,
    routes: Arc<ServiceRoutes>,
}

struct Refusal {
    version: Arc<str>,
    /// The proxy's words.
    message: String,
    /// When its stream closed.
    closed: Option<Instant>,
}

impl Tables {
    /// Nothing was published yet.
    pub fn new(what: What) -> Self {
        Self { what, published: VecDeque::new(), count: 0, good: None, refused: BTreeMap::new() }
    }

    /// The table has this version with these routes from now on.
    pub fn published(&mut self, version: &Arc<str>, routes: &Arc<ServiceRoutes>) {
        if let Some(known) = self.published.back_mut().filter(|known| known.version == *version) {
            // They say it in other words, which are in force as well.
            known.routes = routes.clone();
            if let Some((_, good)) = self.good.as_mut().filter(|(number, _)| *number == known.number) {
                *good = routes.clone();
            }
            return;
        }
        self.count += 1;
        let (version, routes) = (version.clone(), routes.clone());
        self.published.push_back(Table { number: self.count, version, routes });
        if self.published.len() > KNOWN {
            self.published.pop_front();
        }
    }

    /// Takes note of what happened on the stream of a node. Returns whether something is refused that was not, or the other way round, or will
    /// be at another time.
    pub fn on_event(&mut self, stream: u64, event: &Event, now: Instant) -> bool {
        let (of, table) = self.what.resource();
        let version = |resources: &[(Arc<str>, Arc<str>)]| {
            resources.iter().find(|(name, _)| **name == *table).map(|(_, version)| version.clone())
        };
        match event {
            Event::Nack { kind, resources, message } if *kind == of => match version(resources) {
                Some(version) => {
                    self.forget_before(&version);
                    let refusal = Refusal { version, message: message.clone(), closed: None };
                    self.refused.insert(stream, refusal);
                    true
                }
                None => false,
            },
            Event::Ack { kind, resources, .. } if *kind == of => match version(resources) {
                Some(version) => self.taken(stream, &version),
                None => false,
            },
            Event::Closed { .. } => {
                let refusal = self.refused.get_mut(&stream);
                refusal.map(|refusal| refusal.closed = Some(now)).is_some()
            }
            _ => false,
        }
    }

    fn taken(&mut self, stream: u64, version: &str) -> bool {
        let before = self.refused.len();
        self.refused.remove(&stream);
        self.forget_before(version);
        if let Some(table) = self.table(version) {
            let (number, routes) = (table.number, table.routes.clone());
            if self.good.as_ref().is_none_or(|(good, _)| *good < number) {
                self.good = Some((number, routes));
            }
        }
        self.refused.len() != before
    }

    /// Of a refusal whose stream has closed nobody knows whose it was: what anybody says of a newer table counts instead.
    fn forget_before(&mut self, version: &str) {
        let Some(number) = self.table(version).map(|table| table.number) else { return };
        let published = &self.published;
        let is_as_new = |of: &str| published.iter().any(|one| *one.version == *of && one.number >= number);
        self.refused.retain(|_, refusal| refusal.closed.is_none() || is_as_new(&refusal.version));
    }

    fn table(&self, version: &str) -> Option<&Table> {
        self.published.iter().rfind(|known| *known.version == *version)
    }

    /// When something is to be forgotten, whatever happens.
    pub fn next_end(&self) -> Option<Instant> {
        self.refused.values().filter_map(|refusal| refusal.closed).min().map(|closed| closed + REMEMBERED)
    }

    /// The routes that are not in force, with the proxies' words.
    pub fn rejections(&mut self, now: Instant) -> BTreeMap<ObjectId, String> {
        self.refused.retain(|_, refusal| refusal.closed.is_none_or(|closed| now < closed + REMEMBERED));
        let mut all = BTreeMap::new();
        for Refusal { version, message, .. } in self.refused.values() {
            let Some(table) = self.table(version) else { continue };
            let good = self.good.as_ref().map(|(_, routes)| &**routes);
            for object in new_ones(self.what, good, &table.routes) {
                all.entry(object).or_insert_with(|| message.clone());
            }
        }
        all
    }
}

/// Routes that were not in the good table as they are. As long as no proxy took any, it is the only one, or nobody knows.
fn new_ones(what: What, good: Option<&ServiceRoutes>, refused: &ServiceRoutes) -> BTreeSet<ObjectId> {
    let none = ServiceRoutes::new();
    let before: HashSet<_> = entries(what, good.unwrap_or(&none)).collect();
    let new = entries(what, refused).filter(|entry| !before.contains(entry)).map(|(.., entry)| entry.id());
    let new: BTreeSet<ObjectId> = new.collect();
    if good.is_none() && new.len() > 1 { BTreeSet::new() } else { new }
}

fn entries(what: What, routes: &ServiceRoutes) -> impl Iterator<Item = (&ObjectKey, u16, &RouteEntry)> {
    let ports =
        routes.iter().flat_map(|(key, ports)| ports.iter().map(move |(port, found)| (key, *port, found)));
    ports.flat_map(move |(key, port, found)| what.entries(found).map(move |entry| (key, port, entry)))
}

#[cfg(test)]
mod tests;
