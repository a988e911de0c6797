//! Resolution after resolution of a world that changes a little each time. What did not change is found by its address and is not looked
//! at again: one edit among thousands of routes costs little more than one route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attach;
use super::parents::{Parent, RouteWork, To};
use super::seen::{Changes, Seen};
use super::service::{self, AtService, ServiceWork};
use super::virtual_hosts::AttachedRoute;
use super::work::GatewayWork;
use super::{ControllerConfig, Resolution, class, route};
use crate::config::ServiceRoutes;
use crate::model::{HttpRoute, ObjectId, ObjectKey, ObjectKind, RouteKind, World};
use crate::status::{RouteStatus, Statuses};

/// Resolves, and remembers for the next time. The result is the same as [`super::resolve`]'s.
#[derive(Debug)]
pub struct Resolver {
    config: ControllerConfig,
    seen: Seen,
    gateways: BTreeMap<ObjectKey, GatewayWork>,
    /// Services that are parents of routes.
    services: BTreeMap<ObjectKey, ServiceWork>,
    service_routes: Arc<ServiceRoutes>,
    /// Routes with a parent of ours.
    routes: BTreeMap<ObjectId, RouteWork>,
    /// Of the routes only.
    statuses: Statuses,
}

impl Resolver {
    /// Has seen nothing yet.
    pub fn new(config: ControllerConfig) -> Self {
        Self {
            config,
            seen: Seen::default(),
            gateways: BTreeMap::new(),
            services: BTreeMap::new(),
            service_routes: Arc::default(),
            routes: BTreeMap::new(),
            statuses: Statuses::default(),
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
        self.resolve_routes(self.stale(world, &changes, &changed_gateways), world);
        for (key, work) in &mut self.gateways {
            resolution.statuses.gateways.insert(key.clone(), work.status(world));
            resolution.secrets.extend(work.secrets().iter().cloned());
            if !work.unknown().is_empty() {
                resolution.undecided.insert(key.clone(), work.unknown().clone());
            }
            resolution.gateways.insert(key.clone(), work.config());
        }
        resolution.services = self.service_routes.clone();
        resolution.statuses.http_routes = self.statuses.http_routes.clone();
        resolution.statuses.grpc_routes = self.statuses.grpc_routes.clone();
        resolution.statuses.tcp_routes = self.statuses.tcp_routes.clone();
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
    fn stale(&self, world: &World, changes: &Changes, gateways: &BTreeSet<ObjectKey>) -> BTreeSet<ObjectId> {
        let id = |kind: ObjectKind| move |key: &ObjectKey| ObjectId { kind, key: key.clone() };
        let mut stale: BTreeSet<ObjectId> =
            changes.http_routes.iter().map(id(ObjectKind::HttpRoute)).collect();
        stale.extend(changes.grpc_routes.iter().map(id(ObjectKind::GrpcRoute)));
        stale.extend(changes.tcp_routes.iter().map(id(ObjectKind::TcpRoute)));
        stale.extend(changes.rejections.iter().filter(|object| object.kind.route().is_some()).cloned());
        if !changes.reference_grants.is_empty() {
            stale.extend(self.routes.keys().cloned());
        }
        if !changes.services.is_empty() || !changes.namespaces.is_empty() {
            let concerned = self.routes.iter().filter(|(id, work)| {
                changes.namespaces.contains(&id.key.namespace)
                    || work.services().any(|service| changes.services.contains(service))
            });
            stale.extend(concerned.map(|(id, _)| id.clone()));
        }
        if !gateways.is_empty() {
            let routes = world.http_routes.values().chain(world.tcp_routes.values());
            let concerned = routes.filter(|route| {
                let mut parents =
                    route.parent_refs.iter().filter_map(|reference| attach::gateway_of(reference, route));
                parents.any(|parent| gateways.contains(&parent))
            });
            stale.extend(concerned.map(|route| route.id()));
        }
        stale
    }

    /// Attaches routes anew, and says what became of them and of those that they share a Service with.
    fn resolve_routes(&mut self, mut stale: BTreeSet<ObjectId>, world: &World) {
        let mut touched = BTreeSet::new();
        for id in &stale {
            self.attach(id, world, &mut touched);
        }
        for key in touched {
            let Some(work) = self.services.get_mut(&key) else { continue };
            stale.extend(work.attached.keys().cloned());
            let routes = work.merge(&key);
            if self.service_routes.get(&key) != Some(&routes).filter(|routes| !routes.is_empty()) {
                let all = Arc::make_mut(&mut self.service_routes);
                if routes.is_empty() {
                    all.remove(&key)
                } else {
                    all.insert(key.clone(), routes)
                };
            }
        }
        self.services.retain(|_, work| !work.attached.is_empty());
        for id in &stale {
            let Some(kind) = id.kind.route() else { continue };
            match self.routes.get(id).map(|work| self.status(work, world)) {
                Some(status) => {
                    let known = self.statuses.routes_mut(kind).entry(Arc::new(id.key.clone())).or_default();
                    if **known != status {
                        *known = Arc::new(status);
                    }
                }
                None => drop(self.statuses.routes_mut(kind).remove(&id.key)),
            }
        }
    }

    /// Attaches a route to its parents, and takes it away where it was and no longer is. `touched`: Services of which either is so.
    fn attach(&mut self, id: &ObjectId, world: &World, touched: &mut BTreeSet<ObjectKey>) {
        let mut known = self.routes.remove(id);
        let before = known.as_mut().map(|work| std::mem::take(&mut work.attached)).unwrap_or_default();
        let services_before = known.iter().flat_map(RouteWork::parent_services).cloned().collect();
        let route = id.kind.route().and_then(|kind| world.routes(kind).get(&id.key));
        let parents = route.map(|route| self.parents(route, world)).unwrap_or_default();
        let Some(route) = route.filter(|_| !parents.is_empty()) else {
            self.attach_to_services(id, services_before, BTreeMap::new(), touched);
            return self.reattach(before, &BTreeMap::new());
        };
        let mut work = RouteWork::next(known, route, parents, world);
        work.attached = self.attached(&work, world);
        self.attach_to_services(id, services_before, work.at_services(), touched);
        self.reattach(before, &work.attached);
        self.routes.insert(id.clone(), work);
    }

    /// The route's parents that are Gateways of ours, or Services, each parentRef once.
    fn parents(&self, route: &HttpRoute, world: &World) -> Vec<Parent> {
        let mut ours: Vec<Parent> = Vec::new();
        for reference in &route.parent_refs {
            if ours.iter().any(|known| known.reference == *reference) {
                continue;
            }
            let gateway = attach::gateway_of(reference, route)
                .filter(|parent| route.kind != RouteKind::Grpc && self.gateways.contains_key(parent));
            let to = gateway.map(To::Gateway).or_else(|| {
                let key = service::service_of(reference, route).filter(|_| self.config.has_mesh)?;
                let ports = service::attach(reference, &key, route.kind, world);
                Some(To::Service(key, ports))
            });
            ours.extend(to.map(|to| Parent { reference: reference.clone(), to }));
        }
        ours
    }

    /// To which listeners of which Gateways a route is to be attached.
    fn attached(&self, work: &RouteWork, world: &World) -> BTreeMap<ObjectKey, AttachedRoute> {
        let mut all: BTreeMap<ObjectKey, AttachedRoute> = BTreeMap::new();
        for parent in &work.parents {
            let To::Gateway(key) = &parent.to else { continue };
            let (Some(gateway), Some(compiled)) = (self.gateways.get(key), work.compiled(&parent.to)) else {
                continue;
            };
            let attached = all.entry(key.clone()).or_insert_with(|| AttachedRoute {
                route: Arc::clone(&work.route),
                compiled: Arc::clone(compiled),
                attachments: Vec::new(),
            });
            let found = gateway.attachments(&work.route, &parent.reference, world);
            for attachment in found.into_iter().flatten() {
                // Two parentRefs may lead to one listener, which has the route once all the same.
                if !attached.attachments.iter().any(|other| other.listener == attachment.listener) {
                    attached.attachments.push(attachment);
                }
            }
        }
        all
    }

    fn status(&self, work: &RouteWork, world: &World) -> RouteStatus {
        let mut parents = Vec::with_capacity(work.parents.len());
        for Parent { reference, to } in &work.parents {
            let attached = match to {
                To::Gateway(key) => {
                    let Some(gateway) = self.gateways.get(key) else { continue };
                    gateway.attachments(&work.route, reference, world).map(|_| None)
                }
                To::Service(_, Err(finding)) => Err(finding.clone()),
                To::Service(key, Ok(ports)) => {
                    let service = self.services.get(key);
                    service.map_or(Ok(None), |service| service.conflict(&work.route, ports))
                }
            };
            let Some(compiled) = work.compiled(to) else { continue };
            parents.push(route::parent_status(&work.route, reference, attached, compiled, world));
        }
        RouteStatus { parents }
    }

    fn attach_to_services(
        &mut self,
        id: &ObjectId,
        before: BTreeSet<ObjectKey>,
        mut now: BTreeMap<ObjectKey, AtService>,
        touched: &mut BTreeSet<ObjectKey>,
    ) {
        for key in before.into_iter().chain(now.keys().cloned()).collect::<BTreeSet<_>>() {
            let work = self.services.entry(key.clone()).or_default();
            let at = now.remove(&key);
            if work.attached.get(id) != at.as_ref() {
                match at {
                    Some(at) => drop(work.attached.insert(id.clone(), at)),
                    None => drop(work.attached.remove(id)),
                }
                touched.insert(key);
            }
        }
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
}
