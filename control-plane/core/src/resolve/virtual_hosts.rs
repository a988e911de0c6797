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
pub(crate) struct AttachedRoute<'a> {
    pub route: &'a HttpRoute,
    pub compiled: Arc<CompiledRoute>,
    /// At most one for each listener.
    pub attachments: Vec<Attachment>,
}

/// Configuration of one Gateway.
pub(crate) fn build(
    gateway: &ObjectKey,
    listeners: &[ListenerState<'_>],
    routes: &[AttachedRoute<'_>],
) -> GatewayConfig {
    let accepted = || listeners.iter().enumerate().filter(|(_, state)| state.is_accepted());
    let numbers: BTreeSet<u16> = accepted().map(|(_, state)| state.spec.port).collect();
    let ports = numbers.into_iter().filter_map(|port| {
        let on_port: Vec<_> = accepted().filter(|(_, state)| state.spec.port == port).collect();
        // All have one protocol, else they were in conflict.
        let protocol = on_port.first().and_then(|(_, state)| state.protocol)?;
        let listeners =
            on_port.iter().map(|(index, state)| listener(*index, state, &on_port, routes)).collect();
        Some(PortConfig { port, protocol, listeners })
    });
    GatewayConfig { gateway: gateway.clone(), ports: ports.collect() }
}

fn listener(
    index: usize,
    state: &ListenerState<'_>,
    on_port: &[(usize, &ListenerState<'_>)],
    routes: &[AttachedRoute<'_>],
) -> ListenerConfig {
    let hostnames: Vec<_> = on_port.iter().map(|(_, state)| state.hostname.as_str()).collect();
    let position = on_port.iter().position(|(other, _)| *other == index);
    // A host belongs to the most specific listener alone (listener isolation).
    let is_own = |host: &str| hostname::most_specific(hostnames.iter().copied(), host) == position;
    let mut hosts: BTreeMap<String, Vec<Candidate>> = BTreeMap::from([(state.hostname.clone(), Vec::new())]);
    for attached in routes {
        for attachment in attached.attachments.iter().filter(|attachment| attachment.listener == index) {
            for host in attachment.hosts.iter().filter(|host| is_own(&host.hostname)) {
                let candidates = hosts.entry(host.hostname.clone()).or_default();
                candidates.extend(candidates_of(attached, &host.original));
            }
        }
    }
    let virtual_hosts = hosts.into_iter().map(|(hostname, mut candidates)| {
        candidates.sort_by(precedence::compare);
        VirtualHostConfig {
            hostname,
            routes: candidates.into_iter().map(|candidate| candidate.entry).collect(),
        }
    });
    ListenerConfig {
        name: state.spec.name.clone(),
        hostname: state.hostname.clone(),
        certificates: state.certificates.clone(),
        virtual_hosts: virtual_hosts.collect(),
    }
}

fn candidates_of<'a>(
    attached: &'a AttachedRoute<'_>,
    original: &'a str,
) -> impl Iterator<Item = Candidate> + 'a {
    let meta = &attached.route.meta;
    attached.compiled.rules.iter().enumerate().flat_map(move |(rule_index, rule)| {
        rule.matches.iter().enumerate().map(move |(match_index, matches)| Candidate {
            hostname: original.to_owned(),
            created: meta.created,
            entry: RouteEntry {
                route: meta.key.clone(),
                rule_index,
                match_index,
                matches: matches.clone(),
                rule: Arc::clone(&rule.rule),
            },
        })
    })
}
