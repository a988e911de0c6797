//! The one table of routes that all nodes have. Where a proxy refuses it nobody says which route is the cause; but none of those that are in it
//! for the first time is in force, and each of them is to be told.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::config::{RouteEntry, ServiceRoutes};
use meshwright_core::model::ObjectId;
use meshwright_xds::mesh::ROUTES;
use meshwright_xds::{Event, TypeUrl};
use tokio::time::Instant;

use super::REMEMBERED;

/// Versions that proxies may still speak of.
const KNOWN: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Tables {
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
    /// The table has this version with these routes from now on.
    pub fn published(&mut self, version: &Arc<str>, routes: &Arc<ServiceRoutes>) {
        if self.published.back().is_some_and(|known| known.version == *version) {
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
        let version = |resources: &[(Arc<str>, Arc<str>)]| {
            resources.iter().find(|(name, _)| **name == *ROUTES).map(|(_, version)| version.clone())
        };
        match event {
            Event::Nack { kind: TypeUrl::Route, resources, message } => match version(resources) {
                Some(version) => {
                    self.forget_before(&version);
                    let refusal = Refusal { version, message: message.clone(), closed: None };
                    self.refused.insert(stream, refusal);
                    true
                }
                None => false,
            },
            Event::Ack { kind: TypeUrl::Route, resources, .. } => match version(resources) {
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
            for object in new_ones(self.good.as_ref().map(|(_, routes)| &**routes), &table.routes) {
                all.entry(object).or_insert_with(|| message.clone());
            }
        }
        all
    }
}

/// Routes that were not in the good table as they are. As long as no proxy took any, it is the only one, or nobody knows.
fn new_ones(good: Option<&ServiceRoutes>, refused: &ServiceRoutes) -> BTreeSet<ObjectId> {
    let none = ServiceRoutes::new();
    let before: HashSet<_> = entries(good.unwrap_or(&none)).collect();
    let new = entries(refused).filter(|entry| !before.contains(entry)).map(|(.., entry)| entry.id());
    let new: BTreeSet<ObjectId> = new.collect();
    if good.is_none() && new.len() > 1 { BTreeSet::new() } else { new }
}

fn entries(routes: &ServiceRoutes) -> impl Iterator<Item = (&ObjectKey, u16, &RouteEntry)> {
    let ports =
        routes.iter().flat_map(|(key, ports)| ports.iter().map(move |(port, found)| (key, *port, found)));
    ports.flat_map(|(key, port, found)| found.entries().map(move |entry| (key, port, entry)))
}

#[cfg(test)]
mod tests;
