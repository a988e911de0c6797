//! What is judged: the traffic of both revisions in the same time, by pod. Pure.
//!
//! Left out on both sides alike: the warm-up of the step and of each pod, the last seconds, of which not everybody has
//! reported yet, and what a pod did after it was told to end.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use meshwright_decisions::analysis::{ProbeSeries, ProxySeries, SLOT_SECONDS, Slot};

use super::{memory::SeenProxy, observe::Observation, probe::Probed};

#[cfg(test)]
mod tests;

/// After a change of the share, and after a pod became ready, connections and caches are like nothing later.
pub const WARM_UP: i64 = 15;
/// Agents report every few seconds.
const NOT_YET_REPORTED: i64 = 5;

/// Both sides of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// The new revision.
    pub canary: Vec<ProxySeries>,
    /// The old revision.
    pub baseline: Vec<ProxySeries>,
    /// The operator's own requests to pods of both.
    pub probes: Vec<ProbeSeries>,
}

/// Slots that begin and end in here count.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: i64,
    until: i64,
}

/// A pod, whichever instances of the agent ran in it.
#[derive(Debug, Default)]
struct PodTraffic {
    gateway: String,
    slots: BTreeMap<i64, Slot>,
    // When the first of its instances was ready, and when the last of them was told to end.
    ready_since: Option<i64>,
    drains_since: Option<i64>,
}

/// What is judged of a step whose share is in place since then.
pub fn sides(
    observation: &Observation,
    probed: &[Probed],
    canary: &str,
    baseline: &str,
    measured_since: Timestamp,
) -> Sides {
    let from = (measured_since.as_second() + WARM_UP).max(observation.since.as_second());
    let window = Window { from, until: observation.at.as_second() - NOT_YET_REPORTED };
    // Where no pod of either side answers, it is the way there that is closed, such as by a NetworkPolicy.
    let open: BTreeSet<_> = probed.iter().filter(|p| p.answers).map(gateway).collect();
    let told: Vec<_> = probed.iter().filter(|p| open.contains(&gateway(p))).collect();
    let mut probes = Vec::new();
    let mut side = |revision| of_revision(observation, &told, revision, window, &mut probes);
    Sides { canary: side(canary), baseline: side(baseline), probes }
}

fn gateway(probed: &Probed) -> (&str, &str) {
    (&probed.namespace, &probed.gateway)
}

fn of_revision(
    observation: &Observation,
    probed: &[&Probed],
    revision: &str,
    window: Window,
    probes: &mut Vec<ProbeSeries>,
) -> Vec<ProxySeries> {
    let mut pods = BTreeMap::<(&str, &str), PodTraffic>::new();
    let seen = observation.revisions.get(revision).into_iter().flat_map(|r| &r.proxies);
    for (key, seen) in seen {
        pods.entry((&key.namespace, &key.pod)).or_default().add(seen, window);
    }
    let of_it: BTreeMap<_, _> =
        probed.iter().filter(|p| p.revision == revision).map(|p| ((&*p.namespace, &*p.pod), *p)).collect();
    // One that never reported is a pod too: what it leaves without an answer only the operator knows.
    for (key, probed) in &of_it {
        pods.entry(*key).or_insert_with(|| PodTraffic::silent(probed));
    }
    // Before this process sent probes to a pod another one may have, and nobody knows any more which of its requests those were.
    let asked: BTreeSet<_> = probed.iter().map(|p| gateway(p)).collect();
    let mut series = Vec::new();
    for (key, mut traffic) in pods {
        let known_since = match of_it.get(&key) {
            Some(probed) => probed.since,
            None if asked.contains(&(key.0, traffic.gateway_name())) => i64::MAX,
            None => i64::MIN,
        };
        traffic.slots = traffic.slots.split_off(&known_since);
        let probed = of_it.get(&key).map(|probed| traffic.probes(probed, window));
        let probed = probed.filter(|probes| !probes.slots.is_empty());
        if traffic.slots.is_empty() && probed.is_none() {
            continue;
        }
        probes.extend(probed);
        let slots = traffic.slots.into_values().collect();
        series.push(ProxySeries { gateway: traffic.gateway, pod: key.1.to_owned(), slots });
    }
    series
}

impl PodTraffic {
    fn gateway_name(&self) -> &str {
        self.gateway.split_once('/').map_or("", |(_, name)| name)
    }

    // It was ready when it was asked for the first time.
    fn silent(probed: &Probed) -> Self {
        let gateway = format!("{}/{}", probed.namespace, probed.gateway);
        Self { gateway, ready_since: Some(probed.since), ..Self::default() }
    }

    fn add(&mut self, seen: &SeenProxy, window: Window) {
        let proxy = &seen.proxy;
        let is_first = self.gateway.is_empty();
        self.gateway = format!("{}/{}", proxy.gateway_namespace, proxy.gateway_name);
        self.drains_since = match (self.drains_since, seen.drains_since) {
            (None, drains) if is_first => drains,
            (Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
        if proxy.ready_since == 0 {
            return;
        }
        self.ready_since = Some(self.ready_since.map_or(proxy.ready_since, |r| r.min(proxy.ready_since)));
        let window = window.of_pod(proxy.ready_since, seen.drains_since);
        for (start, traffic) in seen.slots.iter().filter(|(start, _)| window.holds(**start)) {
            add(self.slots.entry(*start).or_default(), traffic.judged(*start));
        }
    }

    fn probes(&self, probed: &Probed, window: Window) -> ProbeSeries {
        let window = window.of_pod(self.ready_since.unwrap_or(probed.since), self.drains_since);
        let slots = probed.slots.values().filter(|slot| window.holds(slot.start)).copied();
        ProbeSeries { gateway: self.gateway.clone(), pod: probed.pod.clone(), slots: slots.collect() }
    }
}

impl Window {
    fn of_pod(self, ready_since: i64, drains_since: Option<i64>) -> Self {
        Self {
            from: self.from.max(ready_since.saturating_add(WARM_UP)),
            until: self.until.min(drains_since.unwrap_or(i64::MAX)),
        }
    }

    fn holds(self, start: i64) -> bool {
        start >= self.from && start.saturating_add(SLOT_SECONDS) <= self.until
    }
}

// An agent that began anew in the middle of a slot.
fn add(sum: &mut Slot, more: Slot) {
    let Slot { start, requests, failed, client_errors, flags, tls_failures, latency } = more;
    sum.start = start;
    sum.requests += requests;
    sum.failed += failed;
    sum.client_errors += client_errors;
    sum.flags.upstream_connection_failure += flags.upstream_connection_failure;
    sum.flags.no_route += flags.no_route;
    sum.flags.no_healthy_upstream += flags.no_healthy_upstream;
    sum.flags.retry_limit_exceeded += flags.retry_limit_exceeded;
    sum.flags.upstream_overflow += flags.upstream_overflow;
    sum.tls_failures += tls_failures;
    for (bucket, count) in latency {
        *sum.latency.entry(bucket).or_default() += count;
    }
}
