//! Who calls whom, in slots of thirty seconds, for the control plane. The busiest pairs are told apart, all others together are one.

use std::collections::{BTreeMap, BTreeSet};

use meshwright_proto::reports::{Pair, PairSlot};
use meshwright_xds::mesh::signals::{Destination, Kind, Series};

use super::reading::Changes;
use crate::stats::slot::bucket;

/// How long a slot is, in seconds.
const SECONDS: i64 = 30;
/// How long slots are kept, in seconds.
const KEPT: i64 = 3600;
/// How many pairs are told apart.
const MOST: usize = 50;
/// How many others are looked at, whether they have become busier.
const WAITING: usize = 1000;
/// Envoy's response flags of requests that got no answer of an application, because of a proxy or of what is between proxies.
const FAILED: [&str; 11] = ["UF", "UH", "NR", "NC", "URX", "UC", "UR", "UPE", "UO", "NFCF", "OM"];
/// Those of connections that reached nobody.
const UNREACHED: [&str; 4] = ["UF", "UH", "NR", "NC"];

/// The names of a pair; all empty for the one that is all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Names {
    source: (String, String),
    destination: (String, String, u32),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pairs {
    slots: BTreeMap<Names, BTreeMap<i64, PairSlot>>,
    /// Pairs that are told apart, and how busy they are; and others.
    chosen: BTreeMap<Names, u64>,
    waiting: BTreeMap<Names, u64>,
    /// The slot that is filled now.
    current: i64,
}

impl Pairs {
    /// Adds what happened at that time, in Unix seconds.
    pub fn add(&mut self, changes: &Changes, at: i64) {
        let start = at - at.rem_euclid(SECONDS);
        if start != self.current {
            self.current = start;
            self.choose();
        }
        for (series, more) in &changes.counts {
            if counts(series.kind) {
                let names = self.told_as(names(series), if is_end(series.kind) { *more } else { 0 });
                count(self.slot(names, start), series, *more);
            }
        }
        for (series, times) in &changes.times {
            let names = self.told_as(names(series), 0);
            let slot = self.slot(names, start);
            for (milliseconds, more) in times {
                *slot.latency.entry(bucket(*milliseconds)).or_default() += more;
            }
        }
    }

    /// Drops what is older than an hour, or, after the clock was set back, not yet.
    pub fn forget(&mut self, now: i64) {
        for slots in self.slots.values_mut() {
            slots.retain(|start, _| *start > now - KEPT && *start <= now);
        }
        self.slots.retain(|_, slots| !slots.is_empty());
    }

    /// Slots from this one on, which may have grown, or all.
    pub fn since(&self, start: Option<i64>) -> Vec<Pair> {
        let from = start.unwrap_or(i64::MIN);
        let pairs = self.slots.iter().map(|(names, slots)| {
            let slots = slots.range(from..).map(|(_, slot)| slot.clone()).collect();
            let Names { source, destination } = names.clone();
            Pair {
                source_namespace: source.0,
                source_workload: source.1,
                destination_namespace: destination.0,
                destination_service: destination.1,
                destination_port: destination.2,
                slots,
            }
        });
        pairs.filter(|pair| !pair.slots.is_empty()).collect()
    }

    /// The newest slot that there is.
    pub fn newest(&self) -> Option<i64> {
        self.slots.values().filter_map(|slots| slots.last_key_value()).map(|(start, _)| *start).max()
    }

    fn slot(&mut self, names: Names, start: i64) -> &mut PairSlot {
        let slots = self.slots.entry(names).or_default();
        slots.entry(start).or_insert_with(|| PairSlot { start, ..PairSlot::default() })
    }

    /// The pair's own names if it is told apart, else nobody's.
    fn told_as(&mut self, names: Names, more: u64) -> Names {
        if !self.chosen.contains_key(&names) && self.chosen.len() < MOST {
            self.chosen.insert(names.clone(), 0);
        }
        if let Some(busy) = self.chosen.get_mut(&names) {
            *busy += more;
            return names;
        }
        if self.waiting.len() < WAITING || self.waiting.contains_key(&names) {
            *self.waiting.entry(names).or_default() += more;
        }
        Names::default()
    }

    /// At the end of a slot: who has become twice as busy as the quietest that is told apart takes its place. What was long ago counts less.
    fn choose(&mut self) {
        let by = |one: &(&Names, &u64), other: &(&Names, &u64)| one.1.cmp(other.1);
        while let Some((newcomer, busy)) = self.waiting.iter().max_by(by)
            && let Some((quietest, least)) = self.chosen.iter().min_by(by)
            && *busy > 2 * least
        {
            let (newcomer, quietest, busy) = (newcomer.clone(), quietest.clone(), *busy);
            self.waiting.remove(&newcomer);
            self.chosen.remove(&quietest);
            // Or more pairs than there may be would be told.
            self.slots.remove(&quietest);
            self.chosen.insert(newcomer, busy);
        }
        let gone: BTreeSet<_> =
            self.chosen.keys().filter(|names| !self.slots.contains_key(names)).cloned().collect();
        self.chosen.retain(|names, busy| *busy > 0 || !gone.contains(names));
        self.chosen.values_mut().for_each(|busy| *busy -= *busy / 16);
        self.waiting.values_mut().for_each(|busy| *busy -= busy.div_ceil(16));
        self.waiting.retain(|_, busy| *busy > 0);
    }
}

/// Whether it is of the sender, and more than bytes.
fn counts(kind: Kind) -> bool {
    matches!(kind, Kind::Requests | Kind::Closed | Kind::Unreached | Kind::HandshakesFailed)
}

fn is_end(kind: Kind) -> bool {
    matches!(kind, Kind::Requests | Kind::Closed)
}

fn names(series: &Series) -> Names {
    let source = (series.own.namespace.clone(), series.own.name.clone());
    let destination = match &series.destination {
        Destination::Service { namespace, name, port } => (namespace.clone(), name.clone(), u32::from(*port)),
        Destination::Pod | Destination::Outside | Destination::Nothing => Default::default(),
    };
    Names { source, destination }
}

fn count(slot: &mut PairSlot, series: &Series, more: u64) {
    let flags: Vec<_> = series.flags.split(',').collect();
    let has = |any: &[&str]| any.iter().any(|flag| flags.contains(flag));
    let mut add = |field: fn(&mut PairSlot) -> &mut u64, is: bool| {
        if is {
            *field(slot) += more;
        }
    };
    match series.kind {
        Kind::Requests => {
            let failed = has(&FAILED);
            add(|slot| &mut slot.requests, true);
            add(|slot| &mut slot.failed, failed);
            add(|slot| &mut slot.upstream_connection_failure, has(&["UF"]));
            add(|slot| &mut slot.no_healthy_upstream, has(&["UH"]));
            add(|slot| &mut slot.no_route, has(&["NR", "NC"]));
            add(|slot| &mut slot.retry_limit_exceeded, has(&["URX"]));
            add(|slot| &mut slot.upstream_termination, has(&["UC", "UR", "UPE"]));
            add(|slot| &mut slot.upstream_overflow, has(&["UO"]));
            add(|slot| &mut slot.server_error, !failed && series.outcome.is_server_error());
        }
        Kind::Closed => {
            add(|slot| &mut slot.connections, true);
            add(|slot| &mut slot.connections_failed, has(&UNREACHED));
        }
        Kind::Unreached => add(|slot| &mut slot.connections_failed, true),
        Kind::HandshakesFailed => add(|slot| &mut slot.tls_failures, true),
        _ => {}
    }
}
