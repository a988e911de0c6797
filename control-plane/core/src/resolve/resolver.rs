//! Resolution after resolution of a world that changes a little each time. What did not change is found by its address and is not looked
//! at again: one edit among thousands of routes costs little more than one route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attach;
use super::backend::{BackendTable, backend_table};
use super::compile::{CompiledRoute, compile};
use super::seen::{Changes, Seen};
use super::virtual_hosts::AttachedRoute;
use super::work::GatewayWork;
use super::{ControllerConfig, Resolution, class, route};
use crate::model::{HttpRoute, ObjectKey, ObjectKind, ParentRef, World};
use crate::status::{RouteStatus, Statuses};

/// Resolves, and remembers for the next time. The result is the same as [`super::resolve`]'s.
#[derive(Debug)]
pub struct Resolver {
    config: ControllerConfig,
    seen: Seen,
    gateways: BTreeMap<ObjectKey, GatewayWork>,
    routes: BTreeMap<ObjectKey, RouteWork>,
    statuses: BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>>,
}

/// A route with a parent of ours.
#[derive(Debug)]
struct RouteWork {
    source: Source,
    /// By Gateway.
    attached: BTreeMap<ObjectKey, AttachedRoute>,
}

/// What a route is compiled from and to.
#[derive(Debug)]
struct Source {
    route: Arc<HttpRoute>,
    backends: BackendTable,
    compiled: Arc<CompiledRoute>,
}

impl Source {
    fn next(known: Option<Self>, route: &Arc<HttpRoute>, world: &World) -> Self {
        let backends = backend_table(route, world);
        match known {
            Some(known) if Arc::ptr_eq(&known.route, route) && known.backends == backends => known,
            _ => Self { compiled: Arc::new(compile(route, &backends)), route: Arc::clone(route), backends },
        }
    }
}

impl Resolver {
    /// Has seen nothing yet.
    pub fn new(config: ControllerConfig) -> Self {
        Self {
            config,
            seen: Seen::default(),
            gateways: BTreeMap::new(),
            routes: BTreeMap::new(),
            statuses: BTreeMap::new(),
        }
    }

    /// As [`super::resolve`].
    pub fn resolve(&mut self, world: &World) -> Resolution {
        let changes = self.seen.update(world);
        let ours = world
            .gateway_classes
            .values()
            .filter(|class| class.controller_name == self.config.controller_name)
            .map(|class| (class.meta.key.name.clone(), class::status(class, world)));
        let mut resolution = Resolution {
            statuses: Statuses { gateway_classes: ours.collect(), ..Statuses::default() },
            ..Resolution::default()
        };
        let is_ours = |class: &str| resolution.statuses.gateway_classes.contains_key(class);
        let changed_gateways = self.frame_gateways(world, &changes, is_ours);
        for key in self.stale(world, &changes, &changed_gateways) {
            self.resolve_route(&key, world);
        }
        for (key, work) in &mut self.gateways {
            resolution.statuses.gateways.insert(key.clone(), work.status(world));
            resolution.secrets.extend(work.secrets().iter().cloned());
            if !work.unknown().is_empty() {
                resolution.undecided.insert(key.clone(), work.unknown().clone());
            }
            resolution.gateways.insert(key.clone(), work.config());
        }
        resolution.statuses.http_routes = self.statuses.clone();
        resolution
    }

    /// Looks at the Gateways without their routes. Gives those whose routes have to be attached anew: new ones, those that are gone, and
    /// those with other listeners than before.
    fn frame_gateways(
        &mut self,
        world: &World,
        changes: &Changes,
        is_ours: impl Fn(&str) -> bool,
    ) -> BTreeSet<ObjectKey> {
        let mut known = std::mem::take(&mut self.gateways);
        let mut changed = BTreeSet::new();
        for (key, gateway) in world.gateways.iter().filter(|(_, gateway)| is_ours(&gateway.class_name)) {
            let work = match known.remove(key) {
                Some(work) => work.next(gateway, world, &self.config, changes),
                None => GatewayWork::new(gateway, world, &self.config),
            };
            if work.is_new() {
                changed.insert(key.clone());
            }
            self.gateways.insert(key.clone(), work);
        }
        changed.extend(known.into_keys());
        changed
    }

