//! What is compared, and how much of the bound on false alarms each comparison may use.

use super::latency::Quantile;
use super::track::Totals;
use super::verdict::Cause;

/// Events that are counted against what gave rise to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    NoRoute,
    NoHealthyUpstream,
    TlsFailures,
    Errors,
    UpstreamConnectionFailures,
    UpstreamOverflow,
    RetryLimitExceeded,
    ClientErrors,
    /// Requests of the operator's own.
    UnansweredProbes,
    /// Requests that take longer than a quantile of the baseline.
    Slow(Quantile),
}

/// All of them, in the order in which they give the cause when several rose: a lost route is better news than the 404 it leads to.
pub(super) const METRICS: [Metric; 11] = [
    Metric::UnansweredProbes,
    Metric::NoRoute,
    Metric::NoHealthyUpstream,
    Metric::TlsFailures,
    Metric::Errors,
    Metric::UpstreamConnectionFailures,
    Metric::UpstreamOverflow,
    Metric::RetryLimitExceeded,
    Metric::ClientErrors,
    Metric::Slow(Quantile::Median),
    Metric::Slow(Quantile::Tail),
];

impl Metric {
    /// Share of the bound on false alarms. Errors have most of it, because a rise of few errors is the hardest to find; what
    /// fails by the hundred needs little.
    pub fn budget(self) -> f64 {
        match self {
            Self::Errors => 0.7,
            Self::Slow(_) => 0.06,
            Self::NoRoute | Self::NoHealthyUpstream | Self::TlsFailures => 0.02,
            Self::UpstreamConnectionFailures | Self::UnansweredProbes => 0.02,
            Self::UpstreamOverflow | Self::RetryLimitExceeded | Self::ClientErrors => 0.02,
        }
    }

    /// How much two healthy pods may differ for good, as the standard deviation of the logarithm of their rates, before any
    /// difference was seen. Client errors come from clients, and a client stays with its pod. Latency has its own.
    pub fn difference_of_pods(self) -> f64 {
        match self {
            Self::ClientErrors | Self::TlsFailures => 0.3,
            _ => 0.2,
        }
    }

    /// About how many times as much of it a bad canary has.
    pub fn ratio(self) -> f64 {
        match self {
            Self::Slow(_) => 3.0,
            _ => 8.0,
        }
    }

    /// Events among the totals; latencies are not among them.
    pub fn events(self, totals: &Totals) -> u64 {
        match self {
            Self::NoRoute => totals.no_route,
            Self::NoHealthyUpstream => totals.no_healthy_upstream,
            Self::TlsFailures => totals.tls_failures,
            Self::Errors => totals.failed,
            Self::UpstreamConnectionFailures => totals.upstream_connection_failure,
            Self::UpstreamOverflow => totals.upstream_overflow,
            Self::RetryLimitExceeded => totals.retry_limit_exceeded,
            Self::ClientErrors => totals.client_errors,
            Self::UnansweredProbes => totals.unanswered,
            Self::Slow(_) => 0,
        }
    }

    /// What the events are expected to be proportional to. A connection goes to any ready pod alike, so failed handshakes go
    /// by pods; a canary that completes no handshake has no request to count them against.
    pub fn exposure(self, totals: &Totals) -> u64 {
        match self {
            Self::TlsFailures => totals.present,
            Self::UnansweredProbes => totals.probes,
            _ => totals.requests,
        }
    }

    /// What the user's figure is a ratio of.
    pub fn attempts(self, totals: &Totals) -> u64 {
        match self {
            Self::TlsFailures => totals.attempts(),
            Self::UnansweredProbes => totals.probes,
            _ => totals.requests,
        }
    }

    /// Why the canary fails when it rose.
    pub fn cause(self) -> Cause {
        match self {
            Self::NoRoute => Cause::NoRouteRose,
            Self::NoHealthyUpstream => Cause::NoHealthyUpstreamRose,
            Self::TlsFailures => Cause::TlsFailuresRose,
            Self::Errors => Cause::ErrorsRose,
            Self::UpstreamConnectionFailures => Cause::UpstreamConnectionFailuresRose,
            Self::UpstreamOverflow => Cause::UpstreamOverflowRose,
            Self::RetryLimitExceeded => Cause::RetryLimitExceededRose,
            Self::ClientErrors => Cause::ClientErrorsRose,
            Self::UnansweredProbes => Cause::UnansweredProbesRose,
            Self::Slow(Quantile::Median) => Cause::LatencyRose,
            Self::Slow(Quantile::Tail) => Cause::TailLatencyRose,
        }
    }

    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "requests without a route (NR)",
            Self::NoHealthyUpstream => "requests without a healthy upstream (UH)",
            Self::TlsFailures => "failed TLS handshakes",
            Self::Errors => "errors",
            Self::UpstreamConnectionFailures => "failed upstream connections (UF)",
            Self::UpstreamOverflow => "requests refused by circuit breakers (UO)",
            Self::RetryLimitExceeded => "requests that ran out of retries (URX)",
            Self::ClientErrors => "client errors (4xx)",
            Self::UnansweredProbes => "unanswered probes",
            Self::Slow(Quantile::Median) => "median latency",
            Self::Slow(Quantile::Tail) => "95th percentile of the latency",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_share_one_bound() {
        let sum: f64 = METRICS.iter().map(|metric| metric.budget()).sum();
        assert!(sum <= 1.0 + 1e-9, "{sum}");
    }
}
