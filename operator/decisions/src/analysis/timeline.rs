//! Both sides of one Gateway on one time axis, cut into strata. Within a stratum canary and baseline meet the same backends
//! in the same state, so whatever both share over time (a slow backend, a burst of errors, a busy hour) cancels out.

use super::input::{ProbeSeries, ProxySeries, SLOT_SECONDS};
use super::track::{MOST, Track};

/// A stratum needs so many attempts on each side, or a sparse side would be compared with nothing.
const MIN_ATTEMPTS: u64 = 5;
/// Most strata: a window that grows for hours costs no more than one of twenty minutes.
const MAX_STRATA: usize = 240;
/// A window that grows for longer counts from so long ago.
const LONGEST_SECONDS: i64 = 24 * 3600;
/// What claims to be from another time than these, up to the year 36,812, is left out.
const TIMES: std::ops::Range<i64> = 0..1 << 40;

/// What is known of a pod.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pod<'a> {
    pub series: &'a ProxySeries,
    pub probes: Option<&'a ProbeSeries>,
}

impl Pod<'_> {
    fn starts(&self) -> impl Iterator<Item = i64> {
        let reported = self.series.slots.iter().map(|slot| slot.start);
        reported.chain(self.probes.iter().flat_map(|probes| probes.slots.iter().map(|slot| slot.start)))
    }

    /// How many requests of each slot are the operator's own. The proxy may have counted them a slot later or earlier.
    fn probes(&self, axis: Axis) -> Vec<u64> {
        let Some(probes) = self.probes else { return Vec::new() };
        let (mut counted, mut sent) = (vec![0; axis.slots], vec![0; axis.slots]);
        for slot in &self.series.slots {
            if let Some(counted) = axis.slot(slot.start).and_then(|at| counted.get_mut(at)) {
                *counted += slot.requests.min(slot.client_errors).min(slot.flags.no_route).min(MOST);
            }
        }
        for slot in &probes.slots {
            if let Some(sent) = axis.slot(slot.start).and_then(|at| sent.get_mut(at)) {
                *sent += slot.unrouted.min(MOST);
            }
        }
        let mut found = vec![0; axis.slots];
        for shift in [0, 1, -1] {
            for (at, sent) in sent.iter_mut().enumerate() {
                let Some(there) = at.checked_add_signed(shift) else { continue };
                if let (Some(counted), Some(found)) = (counted.get_mut(there), found.get_mut(there)) {
                    let taken = (*sent).min(*counted);
                    *sent -= taken;
                    *counted -= taken;
                    *found += taken;
                }
            }
        }
        found
    }
}

/// The pods of one side, and their sum.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub pods: Vec<Track>,
    pub sum: Track,
}

impl Side {
    fn new(pods: &[Counted<'_>], axis: Axis, strata: &[usize], count: usize) -> Self {
        let pods: Vec<Track> = pods.iter().map(|pod| pod.track(axis, strata, count)).collect();
        let mut sum = Track::new(count);
        pods.iter().for_each(|pod| sum.add(pod));
        Self { pods, sum }
    }

    /// Requests of users in the window.
    pub fn requests(&self) -> u64 {
        self.sum.totals.iter().map(|totals| totals.requests).sum()
    }

    /// Requests of users and probes.
    pub fn all(&self) -> u64 {
        self.sum.totals.iter().map(|totals| totals.all).sum()
    }
}

/// The slots of a window, numbered.
#[derive(Debug, Clone, Copy)]
struct Axis {
    first: i64,
    slots: usize,
}

impl Axis {
    fn new(starts: impl Iterator<Item = i64>) -> Self {
        let starts = starts.filter(|at| TIMES.contains(at));
        let (first, last) =
            starts.fold((i64::MAX, i64::MIN), |(first, last), at| (first.min(at), last.max(at)));
        if first > last {
            return Self { first: 0, slots: 0 };
        }
        let first = first.max(last - LONGEST_SECONDS);
        Self { first, slots: ((last - first) / SLOT_SECONDS) as usize + 1 }
    }

    /// None for what is too old.
    fn slot(self, start: i64) -> Option<usize> {
        let there = TIMES.contains(&start) && start >= self.first;
        there.then(|| ((start - self.first) / SLOT_SECONDS) as usize)
    }
}

/// A pod whose probes were looked for in what it counted.
struct Counted<'a> {
    pod: Pod<'a>,
    probes: Vec<u64>,
}

