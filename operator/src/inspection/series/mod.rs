//! What is judged: the traffic of both revisions in the same time, by pod. Pure.
//!
//! Left out on both sides alike: the warm-up of the step and of each pod, the last seconds, of which not everybody has
//! reported yet, and what a pod did after it was told to end.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use meshwright_decisions::analysis::{ProxySeries, SLOT_SECONDS, Slot};

use super::{memory::SeenProxy, observe::Observation, probe::Unanswered};

#[cfg(test)]
mod tests;

/// After a change of the share, and after a pod became ready, connections and caches are like nothing later.
const WARM_UP: i64 = 15;
/// Agents report every few seconds.
const NOT_YET_REPORTED: i64 = 5;

/// Both sides of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// The new revision.
    pub canary: Vec<ProxySeries>,
    /// The old revision.
    pub baseline: Vec<ProxySeries>,
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
    unanswered: &[Unanswered],
    canary: &str,
    baseline: &str,
    measured_since: Timestamp,
) -> Sides {
    let from = (measured_since.as_second() + WARM_UP).max(observation.since.as_second());
    let window = Window { from, until: observation.at.as_second() - NOT_YET_REPORTED };
    // Where no pod of either side answers, it is the way there that is closed, such as by a NetworkPolicy.
    let open: BTreeSet<_> = unanswered.iter().filter(|u| u.answers).map(gateway).collect();
    let told: Vec<_> = unanswered.iter().filter(|u| open.contains(&gateway(u))).collect();
    let side = |revision| of_revision(observation, &told, revision, window);
    Sides { canary: side(canary), baseline: side(baseline) }
}

fn gateway(unanswered: &Unanswered) -> (&str, &str) {
    (&unanswered.namespace, &unanswered.gateway)
}

fn of_revision(
    observation: &Observation,
    unanswered: &[&Unanswered],
    revision: &str,
    window: Window,
) -> Vec<ProxySeries> {
    let mut pods = BTreeMap::<(&str, &str), PodTraffic>::new();
    let seen = observation.revisions.get(revision).into_iter().flat_map(|r| &r.proxies);
    for (key, seen) in seen {
        pods.entry((&key.namespace, &key.pod)).or_default().add(seen, window);
    }
    for failed in unanswered.iter().filter(|u| u.revision == revision) {
        pods.entry((&failed.namespace, &failed.pod)).or_default().add_unanswered(failed, window);
    }
    let series = pods.into_iter().map(|((_, pod), traffic)| ProxySeries {
        gateway: traffic.gateway,
        pod: pod.to_owned(),
        slots: traffic.slots.into_values().collect(),
    });
    series.filter(|series| !series.slots.is_empty()).collect()
}

impl PodTraffic {
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

    // Nobody but the operator knows of them, so they are requests of that pod like all others. A pod that has never
    // reported was ready when it was asked for the first time.
    fn add_unanswered(&mut self, failed: &Unanswered, window: Window) {
        if self.gateway.is_empty() {
            self.gateway = format!("{}/{}", failed.namespace, failed.gateway);
        }
        let window = window.of_pod(self.ready_since.unwrap_or(failed.since), self.drains_since);
        for (start, count) in failed.slots.iter().filter(|(start, _)| window.holds(**start)) {
            let slot = Slot { start: *start, requests: *count, failed: *count, ..Slot::default() };
            add(self.slots.entry(*start).or_default(), slot);
        }
        self.forgive(&failed.builtin);
    }

    // That nobody routes the operator's own requests is no finding, and their share of a pod's requests is not the same for all pods. A
    // request may be counted in the slot after the one in which it began.
    fn forgive(&mut self, builtin: &BTreeMap<i64, u64>) {
        let mut left = 0;
        for (start, slot) in &mut self.slots {
            left += builtin.get(start).copied().unwrap_or(0);
            let known = left.min(slot.flags.no_route).min(slot.client_errors);
            slot.flags.no_route -= known;
            slot.client_errors -= known;
            left -= known;
        }
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

// An agent that began anew in the middle of a slot, or the operator's own failures.
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
