//! The judgement of a canary: whether its requests go worse than the baseline's in the same time. A pure function of what the
//! proxies of both sides reported; called every few seconds on the growing window of a step, it says Pass, Fail or Insufficient.
//!
//! # What is compared
//! For each Gateway on its own: 5xx and 4xx answers, each response flag, failed TLS handshakes, and the shares of requests that
//! take longer than the baseline's own median and 95th percentile (`metric`, `latency`). Each is a count of events on either
//! side, so one test serves all of them. The operator's own requests are taken out and compared by themselves: they go to each pod
//! alike, so they would dilute what users get, and more so where users are few.
//!
//! # The test
//! Time is cut into strata, five seconds each where traffic is dense (`timeline`). Within a stratum both sides meet the same
//! clients and backends. Given the events of both, each of them is the canary's with a probability that is known when the sides
//! are alike: its share of the requests. What both share (a backend's outage, a rush, a slow hour) changes how many events there
//! are and not whose, so it cancels out. The evidence is a Bayes factor of "the canary has about so many times as much" against
//! "both are alike" (`evidence`). It may be looked at at any time: the probability that it ever exceeds `1/a` is at most `a`.
//! Hence no plan of looks. The bound on false alarms, one in a hundred upgrades, is divided among the steps, the Gateways and the
//! metrics, errors having most of it. A fortieth is for the time in which gateways follow a step, and a fortieth for later pieces of
//! a step that waits for long, of which the n-th has one part in n(n + 1) (`Window`).
//!
//! Real events are not independent, and healthy pods differ. Both go into the evidence (`dispersion`):
//! - Events count less by as much as they vary more than independent ones. That is measured in blocks of 5 to 40 seconds, so that
//!   bursts count as what they are, between the sides and between the pods of a side; with few events, along each side's own time.
//! - "Alike" means alike but for a random difference of pods, measured between the pods of each side. With few pods an assumption
//!   takes its place: 20 % in rates, 30 % in client errors, 2 % in latency. Where each side has one or two pods, a rise of errors
//!   to less than about twice the baseline's is therefore taken for a difference between pods, however many requests it shows in.
//!
//! What no variance describes is ruled out (`rise`): there must be evidence left without the 30 seconds that stand out most (45
//! for a canary of one pod), and without the pod that stands out most. A burst of a single pod that lasts longer cannot be told
//! from a fault. A canary that fails two fifths of its requests or more, where the baseline does not, is not given that time.
//!
//! # Verdicts
//! - Fail: enough evidence, and the increase is above the allowed one (above half of it for latency, so that a rise by the allowed
//!   figure is found). No minimum of requests: ten failures of ten are enough.
//! - Pass: the minimum of requests on both sides, and no doubt.
//! - Insufficient: fewer requests, or doubt: an increase above half of the allowed one, three times as likely as none, that may yet
//!   turn out to be above it. More requests end the doubt.
//!
//! # How many requests it takes
//! By simulation of whole upgrades with the default settings and steps, at least 95 in 100 of these are found from no more than so
//! many requests of the canary, all steps together: errors that rise from 0.1 % to 1.1 %, 3,000, also where the baseline has no
//! more requests than the canary and where traffic is bursty and correlated; a median latency that rises by 20 %, 3,000 where
//! latency has a log-normal body with a standard deviation of 0.5, and 6,000 where it has one of 0.8, a heavy tail, and wanders;
//! 5 % of requests without a route, or 100 ms on top of 20 ms, 1,000, and 3,000 in bursty traffic; a total failure, 40. Besides
//! requests it takes time: 35 to 50 seconds at least for what is no total failure, two slots for that. Latency within one bucket,
//! 25 % wide, is not seen. The bound on false alarms does not lean on what the user allows: it holds for an allowance of nothing
//! too. The cases are in `simulation`, a cargo feature.

mod comparison;
mod dispersion;
mod evidence;
mod input;
mod latency;
mod metric;
mod reason;
mod rise;
#[cfg(test)]
mod tests;
mod timeline;
mod track;
mod verdict;

use std::collections::{BTreeMap, HashMap};

pub use input::{
    Flags, Look, ProbeSeries, ProbeSlot, ProxySeries, SLOT_SECONDS, Settings, Slot, Window, bucket_end,
};
pub use verdict::{Cause, Verdict, VerdictResult};

use input::PIECE_SECONDS;
use metric::{METRICS, Metric};
use reason::thousands;
use rise::Rise;
use timeline::{Of, Pod, Timeline};

/// Bound on the probability that an upgrade to an equal revision is rolled back.
const FALSE_ALARMS: f64 = 0.01;

/// Judges a canary against its baseline on the window of one step. It is meant to be called again and again while the window
/// grows; the bound on false alarms holds over all calls.
pub fn judge(canary: &[ProxySeries], baseline: &[ProxySeries], settings: &Settings, look: &Look) -> Verdict {
    judge_with_probes(canary, baseline, &[], settings, look)
}

