//! A slot of a report in few bytes: tens of thousands of them are kept.

use meshwright_decisions::analysis::{Flags, Slot as Judged};
use meshwright_proto::reports::Slot;

/// What happened at a proxy within five seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// When it was reported; Unix seconds.
    pub reported: i64,
    /// Responses with 1xx, 2xx or 3xx.
    pub answered: u32,
    /// Responses with 4xx.
    pub client_errors: u32,
    /// Responses with 5xx.
    pub failed: u32,
    /// Envoy's response flags.
    pub flags: Flags,
    /// Handshakes that failed.
    pub tls_failures: u32,
    /// Bucket and count, in order, without empty buckets.
    pub latency: Box<[(u32, u32)]>,
}

impl Traffic {
    /// Of a slot that was reported then.
    pub fn new(slot: &Slot, reported: i64) -> Self {
        let answered = [slot.informational, slot.success, slot.redirection];
        let mut latency: Vec<_> =
            slot.latency.iter().map(|(bucket, requests)| (*bucket, count(*requests))).collect();
        latency.retain(|(_, requests)| *requests > 0);
        latency.sort_unstable();
        let flag = |times| u64::from(count(times));
        Self {
            reported,
            answered: count(answered.into_iter().fold(0, u64::saturating_add)),
            client_errors: count(slot.client_error),
            failed: count(slot.server_error),
            flags: Flags {
                upstream_connection_failure: flag(slot.upstream_connection_failure),
                no_route: flag(slot.no_route),
                no_healthy_upstream: flag(slot.no_healthy_upstream),
                retry_limit_exceeded: flag(slot.retry_limit_exceeded),
                upstream_overflow: flag(slot.upstream_overflow),
            },
            tls_failures: count(slot.tls_failures),
            latency: latency.into_boxed_slice(),
        }
    }

    /// Requests that were answered, well or not.
    pub fn requests(&self) -> u64 {
        u64::from(self.answered) + u64::from(self.client_errors) + u64::from(self.failed)
    }

    /// As the judge takes it.
    pub fn judged(&self, start: i64) -> Judged {
        Judged {
            start,
            requests: self.requests(),
            failed: self.failed.into(),
            client_errors: self.client_errors.into(),
            flags: self.flags,
            tls_failures: self.tls_failures.into(),
            latency: self.latency.iter().map(|(bucket, requests)| (*bucket, u64::from(*requests))).collect(),
        }
    }
}

// Nobody counts more within five seconds. A control plane that says so is broken, and must not break sums here.
fn count(times: u64) -> u32 {
    u32::try_from(times).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_cannot_be_stays_one_that_can_be_summed_up() {
        let slot = Slot { success: u64::MAX, redirection: 1, server_error: u64::MAX, ..Slot::default() };
        assert_eq!(Traffic::new(&slot, 0).requests(), 2 * u64::from(u32::MAX));
    }

    #[test]
    fn every_class_of_response_is_a_request_and_buckets_without_one_are_left_out() {
        let slot = Slot {
            informational: 1,
            success: 2,
            redirection: 4,
            client_error: 8,
            server_error: 16,
            latency: [(7, 30), (3, 1), (5, 0)].into(),
            ..Slot::default()
        };
        let judged = Traffic::new(&slot, 0).judged(50);
        assert_eq!((judged.start, judged.requests, judged.failed, judged.client_errors), (50, 31, 16, 8));
        assert_eq!(judged.latency, [(3, 1), (7, 30)].into());
    }
}