impl<'a> Counted<'a> {
    fn of(pods: &[Pod<'a>], axis: Axis) -> Vec<Self> {
        pods.iter().map(|pod| Self { pod: *pod, probes: pod.probes(axis) }).collect()
    }

    fn probes(&self, at: usize) -> u64 {
        self.probes.get(at).copied().unwrap_or(0)
    }

    fn track(&self, axis: Axis, strata: &[usize], count: usize) -> Track {
        let mut track = Track::new(count);
        let place = |start| axis.slot(start).and_then(|at| Some((at, *strata.get(at)?)));
        let mut there: Option<(usize, usize)> = None;
        for slot in &self.pod.series.slots {
            let Some((at, stratum)) = place(slot.start) else { continue };
            there = Some(there.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            track.add_slot(stratum, slot, self.probes(at));
        }
        // A pod was there from its first slot to its last one, also where it had nothing to report.
        let (first, last) = there.unwrap_or((1, 0));
        for stratum in strata.get(first..=last).unwrap_or_default() {
            if let Some(totals) = track.totals.get_mut(*stratum) {
                totals.present += 1;
            }
        }
        for slot in self.pod.probes.iter().flat_map(|probes| &probes.slots) {
            if let Some(totals) = place(slot.start).and_then(|(_, stratum)| track.totals.get_mut(stratum)) {
                totals.probes += slot.sent.min(MOST);
                totals.unanswered += slot.unanswered.min(MOST);
                totals.all += slot.unanswered.min(MOST);
            }
        }
        track
    }
}

/// Both sides of a Gateway.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    pub canary: Side,
    pub baseline: Side,
    /// Start of each stratum, Unix seconds.
    pub starts: Vec<i64>,
}

/// Whose attempts the strata are made for: each needs enough of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Users,
    Probes,
}

impl Timeline {
    pub fn new(canary: &[Pod<'_>], baseline: &[Pod<'_>], of: Of) -> Self {
        let axis = Axis::new(canary.iter().chain(baseline).flat_map(Pod::starts));
        let (canary, baseline) = (Counted::of(canary, axis), Counted::of(baseline, axis));
        let attempts = |side: &[Counted<'_>]| match of {
            Of::Users => users(side, axis),
            Of::Probes => probes(side, axis),
        };
        let strata = strata(&attempts(&canary), &attempts(&baseline));
        let count = strata.last().map_or(0, |last| last + 1);
        let mut starts = Vec::with_capacity(count);
        for (at, stratum) in strata.iter().enumerate() {
            if starts.len() <= *stratum {
                starts.push(axis.first + at as i64 * SLOT_SECONDS);
            }
        }
        Self {
            canary: Side::new(&canary, axis, &strata, count),
            baseline: Side::new(&baseline, axis, &strata, count),
            starts,
        }
    }

    /// Of a Gateway of which nothing is known.
    pub fn empty() -> Self {
        Self::new(&[], &[], Of::Users)
    }

    /// Strata that begin within so many seconds from the start of one, that one included.
    pub fn within(&self, from: usize, seconds: i64) -> usize {
        let end = self.starts.get(from).map_or(0, |start| start + seconds.max(SLOT_SECONDS));
        self.starts.iter().skip(from).take_while(|start| **start < end).count()
    }
}

