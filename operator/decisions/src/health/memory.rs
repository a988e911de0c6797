//! A leak is memory that grows steadily. Caches that fill after the start, and one large change of the configuration, grow in
//! other ways: at first only, or in one step.

use super::replicas::processes;
use super::{Cause, Finding, ReplicaHealth};

/// The first growth of a process that fills its caches; the demo's control plane needs a few seconds for it.
const START_SECONDS: i64 = 60;
/// Shortest and longest time that is looked at. A leak that shows in no five minutes is one for an alert, not for a rollback.
const SHORTEST_SECONDS: i64 = 90;
const LONGEST_SECONDS: i64 = 300;
/// Fewest samples: two in each part of the time.
const SAMPLES: usize = 8;
/// The time is cut into so many parts, and memory must grow from each to the next by a fair part of the whole growth.
const PARTS: usize = 4;
const FAIR_PART: f64 = 0.5;
/// Growth that counts: a quarter of what it had, and more than an allocator keeps back.
const GROWTH: f64 = 0.25;
const GROWTH_BYTES: f64 = 32.0 * MEBIBYTE;
/// A stream that came in this time accounts for as much; the bar for one is 64 kB.
const BYTES_PER_STREAM: f64 = MEBIBYTE;
/// The baseline does not grow by more than this part of the canary's growth, or both meet the same changes.
const OF_BASELINE: f64 = 0.5;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Whether a replica of the canary leaks.
pub(super) fn grows(canary: &[ReplicaHealth], baseline: &[ReplicaHealth]) -> Option<Finding> {
    let (pod, growth) = processes(canary)
        .into_iter()
        .filter_map(|((pod, started), samples)| Some((pod, steady_growth(&samples, started)?)))
        .max_by(|a, b| a.1.bytes.total_cmp(&b.1.bytes))?;
    let before = processes(baseline)
        .into_values()
        .map(|samples| {
            let within: Vec<_> = samples.into_iter().filter(|sample| sample.at >= growth.since).collect();
            let bytes = |sample: Option<&&ReplicaHealth>| sample.map_or(0.0, |s| s.resident_bytes as f64);
            bytes(within.last()) - bytes(within.first())
        })
        .fold(0.0, f64::max);
    if before > growth.bytes * OF_BASELINE {
        return None;
    }
    let reason = format!(
        "memory of the new control plane's pod {pod} grew steadily from {:.0} MiB to {:.0} MiB within {} s, of the old one's by {:.0} MiB at most",
        growth.from / MEBIBYTE,
        (growth.from + growth.bytes) / MEBIBYTE,
        growth.seconds,
        before / MEBIBYTE
    );
    Some(Finding { cause: Cause::MemoryGrows, reason })
}

struct Growth {
    from: f64,
    bytes: f64,
    since: i64,
    seconds: i64,
}

fn steady_growth(samples: &[&ReplicaHealth], started: i64) -> Option<Growth> {
    let newest = samples.last()?.at;
    let since = (started + START_SECONDS).max(newest - LONGEST_SECONDS);
    let samples: Vec<_> = samples.iter().filter(|sample| sample.at >= since).collect();
    let (first, last) = (samples.first()?, samples.last()?);
    let seconds = last.at - first.at;
    if seconds < SHORTEST_SECONDS || samples.len() < SAMPLES {
        return None;
    }
    let means: Vec<f64> = (0..PARTS)
        .map(|part| {
            let part = samples.len() * part / PARTS..samples.len() * (part + 1) / PARTS;
            let part = samples.get(part).unwrap_or_default();
            part.iter().map(|sample| sample.resident_bytes as f64).sum::<f64>() / part.len().max(1) as f64
        })
        .collect();
    let streams = last.open_streams.saturating_sub(first.open_streams) as f64;
    let (from, bytes) =
        (first.resident_bytes as f64, last.resident_bytes as f64 - first.resident_bytes as f64);
    let explained = streams * BYTES_PER_STREAM;
    let fair = bytes / PARTS as f64 * FAIR_PART;
    let steady = means.windows(2).all(|pair| matches!(pair, [before, after] if after - before >= fair));
    let counts = bytes - explained >= GROWTH_BYTES && bytes - explained >= from * GROWTH;
    (steady && counts).then_some(Growth { from, bytes, since: first.at, seconds })
}
