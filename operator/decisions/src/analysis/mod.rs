//! DOCS
mod comparison;
mod dispersion;
mod evidence;
mod input;
mod latency;
mod metric;
mod reason;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;

use std::collections::BTreeMap;

pub use input::{Flags, Look, ProxySeries, SLOT_SECONDS, Settings, Slot, bucket_end};
pub use verdict::{Cause, Verdict, VerdictResult};

use comparison::{Comparison, Stratum};
use dispersion::Dispersion;
use evidence::Split;
use metric::{METRICS, Metric};
use reason::thousands;
use timeline::Timeline;

/// Bound on the probability that an upgrade to an equal revision is rolled back.
const FALSE_ALARMS: f64 = 0.01;
/// A share of the allowed rise in latency that never counts; see [`Settings::max_latency_increase`].
const LATENCY_MARGIN: f64 = 0.5;
/// Two healthy pods may differ by as much in latency for good: standard deviation of the logarithm.
const LATENCY_OF_PODS: f64 = 0.03;
/// A burst that hits one side alone lasts no longer, in seconds. Without the worst time of this length there must still be
/// some evidence.
const BURST_SECONDS: i64 = 30;
/// Natural logarithm of the evidence that must be left without it: one to five.
const EVIDENCE_WITHOUT_BURST: f64 = 1.6;
/// A canary that fails this share of its requests is a disaster, and is not given the time of a burst.
const DISASTER: f64 = 0.4;
/// Fewest events and strata of a disaster.
const DISASTER_EVENTS: f64 = 10.0;
const DISASTER_STRATA: usize = 2;
/// A baseline that fails more than this part of what the canary fails has the same trouble.
const SAME_TROUBLE: f64 = 0.25;

/// Judges a canary against its baseline on the window of one step. It is meant to be called again and again while the window
/// grows; the bound on false alarms holds over all calls.
pub fn judge(canary: &[ProxySeries], baseline: &[ProxySeries], settings: &Settings, look: &Look) -> Verdict {
    let timelines = timelines(canary, baseline);
    let canary_requests = timelines.values().map(|timeline| timeline.canary.requests()).sum();
    let baseline_requests = timelines.values().map(|timeline| timeline.baseline.requests()).sum();
    let verdict = |result, cause, reason| Verdict { result, cause, reason, canary_requests, baseline_requests };

    let judgements = timelines.len().max(1) * look.steps.max(1);
    let mut doubt = None;
    for (gateway, timeline) in &timelines {
        for rise in METRICS.iter().filter_map(|metric| rise(timeline, *metric, settings, judgements)) {
            let text = if timelines.len() > 1 { format!("Gateway {gateway}: {}", rise.text) } else { rise.text };
            if rise.certain {
                return verdict(VerdictResult::Fail, rise.cause, text);
            }
            doubt.get_or_insert(text);
        }
    }
    let needed = settings.min_requests.max(1);
    if canary_requests > 0 && baseline_requests == 0 {
        let requests = thousands(canary_requests);
        let reason = format!("the baseline has no requests to compare {requests} of the canary with");
        return verdict(VerdictResult::Insufficient, Cause::NoBaseline, reason);
    }
    if canary_requests < needed || baseline_requests < needed {
        let (canary, baseline) = (thousands(canary_requests), thousands(baseline_requests));
        let needed = thousands(needed);
        let reason = format!("{canary} requests of the canary and {baseline} of the baseline, of at least {needed} each");
        return verdict(VerdictResult::Insufficient, Cause::TooFewRequests, reason);
    }
    if let Some(doubt) = doubt {
        let reason = format!("{doubt}, which may be chance");
        return verdict(VerdictResult::Insufficient, Cause::InDoubt, reason);
    }
    let all: Vec<&Timeline> = timelines.values().collect();
    verdict(VerdictResult::Pass, Cause::NothingRose, reason::nothing_rose(&all))
}

/// The Gateways by name.
fn timelines(canary: &[ProxySeries], baseline: &[ProxySeries]) -> BTreeMap<String, Timeline> {
    let mut gateways: BTreeMap<&str, [Vec<&ProxySeries>; 2]> = BTreeMap::new();
    for (side, series) in [canary, baseline].into_iter().enumerate() {
        for series in series {
            gateways.entry(&series.gateway).or_default()[side].push(series);
        }
    }
    gateways
        .into_iter()
        .map(|(gateway, [canary, baseline])| (gateway.to_owned(), Timeline::new(&canary, &baseline)))
        .collect()
}

/// Something above what is allowed.
struct Rise {
    /// Beyond chance; otherwise it is only likelier than not.
    certain: bool,
    cause: Cause,
    text: String,
}

fn rise(timeline: &Timeline, metric: Metric, settings: &Settings, judgements: usize) -> Option<Rise> {
    let comparison = Comparison::new(timeline, metric)?;
    let (allowed, margin) = match metric {
        Metric::Slow(_) => (settings.max_latency_increase, settings.max_latency_increase * LATENCY_MARGIN),
        _ => (settings.max_error_increase, settings.max_error_increase),
    };
    let increase = comparison.increase();
    // Most looks end here, before anything is estimated.
    if increase <= margin {
        return None;
    }
    let needed = (judgements as f64 / (FALSE_ALARMS * metric.budget())).ln();
    let difference = comparison.difference_of_pods(LATENCY_OF_PODS);
    let dispersion = Dispersion::of(&comparison, difference);
    let evidence = |strata: &[Stratum]| Split::of(strata).evidence(dispersion.clusters, dispersion.sides);
    let whole = evidence(&comparison.strata);
    let lasting = whole >= needed
        && evidence(&comparison.without_the_worst(BURST_SECONDS)) >= EVIDENCE_WITHOUT_BURST;
    let certain = lasting || disaster(&comparison, difference * difference, needed);
    if !certain && (whole <= 0.0 || increase <= allowed) {
        return None;
    }
    Some(Rise { certain, cause: metric.cause(), text: reason::rose(&comparison) })
}

/// Whether a great part of the canary's latest requests fails, and the baseline's do not. Bursts of one side do not go that far.
fn disaster(comparison: &Comparison<'_>, difference: f64, needed: f64) -> bool {
    if matches!(comparison.metric, Metric::Slow(_) | Metric::ClientErrors | Metric::TlsFailures) {
        return false;
    }
    [0, BURST_SECONDS, i64::MAX / 2].into_iter().any(|seconds| {
        let strata = comparison.last(seconds);
        let canary = strata.iter().fold(comparison::Cell::default(), |sum, s| sum.plus(s.canary));
        let baseline = strata.iter().fold(comparison::Cell::default(), |sum, s| sum.plus(s.baseline));
        strata.iter().filter(|s| s.canary.ratio() >= DISASTER).count() >= DISASTER_STRATA
            && canary.events >= DISASTER_EVENTS
            && canary.ratio() >= DISASTER
            && baseline.ratio() <= canary.ratio() * SAME_TROUBLE
            && Split::of(strata).evidence(1.0, 2.0 * difference) >= needed
    })
}
