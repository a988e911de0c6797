//! From attached routes to the configuration of a Gateway's ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attach::Attachment;
use super::compile::CompiledRoute;
use super::listeners::ListenerState;
use super::precedence::{self, Candidate};
use crate::config::{GatewayConfig, ListenerConfig, PortConfig, RouteEntry, VirtualHostConfig};
use crate::hostname;
use crate::model::{HttpRoute, ObjectKey};

/// A route with the listeners of one Gateway that it is attached to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AttachedRoute {
    pub route: Arc<HttpRoute>,
    pub compiled: Arc<CompiledRoute>,
    /// At most one for each listener.
    pub attachments: Vec<Attachment>,
}

/// The hosts of a Gateway's listeners, by the listener's index.
#[derive(Debug)]
pub(crate) struct Hosts(Vec<BTreeMap<String, Host>>);

/// What competes for a host.
#[derive(Debug, Default)]
struct Host {
    /// Sorted by precedence, unless something was added.
    candidates: Vec<Candidate>,
    /// What was made of them the last time.
    config: Option<Arc<VirtualHostConfig>>,
    changed: bool,
}

impl Hosts {
    /// Without any route.
    pub(crate) fn new(listeners: &[ListenerState]) -> Self {
        Self(listeners.iter().map(|state| [(state.hostname.clone(), Host::default())].into()).collect())
    }

    pub(crate) fn add(&mut self, attached: &AttachedRoute, listeners: &[ListenerState]) {
        let entries = entries(&attached.route, &attached.compiled);
        for Attachment { listener, hosts } in &attached.attachments {
            let Some(known) = self.0.get_mut(*listener) else { continue };
            for host in hosts.iter().filter(|host| is_own(listeners, *listener, &host.hostname)) {
                let found = known.entry(host.hostname.clone()).or_default();
                found.changed = true;
                found.candidates.extend(entries.iter().map(|entry| Candidate {
                    hostname: host.original.clone(),
                    created: attached.route.meta.created,
                    entry: Arc::clone(entry),
                }));
            }
        }
    }

    pub(crate) fn remove(&mut self, attached: &AttachedRoute) {
        let key = &attached.route.meta.key;
        for Attachment { listener, hosts } in &attached.attachments {
            for host in hosts {
                let known = self.0.get_mut(*listener).and_then(|known| known.get_mut(&host.hostname));
                if let Some(found) = known {
                    found.changed = true;
                    found.candidates.retain(|candidate| candidate.entry.route != *key);
                }
            }
        }
    }

    /// Configuration of the Gateway.
    pub(crate) fn config(&mut self, gateway: &ObjectKey, listeners: &[ListenerState]) -> GatewayConfig {
        let accepted = || listeners.iter().enumerate().filter(|(_, state)| state.is_accepted());
        let numbers: BTreeSet<u16> = accepted().map(|(_, state)| state.spec.port).collect();
        let ports = numbers.into_iter().filter_map(|port| {
            let on_port = || accepted().filter(|(_, state)| state.spec.port == port);
            // All have one protocol, else they were in conflict.
            let protocol = on_port().next().and_then(|(_, state)| state.protocol)?;
            let listeners = on_port().map(|(index, state)| self.listener(index, state)).collect();
            Some(PortConfig { port, protocol, listeners })
        });
        GatewayConfig { gateway: gateway.clone(), ports: ports.collect() }
    }

    fn listener(&mut self, index: usize, state: &ListenerState) -> ListenerConfig {
        let mut virtual_hosts = Vec::new();
        if let Some(hosts) = self.0.get_mut(index) {
            // Its own hostname it keeps without routes, too.
            hosts.retain(|hostname, host| !host.candidates.is_empty() || *hostname == state.hostname);
            virtual_hosts.extend(hosts.iter_mut().map(|(hostname, host)| host.config(hostname)));
        }
        ListenerConfig {
            name: state.spec.name.clone(),
            hostname: state.hostname.clone(),
            certificates: state.certificates.clone(),
            virtual_hosts,
        }
    }
}

impl Host {
    fn config(&mut self, hostname: &str) -> Arc<VirtualHostConfig> {
        if let (Some(config), false) = (&self.config, self.changed) {
            return Arc::clone(config);
        }
        self.candidates.sort_by(precedence::compare);
        let routes = self.candidates.iter().map(|candidate| Arc::clone(&candidate.entry)).collect();
        let config = VirtualHostConfig { hostname: hostname.to_owned(), routes };
        self.changed = false;
        match &self.config {
            Some(known) if **known == config => Arc::clone(known),
            _ => Arc::clone(self.config.insert(Arc::new(config))),
        }
    }
}

/// A host belongs to the most specific listener of the port alone (listener isolation).
fn is_own(listeners: &[ListenerState], index: usize, host: &str) -> bool {
    let port = listeners.get(index).map(|state| state.spec.port);
    let on_port: Vec<_> = listeners
        .iter()
        .enumerate()
        .filter(|(_, state)| state.is_accepted() && Some(state.spec.port) == port)
        .collect();
    let hostnames = on_port.iter().map(|(_, state)| state.hostname.as_str());
    let owner = hostname::most_specific(hostnames, host).and_then(|position| on_port.get(position));
    owner.is_some_and(|(owner, _)| *owner == index)
}

/// Every match of every rule.
pub(crate) fn entries(route: &HttpRoute, compiled: &CompiledRoute) -> Vec<Arc<RouteEntry>> {
    let rules = compiled.rules.iter().enumerate();
    let entries = rules.flat_map(|(rule_index, rule)| {
        rule.matches.iter().enumerate().map(move |(match_index, matches)| {
            Arc::new(RouteEntry {
                kind: route.kind,
                route: route.meta.key.clone(),
                rule_index,
                match_index,
                matches: matches.clone(),
                rule: Arc::clone(&rule.rule),
            })
        })
    });
    entries.collect()
}
