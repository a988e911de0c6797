//! What proxies of nodes told of who calls whom, put together from all replicas: each replica knows what was reported to it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use meshwright_decisions::pairs::{PairSeries, SLOT_SECONDS, Slot};
use meshwright_proto::{
    inspection::ObservedNode,
    reports::{Pair, PairSlot},
};

#[cfg(test)]
mod tests;

/// What was heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Replicas that run and did not answer, and why not.
    pub unheard: BTreeMap<String, String>,
    proxies: BTreeMap<Key, Proxy>,
}

/// One run of a node's proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    node: String,
    revision: String,
    instance: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proxy {
    last_report: i64,
    /// By the pair, in words, and by the start of the slot.
    pairs: BTreeMap<String, BTreeMap<i64, Slot>>,
}

impl Told {
    /// Adds what a replica of this revision told. Of a slot that two of them know the fuller one counts.
    pub fn add(&mut self, revision: &str, nodes: Vec<ObservedNode>) {
        for ObservedNode { proxy, last_report, pairs } in nodes {
            // A proxy of another revision is not this control plane's to tell of.
            let Some(proxy) = proxy.filter(|proxy| proxy.revision == revision) else { continue };
            let key = Key { node: proxy.node, revision: proxy.revision, instance: proxy.instance };
            let known = self.proxies.entry(key).or_default();
            known.last_report = known.last_report.max(last_report);
            for pair in pairs {
                let kept = known.pairs.entry(name(&pair)).or_default();
                for told in pair.slots.iter().filter(|slot| slot.start % SLOT_SECONDS == 0) {
                    let told = slot(told);
                    let before = kept.entry(told.start).or_insert(told);
                    if fullness(&told) > fullness(before) {
                        *before = told;
                    }
                }
            }
        }
    }

    /// When this revision's proxy on this node reported last, in Unix seconds.
    pub fn reported(&self, node: &str, revision: &str) -> Option<i64> {
        let of_it = self.proxies.iter().filter(|(key, _)| key.node == node && key.revision == revision);
        of_it.map(|(_, proxy)| proxy.last_report).max()
    }

    /// What is judged of these nodes: up to the moment when a node went over what its old proxy told, and from then on what the new one, `to`,
    /// does. Of nodes that have not gone over it is what all but the new one told.
    pub fn series(
        &self,
        to: &str,
        moved: &BTreeMap<String, i64>,
        others: &BTreeSet<String>,
    ) -> Vec<PairSeries> {
        let mut all: BTreeMap<(&str, &str), BTreeMap<i64, Slot>> = BTreeMap::new();
        for (key, proxy) in &self.proxies {
            let moved = match moved.get(&key.node) {
                Some(moved) => *moved,
                None if others.contains(&key.node) => i64::MAX,
                None => continue,
            };
            let counts = |start: i64| if key.revision == to { start >= moved } else { start < moved };
            for (pair, slots) in &proxy.pairs {
                let sums = all.entry((&key.node, pair)).or_default();
                for slot in slots.values().filter(|slot| counts(slot.start)) {
                    add(sums.entry(slot.start).or_default(), slot);
                }
            }
        }
        let series = all.into_iter().map(|((node, pair), slots)| PairSeries {
            node: node.to_owned(),
            pair: pair.to_owned(),
            slots: slots.into_values().collect(),
        });
        series.collect()
    }
}

/// Who calls whom, as a person would say it.
fn name(pair: &Pair) -> String {
    let Pair { source_namespace, source_workload, .. } = pair;
    let Pair { destination_namespace, destination_service, destination_port, .. } = pair;
    if source_workload.is_empty() && source_namespace.is_empty() && destination_service.is_empty() {
        return "all other pairs".to_owned();
    }
    let source = format!("{source_namespace}/{source_workload}");
    if destination_service.is_empty() {
        return format!("{source} to addresses of no Service");
    }
    format!("{source} to {destination_namespace}/{destination_service}:{destination_port}")
}

fn slot(told: &PairSlot) -> Slot {
    Slot {
        start: told.start,
        requests: count(told.requests),
        failed: count(told.failed),
        connections: count(told.connections),
        connections_failed: count(told.connections_failed),
        tls_failures: count(told.tls_failures),
    }
}

// Nobody counts more within thirty seconds. A control plane that says so is broken, and must not break sums here.
fn count(times: u64) -> u64 {
    times.min(u32::MAX.into())
}

fn fullness(slot: &Slot) -> u64 {
    slot.requests + slot.connections + slot.connections_failed + slot.tls_failures
}

// An agent that began anew in the middle of a slot.
fn add(sum: &mut Slot, more: &Slot) {
    let Slot { start, requests, failed, connections, connections_failed, tls_failures } = *more;
    sum.start = start;
    sum.requests += requests;
    sum.failed += failed;
    sum.connections += connections;
    sum.connections_failed += connections_failed;
    sum.tls_failures += tls_failures;
}