/// The same while the operator sends requests of its own to pods of both sides. They count as requests; what is compared is what
/// users get, and whether probes are answered.
pub fn judge_with_probes(
    canary: &[ProxySeries],
    baseline: &[ProxySeries],
    probes: &[ProbeSeries],
    settings: &Settings,
    look: &Look,
) -> Verdict {
    let gateways = gateways(canary, baseline, probes);
    let canary_requests = gateways.values().map(|gateway| gateway.users.canary.all()).sum();
    let baseline_requests = gateways.values().map(|gateway| gateway.users.baseline.all()).sum();
    let canary_users = gateways.values().map(|gateway| gateway.users.canary.requests()).sum();
    let baseline_users = gateways.values().map(|gateway| gateway.users.baseline.requests()).sum();
    let verdict = |result, cause, reason| Verdict {
        result,
        cause,
        reason,
        canary_requests,
        baseline_requests,
        canary_users,
        baseline_users,
    };

    let bound = FALSE_ALARMS * look.part();
    let judgements = gateways.len().max(1);
    let mut doubt = None;
    for (name, gateway) in &gateways {
        for metric in METRICS {
            let timeline = if metric == Metric::UnansweredProbes { &gateway.probes } else { &gateway.users };
            let false_alarms = bound * metric.budget() / judgements as f64;
            let Some(rise) = Rise::find(timeline, metric, settings, false_alarms) else { continue };
            let text = if gateways.len() > 1 { format!("Gateway {name}: {}", rise.text) } else { rise.text };
            if rise.certain {
                return verdict(VerdictResult::Fail, rise.cause, text);
            }
            doubt.get_or_insert(text);
        }
    }
    if canary_requests > 0 && baseline_requests == 0 {
        let requests = thousands(canary_requests);
        let reason = format!("the baseline has no requests to compare {requests} of the canary with");
        return verdict(VerdictResult::Insufficient, Cause::NoBaseline, reason);
    }
    let needed = settings.min_requests.max(1);
    if let Some((gateway, requests)) = unserved(&gateways, needed) {
        let reason =
            format!("Gateway {gateway}: no request of the canary, {} of the baseline", thousands(requests));
        return verdict(VerdictResult::Insufficient, Cause::TooFewRequests, reason);
    }
    if canary_requests < needed || baseline_requests < needed {
        let (canary, baseline) = (thousands(canary_requests), thousands(baseline_requests));
        let needed = thousands(needed);
        let reason = format!(
            "{canary} requests of the canary and {baseline} of the baseline, of at least {needed} each"
        );
        return verdict(VerdictResult::Insufficient, Cause::TooFewRequests, reason);
    }
    if let Some(doubt) = doubt {
        let reason = format!("{doubt}, which may be chance");
        return verdict(VerdictResult::Insufficient, Cause::InDoubt, reason);
    }
    let all: Vec<&Timeline> = gateways.values().map(|gateway| &gateway.users).collect();
    verdict(VerdictResult::Pass, Cause::NothingRose, reason::nothing_rose(&all))
}

/// Judges a step that is in place since then: all of its window, and where it has lasted for long what it has come to lately.
pub fn judge_step(
    canary: &[ProxySeries],
    baseline: &[ProxySeries],
    probes: &[ProbeSeries],
    settings: &Settings,
    steps: usize,
    (since, now): (i64, i64),
) -> Verdict {
    let look = |window| Look { steps, window };
    let whole = judge_with_probes(canary, baseline, probes, settings, &look(Window::Step));
    let Some((n, from)) = piece(since, now).filter(|_| whole.result != VerdictResult::Fail) else {
        return whole;
    };
    let late = |side: &[ProxySeries]| side.iter().map(|series| series.since(from)).collect::<Vec<_>>();
    let probes: Vec<_> = probes.iter().map(|series| series.since(from)).collect();
    let lately =
        judge_with_probes(&late(canary), &late(baseline), &probes, settings, &look(Window::Later(n)));
    if lately.result == VerdictResult::Fail { lately } else { whole }
}

/// The piece of a long step that goes on now, and its beginning; none in the first.
fn piece(since: i64, now: i64) -> Option<(u32, i64)> {
    let n = now.checked_sub(since)? / PIECE_SECONDS;
    Some((u32::try_from(n).ok().filter(|n| *n > 0)?, since + n * PIECE_SECONDS))
}

/// A Gateway on two time axes.
struct Gateway {
    users: Timeline,
    probes: Timeline,
}

/// A Gateway whose canary serves nothing while its baseline serves enough: other Gateways' requests say nothing about it.
fn unserved<'a>(gateways: &BTreeMap<&'a str, Gateway>, needed: u64) -> Option<(&'a str, u64)> {
    let requests = |gateway: &Gateway| (gateway.users.canary.all(), gateway.users.baseline.all());
    let found = gateways.iter().map(|(name, gateway)| (*name, requests(gateway)));
    found
        .filter(|(_, (canary, baseline))| *canary == 0 && *baseline >= needed)
        .map(|(n, (_, b))| (n, b))
        .next()
}

/// The Gateways by name.
fn gateways<'a>(
    canary: &'a [ProxySeries],
    baseline: &'a [ProxySeries],
    probes: &'a [ProbeSeries],
) -> BTreeMap<&'a str, Gateway> {
    let probes: HashMap<(&str, &str), &ProbeSeries> =
        probes.iter().map(|probes| ((probes.gateway.as_str(), probes.pod.as_str()), probes)).collect();
    let mut pods: BTreeMap<&str, [Vec<Pod<'_>>; 2]> = BTreeMap::new();
    for (side, series) in [canary, baseline].into_iter().enumerate() {
        for series in series {
            let probes = probes.get(&(series.gateway.as_str(), series.pod.as_str())).copied();
            pods.entry(&series.gateway).or_default()[side].push(Pod { series, probes });
        }
    }
    let gateway = |(name, [canary, baseline]): (_, [Vec<Pod<'_>>; 2])| {
        let without_probes = canary.iter().chain(&baseline).all(|pod| pod.probes.is_none());
        let users = Timeline::new(&canary, &baseline, Of::Users);
        let probes =
            if without_probes { Timeline::empty() } else { Timeline::new(&canary, &baseline, Of::Probes) };
        (name, Gateway { users, probes })
    };
    pods.into_iter().map(gateway).collect()
}
