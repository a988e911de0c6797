//! Whether one metric of one Gateway rose.

use super::comparison::{Cell, Comparison, Stratum};
use super::dispersion::Dispersion;
use super::evidence::Split;
use super::input::Settings;
use super::metric::Metric;
use super::reason;
use super::timeline::Timeline;
use super::verdict::Cause;

/// Of the allowed rise in latency the part that never counts; see [`Settings::max_latency_increase`].
const LATENCY_MARGIN: f64 = 0.5;
/// Of the allowed rise in events the part that raises no doubt.
const DOUBT_MARGIN: f64 = 0.5;
/// Natural logarithm of the evidence that raises doubt: three to one.
const DOUBT: f64 = 1.1;
/// Standard errors within which the increase is taken to lie.
const ERRORS: f64 = 2.0;
/// Healthy pods differ by as much in latency for good: standard deviation of the logarithm.
const LATENCY_OF_PODS: f64 = 0.02;
/// How long a burst lasts that hits one side alone, in seconds. The second is for a canary of one pod: of several pods a client
/// can spoil one, and the others clear the revision.
const BURST_SECONDS: i64 = 30;
const BURST_SECONDS_OF_ONE_POD: i64 = 45;
/// Natural logarithms of the evidence that must be left without the worst burst, and without the worst pod.
const WITHOUT_BURST: f64 = 1.2;
const WITHOUT_POD: f64 = 1.0;
/// A canary that fails this share of its requests is a disaster, and is not given the time of a burst.
const DISASTER: f64 = 0.4;
/// Fewest events and strata of a disaster.
const DISASTER_EVENTS: f64 = 10.0;
const DISASTER_STRATA: usize = 2;
/// A pod that restarts leaves probes without an answer until it is seen to be not ready.
const DISASTER_STRATA_OF_PROBES: usize = 5;
/// Times that are looked at for one: the last two strata, the last half minute, all of the window.
const DISASTER_SECONDS: [i64; 3] = [0, 30, i64::MAX / 2];
/// A baseline that fails more than this part of what the canary fails has the same trouble.
const SAME_TROUBLE: f64 = 0.25;

/// Something that is above what is allowed, or may be.
pub(super) struct Rise {
    /// Beyond chance; otherwise it is only likelier than not.
    pub certain: bool,
    pub cause: Cause,
    pub text: String,
}

impl Rise {
    /// Looks for it. `false_alarms`: the probability with which an equal canary may be found to be certain.
    pub fn find(timeline: &Timeline, metric: Metric, settings: &Settings, false_alarms: f64) -> Option<Self> {
        let comparison = Comparison::new(timeline, metric)?;
        let (margin, unsuspected) = match metric {
            Metric::Slow(_) => {
                let margin = settings.max_latency_increase * LATENCY_MARGIN;
                (margin, margin)
            }
            _ => (settings.max_error_increase, settings.max_error_increase * DOUBT_MARGIN),
        };
        let increase = comparison.increase();
        // Most looks end here, before anything is estimated.
        if increase <= unsuspected {
            return None;
        }
        let assumed = comparison.difference_of_pods(LATENCY_OF_PODS);
        let dispersion = Dispersion::of(&comparison, assumed);
        let needed = -false_alarms.ln();
        let certain = increase > margin
            && (lasts(&comparison, dispersion, needed) || disaster(&comparison, assumed, needed));
        let doubtful = evidence(&comparison, &comparison.strata, dispersion) > DOUBT
            && increase + ERRORS * comparison.error(dispersion.clusters) > margin;
        let rise = || Self { certain, cause: metric.cause(), text: reason::rose(&comparison) };
        (certain || doubtful).then(rise)
    }
}

fn evidence(comparison: &Comparison<'_>, strata: &[Stratum], dispersion: Dispersion) -> f64 {
    Split::of(strata).evidence(comparison.metric.ratio(), dispersion.clusters, dispersion.sides)
}

/// Whether there is enough evidence, and it comes neither from one burst nor from one pod.
fn lasts(comparison: &Comparison<'_>, dispersion: Dispersion, needed: f64) -> bool {
    let [canary, _] = comparison.sides();
    let burst = if canary.pods.len() > 1 { BURST_SECONDS } else { BURST_SECONDS_OF_ONE_POD };
    let evidence = |strata: &[Stratum]| evidence(comparison, strata, dispersion);
    evidence(&comparison.strata) >= needed
        && evidence(&comparison.without_the_worst(burst)) >= WITHOUT_BURST
        && comparison.without_the_worst_pod().is_none_or(|strata| evidence(&strata) >= WITHOUT_POD)
}

/// Whether a great part of the canary's latest requests fails, and the baseline's do not. Bursts of one side do not go that far.
fn disaster(comparison: &Comparison<'_>, assumed: f64, needed: f64) -> bool {
    // Clients may well err that much, half of all requests are slower than the median, and handshakes have no such ratio.
    if matches!(comparison.metric, Metric::Slow(_) | Metric::ClientErrors | Metric::TlsFailures) {
        return false;
    }
    let unanswered = comparison.metric == Metric::UnansweredProbes;
    let fewest = if unanswered { DISASTER_STRATA_OF_PROBES } else { DISASTER_STRATA };
    DISASTER_SECONDS.into_iter().any(|seconds| {
        let strata = comparison.last(seconds);
        let sum = |side: fn(&Stratum) -> Cell| strata.iter().map(side).fold(Cell::default(), Cell::plus);
        let (canary, baseline) = (sum(|stratum| stratum.canary), sum(|stratum| stratum.baseline));
        let independent = Dispersion { clusters: 1.0, sides: 2.0 * assumed * assumed };
        strata.iter().filter(|stratum| stratum.canary.ratio() >= DISASTER).count() >= fewest
            && canary.events >= DISASTER_EVENTS
            && canary.ratio() >= DISASTER
            && baseline.ratio() <= canary.ratio() * SAME_TROUBLE
            && evidence(comparison, strata, independent) >= needed
    })
}
