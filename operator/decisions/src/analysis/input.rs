//! What a judgement is made of.

use std::collections::BTreeMap;

/// Seconds that a slot covers.
pub const SLOT_SECONDS: i64 = 5;

/// What one proxy reported in the window that is judged. Slots without traffic may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySeries {
    /// The Gateway it belongs to, as `namespace/name`. Gateways are judged each on its own: their traffic differs, and so
    /// does the canary's share of it, so a sum over them could rise without any of them rising.
    pub gateway: String,
    /// Its pod.
    pub pod: String,
    /// What happened, each start at most once.
    pub slots: Vec<Slot>,
}

impl ProxySeries {
    /// Its slots from then on, in Unix seconds.
    pub(super) fn since(&self, from: i64) -> Self {
        let slots = self.slots.iter().filter(|slot| slot.start >= from).cloned().collect();
        Self { gateway: self.gateway.clone(), pod: self.pod.clone(), slots }
    }
}

/// What happened within [`SLOT_SECONDS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slot {
    /// Unix seconds, a multiple of [`SLOT_SECONDS`].
    pub start: i64,
    /// Requests that ended.
    pub requests: u64,
    /// Those answered with 5xx.
    pub failed: u64,
    /// Those answered with 4xx.
    pub client_errors: u64,
    /// Envoy's response flags.
    pub flags: Flags,
    /// Handshakes that failed, with clients and with backends.
    pub tls_failures: u64,
    /// Requests by bucket; bucket `i` holds what took at most [`bucket_end`] of `i` and longer than that of `i - 1`.
    pub latency: BTreeMap<u32, u64>,
}

/// What the operator's own requests to one pod came to. They go to each pod alike, however much of the users' traffic it has, so
/// they would hide what happens to users, and a pod with few users would look worse for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeSeries {
    /// The pod's Gateway, as in its [`ProxySeries`].
    pub gateway: String,
    /// The pod, as in its [`ProxySeries`]; without one there it counts for nothing.
    pub pod: String,
    /// What happened, each start at most once.
    pub slots: Vec<ProbeSlot>,
}

impl ProbeSeries {
    /// Its slots from then on, in Unix seconds.
    pub(super) fn since(&self, from: i64) -> Self {
        let slots = self.slots.iter().filter(|slot| slot.start >= from).copied().collect();
        Self { gateway: self.gateway.clone(), pod: self.pod.clone(), slots }
    }
}

/// What probes that began within [`SLOT_SECONDS`] came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeSlot {
    /// Unix seconds, a multiple of [`SLOT_SECONDS`]; the proxy's clock may be some seconds off.
    pub start: i64,
    /// Those whose end is known.
    pub sent: u64,
    /// Those for a host without a route, which the proxy answered with 404 and counted. They are taken out of what it counted.
    pub unrouted: u64,
    /// Those without an answer, which no proxy counted.
    pub unanswered: u64,
}

/// How often Envoy set a response flag, or counted what the flag stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// UF.
    pub upstream_connection_failure: u64,
    /// NR.
    pub no_route: u64,
    /// UH.
    pub no_healthy_upstream: u64,
    /// URX.
    pub retry_limit_exceeded: u64,
    /// UO.
    pub upstream_overflow: u64,
}

/// Longest latency of a bucket, in milliseconds.
pub fn bucket_end(bucket: u32) -> f64 {
    0.5 * 1.25_f64.powf(f64::from(bucket))
}

/// What the user allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// So much more of the canary's requests may fail, as a ratio of requests: 0.005 for half a percent.
    pub max_error_increase: f64,
    /// So much longer the canary's requests may take, as a ratio of the baseline's latency. A rise by this much is found, so
    /// one by half of it counts already when it is certain; less never counts.
    pub max_latency_increase: f64,
    /// Fewest requests of the canary, and of the baseline, that pass.
    pub min_requests: u64,
}

/// Of how many judgements this is one: they share the bound on false alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Steps of the upgrade that are judged. Looks on the same window need no count.
    pub steps: usize,
    /// Which part of the step.
    pub window: Window,
}

impl Look {
    /// Its part of the bound on false alarms. All parts of an upgrade together are one.
    pub(super) fn part(self) -> f64 {
        let steps = self.steps.max(1) as f64;
        match self.window {
            Window::Step => 0.95 / steps,
            Window::Before => 0.025 / (steps + 1.0),
            Window::Later(n) => 0.025 / steps / (f64::from(n.max(1)) * (f64::from(n.max(1)) + 1.0)),
        }
    }
}

/// What of a step is judged. Only [`Window::Step`] can say that it may go on; a Fail counts wherever it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// From when the step is in place.
    Step,
    /// While gateways follow: some of them have new pods already. There is one before each step and one before the end.
    Before,
    /// The n-th piece after the first, from 1: in a step that waits for long, what was good hides what turns bad.
    Later(u32),
}

/// Seconds of such a piece.
pub(super) const PIECE_SECONDS: i64 = 600;
