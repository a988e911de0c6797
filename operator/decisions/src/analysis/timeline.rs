//! Both sides of one Gateway on one time axis, cut into strata. Within a stratum canary and baseline meet the same backends
//! in the same state, so whatever both share over time (a slow backend, a burst of errors, a busy hour) cancels out.

use super::input::{ProxySeries, SLOT_SECONDS, Slot};

/// A stratum needs so many attempts on each side, or a sparse side would be compared with nothing.
const MIN_ATTEMPTS: u64 = 5;
/// Most strata: a window that grows for hours costs no more than one of twenty minutes.
const MAX_STRATA: usize = 240;
/// A window that grows for longer counts from so long ago.
const LONGEST_SECONDS: i64 = 24 * 3600;
/// No proxy has as many requests in a slot; what claims to is cut, so that no sum overflows.
const MOST: u64 = 1 << 30;
/// Latencies above the end of this bucket (five minutes) count as this bucket.
const LAST_BUCKET: u32 = 60;

/// What happened in a stratum, except latencies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub requests: u64,
    pub failed: u64,
    pub client_errors: u64,
    pub upstream_connection_failure: u64,
    pub no_route: u64,
    pub no_healthy_upstream: u64,
    pub retry_limit_exceeded: u64,
    pub upstream_overflow: u64,
    pub tls_failures: u64,
    /// Slots in which the pod was there.
    pub present: u64,
}

impl Totals {
    /// Requests, and handshakes that never became one.
    pub fn attempts(&self) -> u64 {
        self.requests + self.tls_failures
    }

    fn add(&mut self, slot: &Slot) {
        self.requests += slot.requests.min(MOST);
        self.failed += slot.failed.min(MOST);
        self.client_errors += slot.client_errors.min(MOST);
        self.upstream_connection_failure += slot.flags.upstream_connection_failure.min(MOST);
        self.no_route += slot.flags.no_route.min(MOST);
        self.no_healthy_upstream += slot.flags.no_healthy_upstream.min(MOST);
        self.retry_limit_exceeded += slot.flags.retry_limit_exceeded.min(MOST);
        self.upstream_overflow += slot.flags.upstream_overflow.min(MOST);
        self.tls_failures += slot.tls_failures.min(MOST);
    }

    fn add_totals(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.client_errors += other.client_errors;
        self.upstream_connection_failure += other.upstream_connection_failure;
        self.no_route += other.no_route;
        self.no_healthy_upstream += other.no_healthy_upstream;
        self.retry_limit_exceeded += other.retry_limit_exceeded;
        self.upstream_overflow += other.upstream_overflow;
        self.tls_failures += other.tls_failures;
        self.present += other.present;
    }
}

/// A pod, or a whole side, stratum by stratum.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub totals: Vec<Totals>,
    /// Of each stratum all buckets, one after the other.
    latency: Vec<u64>,
}

impl Track {
    fn new(strata: usize) -> Self {
        Self { totals: vec![Totals::default(); strata], latency: vec![0; strata * BUCKETS] }
    }

    /// Buckets of a stratum.
    pub fn latency(&self, stratum: usize) -> &[u64] {
        self.latency.get(stratum * BUCKETS..(stratum + 1) * BUCKETS).unwrap_or_default()
    }

    /// Buckets of the whole window.
    pub fn histogram(&self) -> [u64; BUCKETS] {
        let mut sum = [0; BUCKETS];
        for stratum in self.latency.chunks_exact(BUCKETS) {
            sum.iter_mut().zip(stratum).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    fn add(&mut self, other: &Self) {
        self.totals.iter_mut().zip(&other.totals).for_each(|(sum, totals)| sum.add_totals(totals));
        self.latency.iter_mut().zip(&other.latency).for_each(|(sum, count)| *sum += count);
    }
}

/// Number of buckets.
pub(super) const BUCKETS: usize = LAST_BUCKET as usize + 1;

/// The pods of one side, and their sum.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub pods: Vec<Track>,
    pub sum: Track,
}

impl Side {
    fn new(series: &[&ProxySeries], axis: Axis, strata: &[usize], count: usize) -> Self {
        let pods: Vec<Track> = series.iter().map(|series| track(&series.slots, axis, strata, count)).collect();
        let mut sum = Track::new(count);
        pods.iter().for_each(|pod| sum.add(pod));
        Self { pods, sum }
    }

    /// Requests in the window.
    pub fn requests(&self) -> u64 {
        self.sum.totals.iter().map(|t| t.requests).sum()
    }
}

/// The slots of a window, numbered.
#[derive(Debug, Clone, Copy)]
struct Axis {
    first: i64,
    slots: usize,
}

impl Axis {
    fn new<'a>(series: impl Iterator<Item = &'a ProxySeries> + Clone) -> Self {
        let starts = series.flat_map(|series| series.slots.iter().map(|slot| slot.start));
        let (first, last) = starts.fold((i64::MAX, i64::MIN), |(first, last), at| (first.min(at), last.max(at)));
        if first > last {
            return Self { first: 0, slots: 0 };
        }
        let first = first.max(last.saturating_sub(LONGEST_SECONDS));
        Self { first, slots: ((last - first) / SLOT_SECONDS) as usize + 1 }
    }

    /// None for what is too old.
    fn slot(self, start: i64) -> Option<usize> {
        let at = start.checked_sub(self.first)? / SLOT_SECONDS;
        (start >= self.first).then_some(at as usize)
    }
}