/// Requests and failed handshakes of a side, slot by slot, without its probes.
fn users(pods: &[Counted<'_>], axis: Axis) -> Vec<u64> {
    let mut users = vec![0; axis.slots];
    for pod in pods {
        for slot in &pod.pod.series.slots {
            let Some(at) = axis.slot(slot.start) else { continue };
            if let Some(sum) = users.get_mut(at) {
                *sum += slot.requests.min(MOST).saturating_sub(pod.probes(at)) + slot.tls_failures.min(MOST);
            }
        }
    }
    users
}

/// Probes of a side, slot by slot.
fn probes(pods: &[Counted<'_>], axis: Axis) -> Vec<u64> {
    let mut probes = vec![0; axis.slots];
    for slot in pods.iter().filter_map(|pod| pod.pod.probes).flat_map(|probes| &probes.slots) {
        if let Some(sum) = axis.slot(slot.start).and_then(|at| probes.get_mut(at)) {
            *sum += slot.sent.min(MOST);
        }
    }
    probes
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
    use super::super::input::{Flags, ProbeSlot, Slot};
    use super::*;

    fn series(slots: &[(i64, u64)]) -> ProxySeries {
        let slots = slots
            .iter()
            .map(|(start, requests)| Slot { start: *start, requests: *requests, ..Slot::default() })
            .collect();
        ProxySeries { gateway: "g/g".into(), pod: "p".into(), slots }
    }

    fn timeline(canary: &ProxySeries, baseline: &ProxySeries) -> Timeline {
        let pod = |series| Pod { series, probes: None };
        Timeline::new(&[pod(canary)], &[pod(baseline)], Of::Users)
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
        let timeline =
            timeline(&series(&[(0, 9), (10_000_000, 7), (10_000_005, 7)]), &series(&[(10_000_000, 9)]));
        assert_eq!(timeline.canary.requests(), 14);
    }

    #[test]
    fn nothing_is_lost_when_slots_are_joined() {
        let timeline = timeline(&series(&[(0, 2), (5, 3), (15, 4)]), &series(&[(0, 20), (5, 30), (10, 40)]));
        assert_eq!(timeline.canary.requests(), 9);
        assert_eq!(timeline.baseline.requests(), 90);
        assert_eq!(timeline.starts, [0]);
        let present: u64 = timeline.canary.sum.totals.iter().map(|t| t.present).sum();
        assert_eq!(present, 4, "the canary's pod was there from 0 to 15");
    }

    /// Slots of ten users' requests, one of them without a route, and of so many probes; all within 1 ms but the users'.
    fn with_probes(counted: &[u64]) -> ProxySeries {
        let slot = |(at, probes): (usize, &u64)| Slot {
            start: at as i64 * SLOT_SECONDS,
            requests: 10 + probes,
            client_errors: 1 + probes,
            flags: Flags { no_route: 1 + probes, ..Flags::default() },
            latency: [(1, *probes), (16, 10)].into(),
            ..Slot::default()
        };
        ProxySeries { slots: counted.iter().enumerate().map(slot).collect(), ..series(&[]) }
    }

    fn probes(sent: &[u64], unanswered: u64) -> ProbeSeries {
        let slot = |(at, sent): (usize, &u64)| ProbeSlot {
            start: at as i64 * SLOT_SECONDS,
            sent: sent + unanswered,
            unrouted: *sent,
            unanswered,
        };
        ProbeSeries { slots: sent.iter().enumerate().map(slot).collect(), ..ProbeSeries::default() }
    }

    #[test]
    fn probes_are_taken_out_of_what_proxies_counted_also_by_another_clock() {
        for counted in [[25, 25, 25], [24, 26, 25], [27, 25, 23]] {
            let (series, probes) = (with_probes(&counted), probes(&[25, 25, 25], 0));
            let pod = Pod { series: &series, probes: Some(&probes) };
            let side = Timeline::new(&[pod], &[pod], Of::Users).canary;
            let sum = side.sum.totals.iter().fold((0, 0, 0, 0), |sum, t| {
                (sum.0 + t.requests, sum.1 + t.client_errors, sum.2 + t.no_route, sum.3 + t.probes)
            });
            assert_eq!(sum, (30, 3, 3, 75), "{counted:?}");
            assert_eq!(side.sum.histogram().iter().sum::<u64>(), 30);
            assert!(side.sum.histogram()[16] >= 28, "{counted:?}: the users' latencies are left");
            assert_eq!(side.all(), 105);
        }
    }

    #[test]
    fn probes_that_a_route_answers_are_requests_like_others() {
        let (series, probes) = (series(&[(0, 35), (5, 35)]), probes(&[25, 25], 0));
        let pod = Pod { series: &series, probes: Some(&probes) };
        assert_eq!(Timeline::new(&[pod], &[pod], Of::Users).canary.requests(), 70);
    }

    #[test]
    fn probes_without_an_answer_count_although_no_proxy_counted_them() {
        let (silent, probes) = (series(&[]), probes(&[0, 0], 25));
        let side = Timeline::new(&[Pod { series: &silent, probes: Some(&probes) }], &[], Of::Probes).canary;
        assert_eq!((side.requests(), side.all()), (0, 50));
        assert_eq!(side.sum.totals.iter().map(|t| t.unanswered).sum::<u64>(), 50);
    }
}
