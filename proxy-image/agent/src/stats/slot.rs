//! From what Envoy has counted in all to what happened in five seconds.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use meshwright_proto::reports::Slot;

use super::reading::Reading;

/// How long a slot is.
pub const SECONDS: i64 = 5;

/// The last bucket, for everything above 55 s.
pub const LAST_BUCKET: u32 = 53;

/// The bucket for a time in milliseconds.
pub fn bucket(milliseconds: f64) -> u32 {
    let mut bound = 0.5;
    for bucket in 0..LAST_BUCKET {
        if milliseconds <= bound {
            return bucket;
        }
        bound *= 1.25;
    }
    LAST_BUCKET
}

/// Start of the slot for what happened between two readings.
pub fn start(from: Timestamp, to: Timestamp) -> i64 {
    // A reading at the end of a slot comes a little late, or, after the clock was set, a little early.
    let middle = i64::midpoint(from.as_millisecond(), to.as_millisecond()).div_euclid(1000);
    middle - middle.rem_euclid(SECONDS)
}

/// What is left of this moment's slot.
pub fn rest(now: Timestamp) -> Duration {
    let slot = SECONDS.unsigned_abs() * 1000;
    let gone = now.as_millisecond().rem_euclid(SECONDS * 1000).unsigned_abs();
    Duration::from_millis(slot - gone)
}

/// What was counted between two readings. Each of Envoy's counters is compared with itself: when a cluster goes, its counters go with it, and a
/// sum over all would fall. One that fell was made anew, with Envoy or with its cluster, and so was one that was not there before.
pub fn between(previous: &Reading, now: &Reading, start: i64) -> Slot {
    let mut slot = Slot { start, ..Slot::default() };
    for (name, count) in &now.counters {
        let before = previous.counters.get(name).map_or(0, |before| before.value);
        *(count.field)(&mut slot) += count.value.checked_sub(before).unwrap_or(count.value);
    }
    let none = BTreeMap::new();
    for (name, times) in &now.times {
        let before = previous.times.get(name).unwrap_or(&none);
        let fell = before.iter().any(|(bucket, count)| times.get(bucket).is_none_or(|now| now < count));
        let before = if fell { &none } else { before };
        for (bucket, count) in times {
            let more = count - before.get(bucket).unwrap_or(&0);
            if more > 0 {
                *slot.latency.entry(*bucket).or_default() += more;
            }
        }
    }
    slot
}

/// Adds what happened in the same slot.
pub fn add(slot: &mut Slot, more: Slot) {
    let Slot {
        start: _,
        informational,
        success,
        redirection,
        client_error,
        server_error,
        upstream_connection_failure,
        no_route,
        no_healthy_upstream,
        retry_limit_exceeded,
        upstream_overflow,
        tls_failures,
        connections,
        latency,
    } = more;
    slot.informational += informational;
    slot.success += success;
    slot.redirection += redirection;
    slot.client_error += client_error;
    slot.server_error += server_error;
    slot.upstream_connection_failure += upstream_connection_failure;
    slot.no_route += no_route;
    slot.no_healthy_upstream += no_healthy_upstream;
    slot.retry_limit_exceeded += retry_limit_exceeded;
    slot.upstream_overflow += upstream_overflow;
    slot.tls_failures += tls_failures;
    slot.connections += connections;
    for (bucket, count) in latency {
        *slot.latency.entry(bucket).or_default() += count;
    }
}

/// Whether nothing happened in it.
pub fn is_empty(slot: &Slot) -> bool {
    *slot == Slot { start: slot.start, ..Slot::default() }
}

#[cfg(test)]
mod tests;
