//! One Gateway from one resolution to the next.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attach::{self, Attachment};
use super::listeners::{self, ListenerState};
use super::seen::Changes;
use super::virtual_hosts::{AttachedRoute, Hosts};
use super::{ControllerConfig, gateway, route};
use crate::config::GatewayConfig;
use crate::model::{Gateway, HttpRoute, ObjectId, ObjectKey, ObjectKind, ParentRef, World};
use crate::status::{Finding, GatewayStatus};

/// A Gateway with the routes that are attached to it. Whether it is accepted as a whole is a matter of its status alone: to stop here would
/// leave proxies that run with endpoints, routes and certificates of the past, and new ones with nothing.
#[derive(Debug)]
pub(crate) struct GatewayWork {
    gateway: Arc<Gateway>,
    listeners: Vec<ListenerState>,
    /// Secrets that the listeners name and may name.
    secrets: BTreeSet<ObjectKey>,
    /// Those of them that were not read yet.
    unknown: BTreeSet<ObjectKey>,
    /// Accepted routes of each listener.
    attached: Vec<u32>,
    hosts: Hosts,
    /// None when it has to be made (again).
    status: Option<Arc<GatewayStatus>>,
    config: Option<Arc<GatewayConfig>>,
    /// Nothing is attached yet, whatever routes say of themselves.
    is_new: bool,
}

impl GatewayWork {
    pub(crate) fn new(gateway: &Arc<Gateway>, world: &World, config: &ControllerConfig) -> Self {
        let mut secrets = BTreeSet::new();
        let listeners = listeners::states(gateway, world, config, &mut secrets);
        Self {
            gateway: Arc::clone(gateway),
            unknown: secrets.iter().filter(|key| !world.secrets.contains_key(*key)).cloned().collect(),
            secrets,
            attached: vec![0; listeners.len()],
            hosts: Hosts::new(&listeners),
            listeners,
            status: None,
            config: None,
            is_new: true,
        }
    }

    /// The same Gateway in another world. Its routes stay if the listeners are what they were.
    pub(crate) fn next(
        self,
        gateway: &Arc<Gateway>,
        world: &World,
        config: &ControllerConfig,
        changes: &Changes,
    ) -> Self {
        let as_it_was = Arc::ptr_eq(&self.gateway, gateway)
            && changes.reference_grants.is_empty()
            && changes.gateway_parameters.is_empty()
            && self.secrets.is_disjoint(&changes.secrets);
        let id = || ObjectId { kind: ObjectKind::Gateway, key: gateway.meta.key.clone() };
        let seen_as_it_was = !changes.gateway_observations.contains(&gateway.meta.key)
            && (changes.rejections.is_empty() || !changes.rejections.contains(&id()));
        let status = self.status.filter(|_| as_it_was && seen_as_it_was);
        let known = Self { status, is_new: false, ..self };
        if as_it_was {
            return known;
        }
        let new = Self::new(gateway, world, config);
        if new.listeners != known.listeners {
            return new;
        }
        Self { gateway: new.gateway, secrets: new.secrets, unknown: new.unknown, ..known }
    }

    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn secrets(&self) -> &BTreeSet<ObjectKey> {
        &self.secrets
    }

    pub(crate) fn unknown(&self) -> &BTreeSet<ObjectKey> {
        &self.unknown
    }

    /// The listeners that a route is attached to by one of its parentRefs.
    pub(crate) fn attachments(
        &self,
        route: &HttpRoute,
        reference: &ParentRef,
        world: &World,
    ) -> Result<Vec<Attachment>, Finding> {
        attach::attach(route, reference, &self.gateway, &self.listeners, world)
    }

    pub(crate) fn attach(&mut self, route: &AttachedRoute) {
        self.count(route, |count| *count += 1);
        self.hosts.add(route, &self.listeners);
        self.config = None;
    }

    /// Takes away a route that was attached as it is here.
    pub(crate) fn detach(&mut self, route: &AttachedRoute) {
        self.count(route, |count| *count = count.saturating_sub(1));
        self.hosts.remove(route);
        self.config = None;
    }

    fn count(&mut self, route: &AttachedRoute, change: impl Fn(&mut u32)) {
        if route::is_wholly_invalid(&route.compiled) {
            return;
        }
        for attachment in &route.attachments {
            if let Some(count) = self.attached.get_mut(attachment.listener) {
                change(count);
                self.status = None;
            }
        }
    }

    /// What its status should say.
    pub(crate) fn status(&mut self, world: &World) -> Arc<GatewayStatus> {
        let make = || Arc::new(gateway::status(&self.gateway, &self.listeners, &self.attached, world));
        Arc::clone(self.status.get_or_insert_with(make))
    }

    /// What its proxies do.
    pub(crate) fn config(&mut self) -> Arc<GatewayConfig> {
        let make = || Arc::new(self.hosts.config(&self.gateway.meta.key, &self.listeners));
        Arc::clone(self.config.get_or_insert_with(make))
    }
}
