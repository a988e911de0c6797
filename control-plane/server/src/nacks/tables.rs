//! The one table of routes that all nodes have. Where a proxy refuses it nobody says which route is the cause; but none of those that are in it
//! for the first time is in force, and each of them is to be told.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::config::{RouteEntry, ServiceRoutes};
use meshwright_core::model::ObjectId;
use meshwright_xds::mesh::ROUTES;
use meshwright_xds::{Event, TypeUrl};

/// Versions that proxies may still speak of.
const KNOWN: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Tables {
    /// By version, the newest last.
    published: VecDeque<(Arc<str>, Arc<ServiceRoutes>)>,
    /// What a proxy took last.
    good: Option<Arc<ServiceRoutes>>,
    /// By stream: what its proxy refuses, and its words.
    refused: BTreeMap<u64, (Arc<str>, String)>,
}

impl Tables {
    /// The table has this version with these routes from now on.
    pub fn published(&mut self, version: &Arc<str>, routes: &Arc<ServiceRoutes>) {
        if self.published.back().is_some_and(|(known, _)| known == version) {
            return;
        }
        self.published.push_back((version.clone(), routes.clone()));
        if self.published.len() > KNOWN {
            self.published.pop_front();
        }
    }

    /// Takes note of what happened on the stream of a node. Returns whether something is refused that was not, or the other way round.
    pub fn on_event(&mut self, stream: u64, event: &Event) -> bool {
        let version = |resources: &[(Arc<str>, Arc<str>)]| {
            resources.iter().find(|(name, _)| **name == *ROUTES).map(|(_, version)| version.clone())
        };
        match event {
            Event::Nack { kind: TypeUrl::Route, resources, message } => match version(resources) {
                Some(version) => {
                    self.refused.insert(stream, (version, message.clone()));
                    true
                }
                None => false,
            },
            Event::Ack { kind: TypeUrl::Route, resources, .. } => match version(resources) {
                Some(version) => {
                    self.good = self.routes(&version).or(self.good.take());
                    self.refused.remove(&stream).is_some()
                }
                None => false,
            },
            Event::Closed { .. } => self.refused.remove(&stream).is_some(),
            _ => false,
        }
    }

    fn routes(&self, version: &str) -> Option<Arc<ServiceRoutes>> {
        self.published.iter().find(|(known, _)| **known == *version).map(|(_, routes)| routes.clone())
    }

    /// The routes that are not in force, with the proxies' words.
    pub fn rejections(&self) -> BTreeMap<ObjectId, String> {
        let mut all = BTreeMap::new();
        for (version, message) in self.refused.values() {
            let Some(routes) = self.routes(version) else { continue };
            for object in new_ones(self.good.as_deref(), &routes) {
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
mod tests {
    use meshwright_core::config::{CompiledRule, PortRoutes};
    use meshwright_core::model::{HttpRouteMatch, ObjectKind, RouteKind};

    use super::*;

    fn entry(name: &str, rule: &str) -> Arc<RouteEntry> {
        Arc::new(RouteEntry {
            kind: RouteKind::Http,
            route: ObjectKey::new("shop", name),
            rule_index: 0,
            match_index: 0,
            matches: HttpRouteMatch::default(),
            rule: Arc::new(CompiledRule { name: Some(rule.to_owned()), ..CompiledRule::default() }),
        })
    }

    /// Routes with the names of their rules, all of one Service's port.
    fn routes(all: &[(&str, &str)]) -> Arc<ServiceRoutes> {
        let producer = Some(all.iter().map(|(name, rule)| entry(name, rule)).collect());
        let port = Arc::new(PortRoutes { producer, ..PortRoutes::default() });
        Arc::new([(ObjectKey::new("shop", "web"), [(80, port)].into())].into())
    }

    fn of(version: &str) -> Vec<(Arc<str>, Arc<str>)> {
        vec![(ROUTES.into(), version.into())]
    }

    fn ack(version: &str) -> Event {
        Event::Ack { kind: TypeUrl::Route, resources: of(version), removed: Vec::new() }
    }

    fn nack(version: &str) -> Event {
        Event::Nack { kind: TypeUrl::Route, resources: of(version), message: format!("no {version}") }
    }

    fn blamed(tables: &Tables) -> Vec<String> {
        let all = tables.rejections();
        assert!(all.keys().all(|object| object.kind == ObjectKind::HttpRoute));
        all.iter().map(|(object, words)| format!("{}: {words}", object.key.name)).collect()
    }

    #[test]
    fn those_are_to_blame_that_no_proxy_has_taken() {
        let mut tables = Tables::default();
        tables.published(&"1".into(), &routes(&[("old", "x"), ("other", "x")]));
        assert!(tables.on_event(7, &nack("1")));
        assert_eq!(blamed(&tables), [""; 0], "nobody knows which");
        assert!(tables.on_event(7, &ack("1")));
        tables.published(&"2".into(), &routes(&[("old", "x"), ("other", "y"), ("new", "x")]));
        assert!(tables.on_event(7, &nack("2")) && tables.on_event(8, &nack("2")));
        assert_eq!(blamed(&tables), ["new: no 2", "other: no 2"]);
        // One of them was mended, the other is still not in force.
        tables.published(&"3".into(), &routes(&[("old", "x"), ("other", "x"), ("new", "x")]));
        assert!(tables.on_event(7, &nack("3")));
        assert!(tables.on_event(8, &Event::Closed { maybe_sent: Default::default() }));
        assert_eq!(blamed(&tables), ["new: no 3"]);
        tables.published(&"4".into(), &routes(&[("old", "x"), ("new", "y")]));
        assert!(tables.on_event(7, &ack("4")) && !tables.on_event(9, &ack("4")));
        assert_eq!(blamed(&tables), [""; 0]);
    }

    #[test]
    fn the_only_route_is_to_blame_in_any_case_and_unknown_versions_are_nobodys() {
        let mut tables = Tables::default();
        tables.published(&"1".into(), &routes(&[("only", "x")]));
        tables.on_event(1, &nack("1"));
        assert_eq!(blamed(&tables), ["only: no 1"]);
        tables.on_event(1, &nack("0"));
        assert_eq!(blamed(&tables), [""; 0]);
    }
}
