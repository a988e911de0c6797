//! DOCS

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
mod verdict;

use std::collections::BTreeMap;

pub use input::{Flags, Look, ProxySeries, SLOT_SECONDS, Settings, Slot, bucket_end};
pub use verdict::{Cause, Verdict, VerdictResult};

use metric::METRICS;
use reason::thousands;
use rise::Rise;
use timeline::Timeline;

/// Bound on the probability that an upgrade to an equal revision is rolled back.
const FALSE_ALARMS: f64 = 0.01;

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
        for metric in METRICS {
            let false_alarms = FALSE_ALARMS * metric.budget() / judgements as f64;
            let Some(rise) = Rise::find(timeline, metric, settings, false_alarms) else { continue };
            let text = if timelines.len() > 1 { format!("Gateway {gateway}: {}", rise.text) } else { rise.text };
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
    if let Some((gateway, requests)) = unserved(&timelines, needed) {
        let reason = format!("Gateway {gateway}: no request of the canary, {} of the baseline", thousands(requests));
        return verdict(VerdictResult::Insufficient, Cause::TooFewRequests, reason);
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

/// A Gateway whose canary serves nothing while its baseline serves enough: other Gateways' requests say nothing about it.
fn unserved<'a>(timelines: &BTreeMap<&'a str, Timeline>, needed: u64) -> Option<(&'a str, u64)> {
    let requests = |timeline: &Timeline| (timeline.canary.requests(), timeline.baseline.requests());
    let found = timelines.iter().map(|(gateway, timeline)| (*gateway, requests(timeline)));
    found.filter(|(_, (canary, baseline))| *canary == 0 && *baseline >= needed).map(|(g, (_, b))| (g, b)).next()
}

/// Both sides of each Gateway, by its name.
fn timelines<'a>(canary: &'a [ProxySeries], baseline: &'a [ProxySeries]) -> BTreeMap<&'a str, Timeline> {
    let mut gateways: BTreeMap<&str, [Vec<&ProxySeries>; 2]> = BTreeMap::new();
    for (side, series) in [canary, baseline].into_iter().enumerate() {
        for series in series {
            gateways.entry(&series.gateway).or_default()[side].push(series);
        }
    }
    let timeline = |(gateway, [canary, baseline]): (_, [Vec<_>; 2])| (gateway, Timeline::new(&canary, &baseline));
    gateways.into_iter().map(timeline).collect()
}
