//! What happened at one pod, or at all pods of a side, stratum by stratum.

use super::input::Slot;

/// No proxy has as many requests in a slot; what claims to is cut, so that no sum overflows.
pub(super) const MOST: u64 = 1 << 30;
/// Latencies above the end of this bucket (five minutes) count as this bucket.
const LAST_BUCKET: u32 = 60;
/// Number of buckets.
pub(super) const BUCKETS: usize = LAST_BUCKET as usize + 1;

/// What happened in a stratum, except latencies; of users, except what is said to be of probes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub requests: u64,
    pub failed: u64,
    pub client_errors: u64,
    pub upstream_connection_failure: u64,
    pub no_route: u64,
    pub no_healthy_upstream: u64,
    pub retry_limit_exceeded: u64,
    pub upstream_overflow: u64,
    pub tls_failures: u64,
    /// Slots in which the pod was there.
    pub present: u64,
    /// Probes whose end is known.
    pub probes: u64,
    /// Those without an answer.
    pub unanswered: u64,
    /// Requests of users, and probes.
    pub all: u64,
}

impl Totals {
    /// Requests, and handshakes that never became one.
    pub fn attempts(&self) -> u64 {
        self.requests + self.tls_failures
    }

    /// `probes`: how many of its requests are the operator's own, which found no route.
    fn add(&mut self, slot: &Slot, probes: u64) {
        let users = |count: u64| count.min(MOST).saturating_sub(probes);
        self.requests += users(slot.requests);
        self.failed += slot.failed.min(MOST);
        self.client_errors += users(slot.client_errors);
        self.upstream_connection_failure += slot.flags.upstream_connection_failure.min(MOST);
        self.no_route += users(slot.flags.no_route);
        self.no_healthy_upstream += slot.flags.no_healthy_upstream.min(MOST);
        self.retry_limit_exceeded += slot.flags.retry_limit_exceeded.min(MOST);
        self.upstream_overflow += slot.flags.upstream_overflow.min(MOST);
        self.tls_failures += slot.tls_failures.min(MOST);
        self.all += slot.requests.min(MOST);
    }

    /// Adds those of another stratum, pod or Gateway.
    pub fn add_totals(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.client_errors += other.client_errors;
        self.upstream_connection_failure += other.upstream_connection_failure;
        self.no_route += other.no_route;
        self.no_healthy_upstream += other.no_healthy_upstream;
        self.retry_limit_exceeded += other.retry_limit_exceeded;
        self.upstream_overflow += other.upstream_overflow;
        self.tls_failures += other.tls_failures;
        self.present += other.present;
        self.probes += other.probes;
        self.unanswered += other.unanswered;
        self.all += other.all;
    }
}

/// A pod, or a whole side, stratum by stratum.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub totals: Vec<Totals>,
    /// Of each stratum all buckets, one after the other.
    latency: Vec<u64>,
}

impl Track {
    pub fn new(strata: usize) -> Self {
        Self { totals: vec![Totals::default(); strata], latency: vec![0; strata * BUCKETS] }
    }

    /// Buckets of a stratum.
    pub fn latency(&self, stratum: usize) -> &[u64] {
        self.latency.get(stratum * BUCKETS..(stratum + 1) * BUCKETS).unwrap_or_default()
    }

    /// Buckets of the whole window.
    pub fn histogram(&self) -> [u64; BUCKETS] {
        let mut sum = [0; BUCKETS];
        for stratum in self.latency.chunks_exact(BUCKETS) {
            sum.iter_mut().zip(stratum).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// Adds another one of the same strata.
    pub fn add(&mut self, other: &Self) {
        self.totals.iter_mut().zip(&other.totals).for_each(|(sum, totals)| sum.add_totals(totals));
        self.latency.iter_mut().zip(&other.latency).for_each(|(sum, count)| *sum += count);
    }

    /// Adds what a proxy reported. The operator's own requests found no route, so they were the quickest.
    pub fn add_slot(&mut self, stratum: usize, slot: &Slot, probes: u64) {
        if let Some(totals) = self.totals.get_mut(stratum) {
            totals.add(slot, probes);
        }
        let mut left = probes;
        for (&bucket, &requests) in &slot.latency {
            let requests = requests.min(MOST);
            let users = requests.saturating_sub(left);
            left -= requests - users;
            let at = stratum * BUCKETS + bucket.min(LAST_BUCKET) as usize;
            if let Some(sum) = self.latency.get_mut(at) {
                *sum += users;
            }
        }
    }
}