    /// Routes about which something else may have to be said than the last time.
    fn stale(&self, world: &World, changes: &Changes, gateways: &BTreeSet<ObjectKey>) -> BTreeSet<ObjectKey> {
        let mut stale = changes.http_routes.clone();
        let rejected = changes.rejections.iter().filter(|object| object.kind == ObjectKind::HttpRoute);
        stale.extend(rejected.map(|object| object.key.clone()));
        if !changes.reference_grants.is_empty() {
            stale.extend(self.routes.keys().cloned());
        }
        if !changes.services.is_empty() || !changes.namespaces.is_empty() {
            let concerned = self.routes.iter().filter(|(key, work)| {
                changes.namespaces.contains(&key.namespace)
                    || work.source.backends.keys().any(|backend| changes.services.contains(backend.object()))
            });
            stale.extend(concerned.map(|(key, _)| key.clone()));
        }
        if !gateways.is_empty() {
            let concerned = world.http_routes.iter().filter(|(_, route)| {
                let mut parents =
                    route.parent_refs.iter().filter_map(|reference| attach::gateway_of(reference, route));
                parents.any(|parent| gateways.contains(&parent))
            });
            stale.extend(concerned.map(|(key, _)| key.clone()));
        }
        stale
    }

    /// Attaches a route to its Gateways, and takes it away where it was and no longer is.
    fn resolve_route(&mut self, key: &ObjectKey, world: &World) {
        let (known, before) = self.routes.remove(key).map(|work| (work.source, work.attached)).unzip();
        let before = before.unwrap_or_default();
        let found = world.http_routes.get(key).map(|route| (route, self.parents(route)));
        let Some((route, parents)) = found.filter(|(_, parents)| !parents.is_empty()) else {
            self.statuses.remove(key);
            return self.reattach(before, &BTreeMap::new());
        };
        let source = Source::next(known, route, world);
        let (status, attached) = self.attached(&source, parents, world);
        self.statuses.insert(Arc::new(key.clone()), Arc::new(status));
        self.reattach(before, &attached);
        self.routes.insert(key.clone(), RouteWork { source, attached });
    }

    /// To which listeners of which Gateways a route is to be attached, and its status.
    fn attached(
        &self,
        source: &Source,
        references: Vec<(&ParentRef, ObjectKey)>,
        world: &World,
    ) -> (RouteStatus, BTreeMap<ObjectKey, AttachedRoute>) {
        let Source { route, compiled, .. } = source;
        let mut parents = Vec::with_capacity(references.len());
        let mut all: BTreeMap<ObjectKey, AttachedRoute> = BTreeMap::new();
        for (reference, parent) in references {
            let Some(work) = self.gateways.get(&parent) else { continue };
            let outcome = work.attachments(route, reference, world);
            parents.push(route::parent_status(route, reference, outcome.as_ref().err(), compiled, world));
            let attached = all.entry(parent).or_insert_with(|| AttachedRoute {
                route: Arc::clone(route),
                compiled: Arc::clone(compiled),
                attachments: Vec::new(),
            });
            for attachment in outcome.into_iter().flatten() {
                // Two parentRefs may lead to one listener, which has the route once all the same.
                if !attached.attachments.iter().any(|other| other.listener == attachment.listener) {
                    attached.attachments.push(attachment);
                }
            }
        }
        (RouteStatus { parents }, all)
    }

    /// A Gateway that is new, or was begun anew, has nothing of what was attached before.
    fn reattach(
        &mut self,
        mut before: BTreeMap<ObjectKey, AttachedRoute>,
        now: &BTreeMap<ObjectKey, AttachedRoute>,
    ) {
        before.retain(|key, _| self.gateways.get(key).is_some_and(|work| !work.is_new()));
        let keys: BTreeSet<&ObjectKey> = before.keys().chain(now.keys()).collect();
        for key in keys {
            let (known, attached) = (before.get(key), now.get(key));
            if let Some(work) = self.gateways.get_mut(key).filter(|_| known != attached) {
                known.into_iter().for_each(|known| work.detach(known));
                attached.into_iter().for_each(|attached| work.attach(attached));
            }
        }
    }

    /// The route's parents that are Gateways of ours, each parentRef once.
    fn parents<'a>(&self, route: &'a HttpRoute) -> Vec<(&'a ParentRef, ObjectKey)> {
        let mut ours: Vec<(&ParentRef, ObjectKey)> = Vec::new();
        for reference in &route.parent_refs {
            let parent =
                attach::gateway_of(reference, route).filter(|parent| self.gateways.contains_key(parent));
            if let Some(parent) = parent
                && !ours.iter().any(|(other, _)| *other == reference)
            {
                ours.push((reference, parent));
            }
        }
        ours
    }
}
