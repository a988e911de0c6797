//! What a judgement comes to.

use std::fmt;

/// What is said of the canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may go on.
    pub result: VerdictResult,
    /// Why, in one word.
    pub cause: Cause,
    /// Why, in one sentence with the figures.
    pub reason: String,
    /// Requests of the canary in the window, probes among them.
    pub canary_requests: u64,
    /// Requests of the baseline in the window, probes among them.
    pub baseline_requests: u64,
    /// Requests of users to the canary.
    pub canary_users: u64,
    /// Requests of users to the baseline.
    pub baseline_users: u64,
}

/// Whether the canary may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VerdictResult {
    /// Enough requests, and nothing rose.
    Pass,
    /// Something rose beyond chance and beyond what is allowed.
    Fail,
    /// Too little is known yet.
    Insufficient,
}

/// Why a verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Pass.
    NothingRose,
    /// Insufficient: fewer requests than the minimum.
    TooFewRequests,
    /// Insufficient: the canary has requests, the baseline has none to compare them with.
    NoBaseline,
    /// Insufficient: something is above what is allowed, and may yet be chance.
    InDoubt,
    /// Fail: more requests are answered with 5xx.
    ErrorsRose,
    /// Fail: more requests are answered with 4xx.
    ClientErrorsRose,
    /// Fail: more requests find no route.
    NoRouteRose,
    /// Fail: more requests find no healthy upstream.
    NoHealthyUpstreamRose,
    /// Fail: more connections to upstreams fail.
    UpstreamConnectionFailuresRose,
    /// Fail: more requests run out of retries.
    RetryLimitExceededRose,
    /// Fail: more requests meet a full circuit breaker.
    UpstreamOverflowRose,
    /// Fail: more handshakes fail.
    TlsFailuresRose,
    /// Fail: more probes get no answer.
    UnansweredProbesRose,
    /// Fail: the median latency rose.
    LatencyRose,
    /// Fail: the 95th percentile of the latency rose.
    TailLatencyRose,
}

impl Cause {
    /// The word that stands in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NothingRose => "NothingRose",
            Self::TooFewRequests => "TooFewRequests",
            Self::NoBaseline => "NoBaseline",
            Self::InDoubt => "InDoubt",
            Self::ErrorsRose => "ErrorsRose",
            Self::ClientErrorsRose => "ClientErrorsRose",
            Self::NoRouteRose => "NoRouteRose",
            Self::NoHealthyUpstreamRose => "NoHealthyUpstreamRose",
            Self::UpstreamConnectionFailuresRose => "UpstreamConnectionFailuresRose",
            Self::RetryLimitExceededRose => "RetryLimitExceededRose",
            Self::UpstreamOverflowRose => "UpstreamOverflowRose",
            Self::TlsFailuresRose => "TlsFailuresRose",
            Self::UnansweredProbesRose => "UnansweredProbesRose",
            Self::LatencyRose => "LatencyRose",
            Self::TailLatencyRose => "TailLatencyRose",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
