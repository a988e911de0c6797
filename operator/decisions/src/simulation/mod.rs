//! Whole upgrades, judged by [`crate::analysis::judge_with_probes`] itself on made-up traffic. Each step begins a new window, is looked at
//! every five seconds, and goes on after its hold with a Pass or at its deadline without one, as the operator does; a Fail
//! rolls back at any time. Every upgrade has a seed of its own, so a figure can be had again, on any number of cores.

mod cases;
mod latencies;
mod random;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::BTreeMap;
use std::num::NonZero;

pub use cases::{CASES, Case, Fault, Kind, Spells, Traffic};
pub use latencies::Shape;

use crate::analysis::{Cause, ProbeSeries, ProxySeries, SLOT_SECONDS, Settings, VerdictResult, judge_step};
use latencies::Above;
use random::Random;
use traffic::{Pod, World};

/// What the API's defaults say.
const SETTINGS: Settings =
    Settings { max_error_increase: 0.005, max_latency_increase: 0.2, min_requests: 300 };
/// Shortest and longest time of a step, in seconds.
const HOLD: i64 = 120;
const DEADLINE: i64 = 900;

/// How the upgrades of a case ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many there were.
    pub upgrades: u32,
    /// Those that were rolled back.
    pub rolled_back: u32,
    /// Of a bad canary: those that were not rolled back, or from more requests than the case grants.
    pub missed: u32,
    /// Those with a step that came to its deadline without a verdict.
    pub undecided: u32,
    /// Users' requests to the canary in all steps until it was rolled back: median, 95th percentile.
    pub canary_requests_p50: u64,
    /// See above.
    pub canary_requests_p95: u64,
    /// Seconds in the steps, to the rollback or to the end: median, 95th percentile.
    pub seconds_p50: i64,
    /// See above.
    pub seconds_p95: i64,
    /// Why they were rolled back.
    pub causes: BTreeMap<Cause, u32>,
}

impl Outcome {
    /// Whether what has to hold of the case does.
    pub fn holds(&self, kind: Kind) -> bool {
        match kind {
            Kind::Equal => u64::from(self.rolled_back) * 100 <= u64::from(self.upgrades),
            Kind::Faulty { .. } => u64::from(self.missed) * 100 <= u64::from(self.upgrades) * 5,
        }
    }
}

/// One upgrade.
struct End {
    rolled_back: Option<Cause>,
    undecided: bool,
    canary_requests: u64,
    seconds: i64,
}

/// Runs upgrades of a case, the first with this seed, each other with the one after. Tuning has used seeds below 1,000,000.
pub fn run(case: &Case, upgrades: u32, seed: u64) -> Outcome {
    let above = Above::new(case.traffic.shape);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let ends: Vec<End> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let above = &above;
                let seeds = (0..u64::from(upgrades)).filter(move |at| at % threads == worker);
                scope.spawn(move || seeds.map(|at| upgrade(case, above, seed + at)).collect::<Vec<_>>())
            })
            .collect();
        // A worker that panicked leaves its upgrades out, and the number in the outcome shows it.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    outcome(case, &ends)
}

fn outcome(case: &Case, ends: &[End]) -> Outcome {
    let mut outcome = Outcome { upgrades: ends.len() as u32, ..Outcome::default() };
    let (mut requests, mut seconds) = (Vec::new(), Vec::new());
    for end in ends {
        seconds.push(end.seconds);
        outcome.undecided += u32::from(end.undecided);
        let bound = if let Kind::Faulty { requests } = case.kind { requests } else { u64::MAX };
        if let Some(cause) = end.rolled_back {
            outcome.rolled_back += 1;
            *outcome.causes.entry(cause).or_default() += 1;
            requests.push(end.canary_requests);
        }
        let found = end.rolled_back.is_some() && end.canary_requests <= bound;
        outcome.missed += u32::from(case.kind != Kind::Equal && !found);
    }
    requests.sort_unstable();
    seconds.sort_unstable();
    (outcome.canary_requests_p50, outcome.canary_requests_p95) =
        (quantile(&requests, 50), quantile(&requests, 95));
    (outcome.seconds_p50, outcome.seconds_p95) = (quantile(&seconds, 50), quantile(&seconds, 95));
    outcome
}

fn quantile<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

fn upgrade(case: &Case, above: &Above, seed: u64) -> End {
    let mut random = Random::new(seed);
    let mut world = World::new(&case.traffic, above, &mut random);
    let most = |side: fn(&(usize, usize)) -> usize| case.steps.iter().map(side).max().unwrap_or(0);
    let mut pods = |count, canary| -> Vec<Pod> {
        (0..count).map(|_| Pod::new(&case.traffic, canary, &mut random)).collect()
    };
    let (mut canary, mut baseline) = (pods(most(|step| step.0), true), pods(most(|step| step.1), false));
    let mut end = End { rolled_back: None, undecided: false, canary_requests: 0, seconds: 0 };
    for &(of_canary, of_baseline) in case.steps {
        let mut sides = [Series::new(of_canary, "canary"), Series::new(of_baseline, "baseline")];
        let mut probes = [sides[0].probes(), sides[1].probes()].concat();
        for at in 1..=DEADLINE / SLOT_SECONDS {
            world.go(&mut random);
            end.seconds += SLOT_SECONDS;
            let pods = canary.iter_mut().take(of_canary).chain(baseline.iter_mut().take(of_baseline));
            let series = sides.iter_mut().flat_map(|side| &mut side.0);
            for ((pod, series), probes) in pods.zip(series).zip(&mut probes) {
                let all = of_canary + of_baseline;
                let mut slot = world.slot(at * SLOT_SECONDS, pod, all, &case.fault, &mut random);
                if pod.canary {
                    end.canary_requests += slot.requests;
                }
                probes.slots.push(pod.probe(case.traffic.probes, &mut slot));
                series.slots.push(slot);
            }
            let known = if case.traffic.probes > 0 { probes.as_slice() } else { &[] };
            let times = (0, at * SLOT_SECONDS);
            let verdict = judge_step(&sides[0].0, &sides[1].0, known, &SETTINGS, case.steps.len(), times);
            if verdict.result == VerdictResult::Fail {
                end.rolled_back = Some(verdict.cause);
                return end;
            }
            if at * SLOT_SECONDS >= HOLD && verdict.result == VerdictResult::Pass {
                break;
            }
            end.undecided |= at * SLOT_SECONDS == DEADLINE;
        }
    }
    end
}

/// What the pods of a side report in a step.
struct Series(Vec<ProxySeries>);

impl Series {
    fn new(pods: usize, side: &str) -> Self {
        let one = |pod| ProxySeries {
            gateway: "demo/gateway".to_owned(),
            pod: format!("{side}-{pod}"),
            slots: Vec::new(),
        };
        Self((0..pods).map(one).collect())
    }

    fn probes(&self) -> Vec<ProbeSeries> {
        let one = |series: &ProxySeries| ProbeSeries {
            gateway: series.gateway.clone(),
            pod: series.pod.clone(),
            slots: Vec::new(),
        };
        self.0.iter().map(one).collect()
    }
}