fn track(slots: &[Slot], axis: Axis, strata: &[usize], count: usize) -> Track {
    let mut track = Track::new(count);
    let mut there: Option<(usize, usize)> = None;
    for slot in slots {
        let Some((at, &stratum)) = axis.slot(slot.start).and_then(|at| Some((at, strata.get(at)?))) else { continue };
        there = Some(there.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        if let Some(totals) = track.totals.get_mut(stratum) {
            totals.add(slot);
        }
        for (&bucket, &requests) in &slot.latency {
            let at = stratum * BUCKETS + bucket.min(LAST_BUCKET) as usize;
            if let Some(sum) = track.latency.get_mut(at) {
                *sum += requests.min(MOST);
            }
        }
    }
    // A pod was there from its first slot to its last one, also where it had nothing to report.
    let (first, last) = there.unwrap_or((1, 0));
    for stratum in strata.get(first..=last).unwrap_or_default() {
        if let Some(totals) = track.totals.get_mut(*stratum) {
            totals.present += 1;
        }
    }
    track
}

/// Both sides of a Gateway.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub canary: Side,
    pub baseline: Side,
    /// Start of each stratum, Unix seconds.
    pub starts: Vec<i64>,
}

impl Timeline {
    pub fn new(canary: &[&ProxySeries], baseline: &[&ProxySeries]) -> Self {
        let axis = Axis::new(canary.iter().chain(baseline).copied());
        let strata = strata(&attempts(canary, axis), &attempts(baseline, axis));
        let count = strata.last().map_or(0, |last| last + 1);
        let mut starts = Vec::with_capacity(count);
        for (at, stratum) in strata.iter().enumerate() {
            if starts.len() <= *stratum {
                starts.push(axis.first + at as i64 * SLOT_SECONDS);
            }
        }
        Self {
            canary: Side::new(canary, axis, &strata, count),
            baseline: Side::new(baseline, axis, &strata, count),
            starts,
        }
    }

    /// Strata that begin within so many seconds from the start of one, that one included.
    pub fn within(&self, from: usize, seconds: i64) -> usize {
        let end = self.starts.get(from).map_or(0, |start| start + seconds.max(SLOT_SECONDS));
        self.starts.iter().skip(from).take_while(|start| **start < end).count()
    }
}

fn attempts(series: &[&ProxySeries], axis: Axis) -> Vec<u64> {
    let mut attempts = vec![0; axis.slots];
    for slot in series.iter().flat_map(|series| &series.slots) {
        if let Some(sum) = axis.slot(slot.start).and_then(|at| attempts.get_mut(at)) {
            *sum += slot.requests.min(MOST) + slot.tls_failures.min(MOST);
        }
    }
    attempts
}

/// The stratum of each slot: a new one begins when the one before has enough of both sides. What is left at the end joins the
/// last one.
fn strata(canary: &[u64], baseline: &[u64]) -> Vec<usize> {
    let fewest_slots = canary.len().div_ceil(MAX_STRATA);
    let mut strata = Vec::with_capacity(canary.len());
    let (mut stratum, mut slots, mut of_canary, mut of_baseline) = (0, 0, 0, 0);
    for (canary, baseline) in canary.iter().zip(baseline) {
        strata.push(stratum);
        slots += 1;
        of_canary += canary;
        of_baseline += baseline;
        if slots >= fewest_slots && of_canary >= MIN_ATTEMPTS && of_baseline >= MIN_ATTEMPTS {
            (stratum, slots, of_canary, of_baseline) = (stratum + 1, 0, 0, 0);
        }
    }
    if slots > 0 && stratum > 0 {
        strata.iter_mut().filter(|s| **s == stratum).for_each(|s| *s -= 1);
    }
    strata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(slots: &[(i64, u64)]) -> ProxySeries {
        let slots = slots
            .iter()
            .map(|(start, requests)| Slot { start: *start, requests: *requests, ..Slot::default() })
            .collect();
        ProxySeries { gateway: "g/g".into(), pod: "p".into(), slots }
    }

    #[test]
    fn dense_slots_are_strata_and_sparse_ones_are_joined() {
        assert_eq!(strata(&[9, 9, 9], &[9, 9, 9]), [0, 1, 2]);
        assert_eq!(strata(&[2, 3, 5, 1], &[9, 9, 9, 9]), [0, 0, 1, 1]);
        assert_eq!(strata(&[0, 0], &[9, 9]), [0, 0]);
        assert_eq!(strata(&[], &[]), [0; 0]);
    }

    #[test]
    fn a_long_window_has_a_bounded_number_of_strata() {
        let strata = strata(&[9; 10_000], &[9; 10_000]);
        assert!(strata.last().is_some_and(|last| *last < MAX_STRATA));
    }

    #[test]
    fn slots_from_long_ago_are_left_out() {
        let (canary, baseline) = (series(&[(0, 9), (10_000_000, 7), (10_000_005, 7)]), series(&[(10_000_000, 9)]));
        let timeline = Timeline::new(&[&canary], &[&baseline]);
        assert_eq!(timeline.canary.requests(), 14);
    }

    #[test]
    fn nothing_is_lost_when_slots_are_joined() {
        let (canary, baseline) = (series(&[(0, 2), (5, 3), (15, 4)]), series(&[(0, 20), (5, 30), (10, 40)]));
        let timeline = Timeline::new(&[&canary], &[&baseline]);
        assert_eq!(timeline.canary.requests(), 9);
        assert_eq!(timeline.baseline.requests(), 90);
        assert_eq!(timeline.starts, [0]);
        let present: u64 = timeline.canary.sum.totals.iter().map(|t| t.present).sum();
        assert_eq!(present, 4, "the canary's pod was there from 0 to 15");
    }
}
