//! A route with its parents, from one resolution to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::backend::{BackendTable, Side, backend_table};
use super::compile::{CompiledRoute, compile};
use super::service::AtService;
use super::virtual_hosts::AttachedRoute;
use crate::model::{HttpRoute, ObjectKey, ParentRef, World};
use crate::status::Finding;

/// A parent of ours.
#[derive(Debug)]
pub(crate) struct Parent {
    pub reference: ParentRef,
    pub to: To,
}

/// What a parentRef leads to.
#[derive(Debug)]
pub(crate) enum To {
    /// A Gateway of ours.
    Gateway(ObjectKey),
    /// A Service, and its ports that the route is attached to, or why to none.
    Service(ObjectKey, Result<BTreeSet<u16>, Finding>),
}

impl To {
    fn side(&self) -> Side {
        match self {
            Self::Gateway(_) => Side::Gateway,
            Self::Service(..) => Side::Mesh,
        }
    }
}

/// A route with at least one parent of ours.
#[derive(Debug)]
pub(crate) struct RouteWork {
    pub route: Arc<HttpRoute>,
    /// In the order of the spec.
    pub parents: Vec<Parent>,
    /// By whose proxies it is for.
    sources: BTreeMap<Side, Source>,
    /// By Gateway.
    pub attached: BTreeMap<ObjectKey, AttachedRoute>,
}

/// What a route is compiled with and to.
#[derive(Debug)]
struct Source {
    backends: BackendTable,
    compiled: Arc<CompiledRoute>,
}

impl RouteWork {
    /// Compiles for each kind of parent. What `known` has of it stays if the route and its backends are what they were.
    pub(crate) fn next(
        known: Option<Self>,
        route: &Arc<HttpRoute>,
        parents: Vec<Parent>,
        world: &World,
    ) -> Self {
        let known = known.filter(|known| Arc::ptr_eq(&known.route, route));
        let mut known = known.map(|known| known.sources).unwrap_or_default();
        let mut sources = BTreeMap::new();
        for side in parents.iter().map(|parent| parent.to.side()).collect::<BTreeSet<_>>() {
            let backends = backend_table(route, side, world);
            let source = match known.remove(&side) {
                Some(known) if known.backends == backends => known,
                _ => Source { compiled: Arc::new(compile(route, &backends)), backends },
            };
            sources.insert(side, source);
        }
        Self { route: Arc::clone(route), parents, sources, attached: BTreeMap::new() }
    }

    /// What it is for this parent.
    pub(crate) fn compiled(&self, to: &To) -> Option<&Arc<CompiledRoute>> {
        self.sources.get(&to.side()).map(|source| &source.compiled)
    }

    /// Services that it names, as parents or backends, whether they exist or not.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        let backends = self.sources.values().flat_map(|source| source.backends.keys());
        backends.map(|backend| backend.object()).chain(self.parent_services())
    }

    /// Services that are its parents, whether they exist or not.
    pub(crate) fn parent_services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.parents.iter().filter_map(|parent| match &parent.to {
            To::Service(key, _) => Some(key),
            To::Gateway(_) => None,
        })
    }

    /// At which ports of which Services it is.
    pub(crate) fn at_services(&self) -> BTreeMap<ObjectKey, AtService> {
        let mut all: BTreeMap<ObjectKey, AtService> = BTreeMap::new();
        for parent in &self.parents {
            let To::Service(key, Ok(ports)) = &parent.to else { continue };
            let Some(compiled) = self.compiled(&parent.to) else { continue };
            let at = all.entry(key.clone()).or_insert_with(|| AtService {
                route: Arc::clone(&self.route),
                compiled: Arc::clone(compiled),
                ports: BTreeSet::new(),
                named: BTreeSet::new(),
            });
            at.ports.extend(ports);
            if parent.reference.port.is_some() || parent.reference.section_name.is_some() {
                at.named.extend(ports);
            }
        }
        all
    }
}
