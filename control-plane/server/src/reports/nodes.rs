//! What proxies of nodes have reported, for an hour: pairs of a workload and a Service that it calls, with their slots. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet};

use meshwright_proto::inspection::ObservedNode;
use meshwright_proto::reports::{NodeProxy, Pair, PairSlot};
use prost::Message;

use super::bounded::{Bounded, Reported};
use super::store::{KEPT, cost, is_kept};

/// Far more than any mesh has on one replica.
const MAX_NODES: usize = 2000;
/// Of one node: both revisions, and some whose process began anew.
const MAX_OF_NODE: usize = 8;
/// Of one proxy within an hour; it tells of 50 at a time.
const MAX_PAIRS: usize = 300;
/// A process that is younger, in seconds, reports here first.
const YOUNG: i64 = 60;
/// Of all slots together; a proxy with much traffic has about 500 kB after an hour.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Node and instance.
type Key = (String, String);

/// Who calls whom, in the order of the message's fields.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Names {
    source: (String, String),
    destination: (String, String, u32),
}

#[derive(Debug, Default)]
struct Known {
    proxy: NodeProxy,
    last_report: i64,
    /// By their start, encoded.
    pairs: BTreeMap<Names, BTreeMap<i64, Box<[u8]>>>,
    /// What the slots cost.
    bytes: usize,
}

/// Proxies of nodes and their pairs.
#[derive(Debug, Default)]
pub struct Nodes(Bounded<Key, Known>);

impl Nodes {
    /// How many proxies have reported.
    pub fn len(&self) -> usize {
        self.0.proxies.len()
    }

    /// Takes a report. A slot that comes again replaces what was known of it; one that is too old is left out. Gives how much more Envoy has
    /// refused than was known: not every refusal comes back on the stream, because a node's agent answers for clusters that nobody has called yet.
    ///
    /// # Errors
    /// When too many proxies report already.
    pub fn record(&mut self, proxy: NodeProxy, pairs: Vec<Pair>, now: i64) -> Result<u64, String> {
        let key = (proxy.node.clone(), proxy.instance.clone());
        // One that was heard by another replica is not new: what it tells was counted there.
        let before = self.0.proxies.get(&key).map(|known| known.proxy.refused_configuration);
        let before = before.or((proxy.started > now - YOUNG).then_some(0));
        let refused = before.map_or(0, |before| proxy.refused_configuration.saturating_sub(before));
        if !self.0.proxies.contains_key(&key) {
            self.make_room(&proxy.node)?;
        }
        self.0.record(key, MAX_BYTES, now, |known| {
            (known.proxy, known.last_report) = (proxy, now);
            for pair in pairs {
                let names = names(&pair);
                let kept = pair.slots.iter().filter(|slot| is_kept(slot.start, now));
                kept.for_each(|slot| known.insert(&names, slot));
            }
        });
        Ok(refused)
    }

    /// Proxies of these nodes that reported within the last hour, with the slots of their pairs from `since` on.
    pub fn observe(&self, since: i64, now: i64, nodes: &BTreeSet<String>) -> Vec<ObservedNode> {
        let since = since.max(now.saturating_sub(KEPT).saturating_add(1));
        let asked = self.0.proxies.iter().filter(|((node, _), _)| nodes.contains(node));
        let known = asked.map(|(_, known)| known).filter(|known| is_kept(known.last_report, now));
        let observed = known.map(|known| ObservedNode {
            proxy: Some(known.proxy.clone()),
            last_report: known.last_report,
            pairs: known.pairs.iter().filter_map(|(names, slots)| pair(names, slots, since)).collect(),
        });
        observed.collect()
    }

    /// Drops what is older than an hour.
    pub fn forget(&mut self, now: i64) {
        self.0.forget(now);
    }

    /// Room for another proxy: of its own node the one that was silent for longest has to go, never one of others.
    fn make_room(&mut self, node: &str) -> Result<(), String> {
        match self.0.make_room(|(of, _), _| of == node, (MAX_OF_NODE, MAX_NODES)) {
            true => Ok(()),
            false => Err(format!("{MAX_NODES} proxies of nodes report to this replica already")),
        }
    }
}

impl Known {
    fn insert(&mut self, names: &Names, slot: &PairSlot) {
        if !self.pairs.contains_key(names) {
            while self.pairs.len() >= MAX_PAIRS {
                self.lose_quietest();
            }
        }
        let slots = self.pairs.entry(names.clone()).or_default();
        let encoded = slot.encode_to_vec().into_boxed_slice();
        self.bytes += cost(&encoded);
        self.bytes -= slots.insert(slot.start, encoded).map_or(0, |before| cost(&before));
    }

    /// Drops the pair that nothing was heard of for longest.
    fn lose_quietest(&mut self) {
        let last = |slots: &BTreeMap<i64, Box<[u8]>>| slots.last_key_value().map(|(start, _)| *start);
        let quietest = self.pairs.iter().min_by_key(|(_, slots)| last(slots)).map(|(names, _)| names.clone());
        let slots = quietest.and_then(|names| self.pairs.remove(&names)).unwrap_or_default();
        self.bytes -= slots.values().map(|slot| cost(slot)).sum::<usize>();
    }
}

impl Reported for Known {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn last_report(&self) -> i64 {
        self.last_report
    }

    fn pop(&mut self) {
        let first = |slots: &BTreeMap<i64, Box<[u8]>>| slots.first_key_value().map(|(start, _)| *start);
        let oldest = self.pairs.values_mut().min_by_key(|slots| first(slots));
        let gone = oldest.and_then(BTreeMap::pop_first);
        self.bytes -= gone.map_or(0, |(_, slot)| cost(&slot));
        self.pairs.retain(|_, slots| !slots.is_empty());
    }

    fn forget(&mut self, now: i64) {
        for slots in self.pairs.values_mut() {
            while slots.first_key_value().is_some_and(|(start, _)| !is_kept(*start, now)) {
                self.bytes -= slots.pop_first().map_or(0, |(_, slot)| cost(&slot));
            }
        }
        self.pairs.retain(|_, slots| !slots.is_empty());
    }
}

fn names(pair: &Pair) -> Names {
    let destination =
        (pair.destination_namespace.clone(), pair.destination_service.clone(), pair.destination_port);
    Names { source: (pair.source_namespace.clone(), pair.source_workload.clone()), destination }
}

fn pair(names: &Names, slots: &BTreeMap<i64, Box<[u8]>>, since: i64) -> Option<Pair> {
    let slots = slots.range(since..).filter_map(|(_, slot)| PairSlot::decode(&**slot).ok());
    // Nobody asks for the times, which are most of it.
    let slots: Vec<_> = slots.map(|slot| PairSlot { latency: Default::default(), ..slot }).collect();
    let Names { source, destination } = names.clone();
    (!slots.is_empty()).then_some(Pair {
        source_namespace: source.0,
        source_workload: source.1,
        destination_namespace: destination.0,
        destination_service: destination.1,
        destination_port: destination.2,
        slots,
    })
}

#[cfg(test)]
mod tests;
