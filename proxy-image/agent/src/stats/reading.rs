//! Envoy's statistics at one moment: what to ask its admin interface for, and what the answer says. Which of Envoy's names counts as what
//! stands here and nowhere else.

use std::collections::{BTreeMap, HashMap};

use meshwright_proto::reports::Slot;

use super::{
    answer::{self, Answer, Bin},
    slot::bucket,
};
use crate::{admin::Traffic, bootstrap::XDS_CLUSTER};

/// Whole milliseconds, rounded down by Envoy, of requests that ended.
const TIME: &str = "downstream_rq_time";
const GAUGES: [&str; 2] = ["downstream_cx_active", "downstream_rq_active"];

/// Which of Envoy's counters add up to which of ours.
struct Series {
    of: &'static str,
    name: &'static str,
    field: Field,
}

/// The count in a slot.
pub type Field = fn(&mut Slot) -> &mut u64;

const fn series(of: &'static str, name: &'static str, field: Field) -> Series {
    Series { of, name, field }
}

const SERIES: [Series; 21] = [
    series("http", "downstream_rq_1xx", |slot| &mut slot.informational),
    series("http", "downstream_rq_2xx", |slot| &mut slot.success),
    series("http", "downstream_rq_3xx", |slot| &mut slot.redirection),
    series("http", "downstream_rq_4xx", |slot| &mut slot.client_error),
    series("http", "downstream_rq_5xx", |slot| &mut slot.server_error),
    series("http", "no_route", |slot| &mut slot.no_route),
    // A connection that timed out is in here, too; upstream_cx_connect_timeout would count it twice.
    series("cluster", "upstream_cx_connect_fail", |slot| &mut slot.upstream_connection_failure),
    series("cluster", "upstream_cx_none_healthy", |slot| &mut slot.no_healthy_upstream),
    series("cluster", "upstream_rq_retry_limit_exceeded", |slot| &mut slot.retry_limit_exceeded),
    series("cluster", "upstream_rq_pending_overflow", |slot| &mut slot.upstream_overflow),
    series("cluster", "upstream_cx_overflow", |slot| &mut slot.upstream_overflow),
    // A handshake that failed is one of these, never two.
    series("cluster", "ssl.connection_error", |slot| &mut slot.tls_failures),
    series("cluster", "ssl.fail_verify_error", |slot| &mut slot.tls_failures),
    series("cluster", "ssl.fail_verify_no_cert", |slot| &mut slot.tls_failures),
    series("cluster", "ssl.fail_verify_san", |slot| &mut slot.tls_failures),
    series("cluster", "ssl.fail_verify_cert_hash", |slot| &mut slot.tls_failures),
    series("listener", "ssl.connection_error", |slot| &mut slot.tls_failures),
    series("listener", "ssl.fail_verify_error", |slot| &mut slot.tls_failures),
    series("listener", "ssl.fail_verify_no_cert", |slot| &mut slot.tls_failures),
    series("listener", "ssl.fail_verify_cert_hash", |slot| &mut slot.tls_failures),
    series("listener", "downstream_cx_total", |slot| &mut slot.connections),
];

/// A counter's state, and what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Where it is added.
    pub field: Field,
    /// Since Envoy made it: at its own start, or later with the listener or cluster that it belongs to.
    pub value: u64,
}

/// What Envoy has counted of its clients' traffic.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// By Envoy's full names.
    pub counters: HashMap<String, Count>,
    /// Requests by bucket of their time, by Envoy's full names.
    pub times: HashMap<String, BTreeMap<u32, u64>>,
    /// What clients do at this moment.
    pub traffic: Traffic,
}

/// What to ask Envoy for. Only statistics that were ever touched: it looks at the others' names for nothing, and they are the many.
pub fn path() -> String {
    let names = SERIES.iter().map(|series| series.name).chain(GAUGES).chain([TIME]);
    let names: Vec<_> = names.map(|name| name.replace('.', r"\.")).collect();
    let filter = format!(r"^(http|cluster|listener)\..*\.({})$", names.join("|"));
    answer::path(&filter)
}

impl Reading {
    /// Reads Envoy's answer to [`path`].
    pub fn parse(answer: &[u8]) -> serde_json::Result<Self> {
        let Answer { numbers, histograms } = Answer::parse(answer)?;
        let mut reading = Self::default();
        for (name, value) in numbers {
            reading.traffic.add(&name, value);
            if let Some(field) = field(&name) {
                reading.counters.insert(name, Count { field, value });
            }
        }
        let ours = histograms.into_iter().filter(|h| owner(&h.name, "http", TIME).is_some());
        reading.times.extend(ours.map(|histogram| (histogram.name, buckets(&histogram.totals))));
        Ok(reading)
    }
}

fn field(name: &str) -> Option<Field> {
    SERIES.iter().find(|series| owner(name, series.of, series.name).is_some()).map(|series| series.field)
}

/// The listener, connection manager or cluster that a statistic belongs to, if that is what it is and it is one of our clients' or backends'.
fn owner<'a>(name: &'a str, of: &str, what: &str) -> Option<&'a str> {
    let owner = name.strip_prefix(of)?.strip_prefix('.')?.strip_suffix(what)?.strip_suffix('.')?;
    let foreign = match of {
        // Envoy's own calls go through a connection manager without clients.
        "http" => matches!(owner, "admin" | "async-client"),
        // What a worker counts is in its listener's, too.
        "listener" => owner == "admin" || owner.starts_with("admin.") || owner.contains(".worker_"),
        _ => owner == XDS_CLUSTER,
    };
    (!foreign).then_some(owner)
}

fn buckets(bins: &[Bin]) -> BTreeMap<u32, u64> {
    let mut buckets = BTreeMap::new();
    for bin in bins {
        *buckets.entry(bucket(bin.middle())).or_default() += bin.count;
    }
    buckets
}

#[cfg(test)]
mod tests;
