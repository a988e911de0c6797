//! How the canary's control plane is, against the baseline's: from samples of each replica's counters over time. Every bound is
//! far from what healthy replicas do, because a finding rolls the upgrade back: what these checks are for (a leak, refused
//! configuration, a loop of crashes) goes far beyond them within minutes.

mod memory;
mod replicas;
#[cfg(test)]
mod tests;

use std::fmt;

use replicas::{Change, change};

/// A replica of a control plane at one moment. Counters are since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicaHealth {
    /// Its pod.
    pub pod: String,
    /// Unix seconds of the sample.
    pub at: i64,
    /// Unix seconds at which its process started.
    pub started: i64,
    /// Memory that the process holds.
    pub resident_bytes: u64,
    /// Configuration that proxies refused.
    pub configurations_refused: u64,
    /// xDS streams that proxies opened.
    pub streams_opened: u64,
    /// xDS streams that are open.
    pub open_streams: u64,
    /// Snapshots that it made.
    pub translations: u64,
    /// Seconds that these took together.
    pub translation_seconds: f64,
}

/// Something wrong with the canary's control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In one word.
    pub cause: Cause,
    /// In one sentence with the figures.
    pub reason: String,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Its processes end and start again.
    Restarts,
    /// Proxies refuse its configuration.
    ConfigurationRefused,
    /// Its memory grows without an end.
    MemoryGrows,
    /// Its streams end and are opened again.
    StreamsReopened,
    /// It takes long to make configuration of changes.
    TranslationsSlow,
}

impl Cause {
    /// The word that stands in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarts => "ControlPlaneRestarts",
            Self::ConfigurationRefused => "ConfigurationRefused",
            Self::MemoryGrows => "ControlPlaneMemoryGrows",
            Self::StreamsReopened => "StreamsReopened",
            Self::TranslationsSlow => "TranslationsSlow",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Restarts of processes within their pods. One may be a node's doing; a pod that was deleted comes back under another name and
/// is none.
const RESTARTS: u64 = 2;
/// The canary's refused configuration counts when the baseline's proxies refuse none; where they refuse some too (a user's
/// object may be to blame), it must be this many times as much, and this much.
const REFUSED_FACTOR: u64 = 3;
const REFUSED_BESIDE_BASELINE: u64 = 10;
/// Seconds for which that must hold: of what a user writes the canary's proxies may be the first to hear.
const REFUSED_FOR: i64 = 10;
/// A stream is opened again when a replica or a node goes away; three times within the window is no coincidence.
const REOPENED_PER_STREAM: f64 = 3.0;
const REOPENED: f64 = 6.0;
/// As many times as much as the baseline's streams.
const REOPENED_FACTOR: f64 = 3.0;
/// Mean seconds of a translation, and as many times the baseline's mean.
const SLOW_SECONDS: f64 = 1.0;
const SLOW_FACTOR: f64 = 3.0;
/// Fewer translations have no mean worth the name.
const TRANSLATIONS: u64 = 5;

/// What is wrong with the canary's control plane and not with the baseline's. The samples are those since the canary was ready,
/// of both revisions, in any order.
pub fn examine(canary: &[ReplicaHealth], baseline: &[ReplicaHealth]) -> Option<Finding> {
    let (now, before) = (change(canary), change(baseline));
    restarts(&now, &before)
        .or_else(|| {
            // Up to when both were seen: of a baseline that does not answer nobody knows what it gives its proxies.
            let until = |samples: &[ReplicaHealth]| samples.iter().map(|sample| sample.at).max();
            configuration_refused(&now, &before, until(canary)?.min(until(baseline)?))
        })
        .or_else(|| memory::grows(canary, baseline))
        .or_else(|| streams_reopened(&now, &before))
        .or_else(|| translations_slow(&now, &before))
}

fn restarts(canary: &Change, baseline: &Change) -> Option<Finding> {
    let (now, before) = (canary.restarts, baseline.restarts);
    let reason = format!("the new control plane restarted {now} times, the old one {before} times");
    (now >= RESTARTS + before).then_some(Finding { cause: Cause::Restarts, reason })
}

fn configuration_refused(canary: &Change, baseline: &Change, until: i64) -> Option<Finding> {
    if until - canary.refused_since? < REFUSED_FOR {
        return None;
    }
    let (now, before) = (canary.configurations_refused, baseline.configurations_refused);
    let more = now > before * REFUSED_FACTOR && now >= REFUSED_BESIDE_BASELINE;
    let times = if now == 1 { "once" } else { &format!("{now} times") };
    let reason = format!(
        "proxies refused the new control plane's configuration {times}, the old one's {before} times"
    );
    (now > 0 && before == 0 || more).then_some(Finding { cause: Cause::ConfigurationRefused, reason })
}

fn streams_reopened(canary: &Change, baseline: &Change) -> Option<Finding> {
    let (now, before) = (canary.reopened_per_stream(), baseline.reopened_per_stream());
    let reason = format!(
        "each xDS stream of the new control plane was opened again {now:.1} times, of the old one {before:.1} times"
    );
    let found =
        canary.reopened() >= REOPENED && now >= REOPENED_PER_STREAM && now >= before * REOPENED_FACTOR;
    found.then_some(Finding { cause: Cause::StreamsReopened, reason })
}

fn translations_slow(canary: &Change, baseline: &Change) -> Option<Finding> {
    if canary.translations < TRANSLATIONS || baseline.translations < TRANSLATIONS {
        return None;
    }
    let (now, before) = (canary.translation_mean(), baseline.translation_mean());
    let reason = format!(
        "the new control plane takes {now:.2} s from a change to its configuration, the old one {before:.2} s"
    );
    (now >= SLOW_SECONDS && now >= before * SLOW_FACTOR)
        .then_some(Finding { cause: Cause::TranslationsSlow, reason })
}
