//! From the objects of the cluster to what proxies do and what statuses say.
//!
//! `backend_table` and `compile` do the work for one route and depend on nothing but it and its table; the
//! rest joins their results.

mod attach;
mod backend;
mod cache;
mod check;
mod class;
mod compile;
mod expression;
mod gateway;
mod grants;
mod listeners;
mod precedence;
mod route;
mod virtual_hosts;

pub use backend::{BackendKey, BackendTable, backend_table};
pub use cache::RouteCache;
pub use compile::{CompiledRoute, CompiledRouteRule, compile};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::attach::Attachment;
use self::listeners::ListenerState;
use self::virtual_hosts::AttachedRoute;
use crate::conditions::reason;
use crate::config::GatewayConfig;
use crate::model::{Gateway, HttpRoute, ObjectKey, ParentRef, World};
use crate::status::{Finding, RouteStatus, Statuses};

/// What distinguishes one controller from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerConfig {
    /// GatewayClasses with this `controllerName` are ours.
    pub controller_name: String,
    /// Ports that the proxy pod needs for itself; a listener on one is refused.
    pub reserved_ports: BTreeSet<u16>,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            controller_name: "meshwright.io/gateway-controller".to_owned(),
            // The agent's health and metrics ports, see docs/ARCHITECTURE.md.
            reserved_ports: BTreeSet::from([15020, 15021]),
        }
    }
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Configuration of every Gateway of ours.
    pub gateways: BTreeMap<ObjectKey, Arc<GatewayConfig>>,
    /// What the statuses should say.
    pub statuses: Statuses,
    /// Secrets that a listener names and may name: these, and no others, are to be read.
    pub secrets: BTreeSet<ObjectKey>,
    /// Gateways that name Secrets of which nothing is known yet, with those Secrets. What is said here of such a
    /// Gateway treats them as absent: to publish it at once would close ports that are open.
    pub undecided: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// Resolves everything. Pure, and the same for the same input in whatever order it came together.
pub fn resolve(world: &World, config: &ControllerConfig) -> Resolution {
    resolve_with(world, config, &mut |route| Arc::new(compile(route, &backend_table(route, world))))
}

/// As [`resolve`], with somebody else compiling the routes: `compiled` must return what [`compile`] would,
/// from a cache if it likes.
pub fn resolve_with(
    world: &World,
    config: &ControllerConfig,
    compiled: &mut dyn FnMut(&Arc<HttpRoute>) -> Arc<CompiledRoute>,
) -> Resolution {
    let mut resolution = Resolution::default();
    let classes =
        world.gateway_classes.values().filter(|class| class.controller_name == config.controller_name);
    for class in classes {
        let status = class::status(class, world);
        resolution.statuses.gateway_classes.insert(class.meta.key.name.clone(), status);
    }
    let mut gateways = BTreeMap::new();
    for (key, gateway) in &world.gateways {
        if resolution.statuses.gateway_classes.contains_key(&gateway.class_name) {
            gateways.insert(key, GatewayWork::new(gateway, world, config, &mut resolution.secrets));
        }
    }
    for (key, route) in &world.http_routes {
        if let Some(status) = resolve_route(route, &mut gateways, world, compiled) {
            resolution.statuses.http_routes.insert(key.clone(), status);
        }
    }
    for (key, work) in gateways {
        let status = gateway::status(work.gateway, &work.listeners, &work.attached, world);
        resolution.statuses.gateways.insert(key.clone(), status);
        if work.rejected.is_none() {
            if !work.unknown.is_empty() {
                resolution.undecided.insert(key.clone(), work.unknown);
            }
            let config = virtual_hosts::build(key, &work.listeners, &work.routes);
            resolution.gateways.insert(key.clone(), Arc::new(config));
        }
    }
    resolution
}

/// A Gateway while routes are being attached to it.
struct GatewayWork<'a> {
    gateway: &'a Gateway,
    rejected: Option<Finding>,
    listeners: Vec<ListenerState<'a>>,
    /// Secrets that were not read yet.
    unknown: BTreeSet<ObjectKey>,
    /// Accepted routes of each listener.
    attached: Vec<u32>,
    routes: Vec<AttachedRoute<'a>>,
}

impl<'a> GatewayWork<'a> {
    fn new(
        gateway: &'a Gateway,
        world: &World,
        config: &ControllerConfig,
        secrets: &mut BTreeSet<ObjectKey>,
    ) -> Self {
        let mut own = BTreeSet::new();
        let listeners = listeners::states(gateway, world, config, &mut own);
        let unknown = own.iter().filter(|key| !world.secrets.contains_key(*key)).cloned().collect();
        secrets.append(&mut own);
        Self {
            gateway,
            unknown,
            rejected: gateway::rejection(gateway, world),
            attached: vec![0; listeners.len()],
            listeners,
            routes: Vec::new(),
        }
    }

    fn attach(
        &self,
        route: &HttpRoute,
        reference: &ParentRef,
        world: &World,
    ) -> Result<Vec<Attachment>, Finding> {
        if self.rejected.is_some() {
            return Err(Finding::new(reason::PENDING, "the Gateway is not accepted"));
        }
        attach::attach(route, reference, self.gateway, &self.listeners, world)
    }
}

/// Attaches a route to its Gateways. None if no parent of it is ours.
fn resolve_route<'a>(
    route: &'a Arc<HttpRoute>,
    gateways: &mut BTreeMap<&'a ObjectKey, GatewayWork<'a>>,
    world: &World,
    compiled: &mut dyn FnMut(&Arc<HttpRoute>) -> Arc<CompiledRoute>,
) -> Option<RouteStatus> {
    let mut ours: Vec<(&ParentRef, ObjectKey)> = Vec::new();
    for reference in &route.parent_refs {
        let parent = attach::gateway_of(reference, route).filter(|parent| gateways.contains_key(parent));
        if let Some(parent) = parent
            && !ours.iter().any(|(other, _)| *other == reference)
        {
            ours.push((reference, parent));
        }
    }
    if ours.is_empty() {
        return None;
    }
    let compiled = compiled(route);
    let mut parents = Vec::with_capacity(ours.len());
    let mut attachments: BTreeMap<ObjectKey, Vec<Attachment>> = BTreeMap::new();
    for (reference, parent) in ours {
        let outcome = gateways.get(&parent)?.attach(route, reference, world);
        parents.push(route::parent_status(route, reference, outcome.as_ref().err(), &compiled, world));
        let attached = attachments.entry(parent).or_default();
        for attachment in outcome.into_iter().flatten() {
            // Two parentRefs may lead to one listener, which has the route once all the same.
            if !attached.iter().any(|other| other.listener == attachment.listener) {
                attached.push(attachment);
            }
        }
    }
    for (parent, attachments) in attachments {
        let Some(work) = gateways.get_mut(&parent) else { continue };
        if !route::is_wholly_invalid(&compiled) {
            for attachment in &attachments {
                if let Some(count) = work.attached.get_mut(attachment.listener) {
                    *count += 1;
                }
            }
        }
        work.routes.push(AttachedRoute { route, compiled: Arc::clone(&compiled), attachments });
    }
    Some(RouteStatus { parents })
}

#[cfg(test)]
mod tests;
