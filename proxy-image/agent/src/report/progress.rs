//! What is still to be told, and when, without I/O.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::backoff::Backoff;

/// A control plane that does not know reports will know them only when another one has taken its place.
const UNKNOWN: Duration = Duration::from_secs(300);

/// How far one connection is.
#[derive(Debug)]
pub struct Progress {
    /// The newest slot that the control plane has; it may have grown since.
    acknowledged: Option<i64>,
    not_before: Option<Instant>,
    backoff: Backoff,
    failing: bool,
}

impl Default for Progress {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
        Self { acknowledged: None, not_before: None, backoff, failing: false }
    }
}

impl Progress {
    /// On a new connection everything is told again: it may lead to a replica that knows nothing.
    pub fn connected(&mut self) {
        self.acknowledged = None;
    }

    /// Whether to report now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| now >= time)
    }

    /// The slot to report from; none for all. An hour of slots is less than a mebibyte, so this is always one request.
    pub fn since(&self) -> Option<i64> {
        self.acknowledged
    }

    /// The control plane has it all, up to the newest slot of the report.
    pub fn acknowledged(&mut self, newest: Option<i64>) {
        self.acknowledged = newest.or(self.acknowledged);
        self.not_before = None;
        self.backoff.reset();
        self.failing = false;
    }

    /// It was not taken. Returns whether somebody should hear of it.
    pub fn failed(&mut self, code: Code, now: Instant) -> bool {
        if code == Code::Unimplemented {
            self.not_before = Some(now + UNKNOWN);
            return false;
        }
        self.not_before = Some(now + self.backoff.next_delay());
        !std::mem::replace(&mut self.failing, true)
    }
}

#[cfg(test)]
mod tests {
    use meshwright_proto::reports::{Proxy, ReportRequest, Slot};
    use prost::Message;

    use super::*;
    use crate::stats::{ring::Ring, slot::LAST_BUCKET};

    fn ring(starts: &[i64]) -> Ring {
        let mut ring = Ring::default();
        for start in starts {
            ring.add(Slot { start: *start, success: 1, ..Slot::default() }, *start + 5);
        }
        ring
    }

    fn told(progress: &mut Progress, ring: &Ring) -> Vec<i64> {
        let slots: Vec<_> = ring.since(progress.since()).iter().map(|slot| slot.start).collect();
        progress.acknowledged(slots.last().copied());
        slots
    }

    #[test]
    fn what_is_known_is_told_once_and_all_of_it_again_after_a_reconnect() {
        let mut progress = Progress::default();
        assert_eq!(told(&mut progress, &ring(&[5, 10, 15])), [5, 10, 15]);
        assert_eq!(told(&mut progress, &ring(&[5, 10, 15])), [15], "it may have grown");
        assert_eq!(told(&mut progress, &ring(&[5, 10, 15, 20])), [15, 20]);
        assert_eq!(told(&mut progress, &ring(&[])), [0; 0]);
        assert_eq!(told(&mut progress, &ring(&[20, 25])), [20, 25]);
        progress.failed(Code::Unavailable, Instant::now());
        assert_eq!(told(&mut progress, &ring(&[20, 25, 30])), [25, 30]);
        progress.connected();
        assert_eq!(told(&mut progress, &ring(&[10, 15, 20])), [10, 15, 20]);
    }

    #[test]
    fn failures_are_told_once_and_tried_again_ever_later() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(progress.is_due(now));
        assert!(progress.failed(Code::PermissionDenied, now));
        assert!(!progress.is_due(now) && progress.is_due(now + 5 * second));
        for _ in 0..10 {
            assert!(!progress.failed(Code::PermissionDenied, now), "once is enough");
        }
        assert!(!progress.is_due(now + 29 * second) && progress.is_due(now + 60 * second));
        progress.acknowledged(None);
        assert!(progress.is_due(now));
        assert!(progress.failed(Code::Unavailable, now));
    }

    #[test]
    fn a_control_plane_without_reports_is_left_alone_for_minutes_even_on_a_new_connection() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        assert!(!progress.failed(Code::Unimplemented, now), "it is no failure");
        progress.connected();
        assert!(!progress.is_due(now + UNKNOWN - Duration::from_secs(1)));
        assert!(progress.is_due(now + UNKNOWN));
    }

    #[test]
    fn the_largest_report_is_less_than_a_mebibyte() {
        let mut ring = Ring::default();
        let latency: Vec<_> = (0..=LAST_BUCKET).map(|bucket| (bucket, u64::MAX)).collect();
        for start in (1_800_000_000..).step_by(5).take(1000) {
            let slot = Slot {
                start,
                informational: u64::MAX,
                success: u64::MAX,
                redirection: u64::MAX,
                client_error: u64::MAX,
                server_error: u64::MAX,
                upstream_connection_failure: u64::MAX,
                no_route: u64::MAX,
                no_healthy_upstream: u64::MAX,
                retry_limit_exceeded: u64::MAX,
                upstream_overflow: u64::MAX,
                tls_failures: u64::MAX,
                connections: u64::MAX,
                latency: latency.iter().copied().collect(),
            };
            ring.add(slot, start + 4);
        }
        let slots = ring.since(Progress::default().since());
        assert_eq!(slots.len(), 720);
        let name = "a".repeat(253);
        let proxy = Proxy { pod_name: name.clone(), gateway_name: name, ..Proxy::default() };
        assert!(ReportRequest { proxy: Some(proxy), slots }.encoded_len() < 1 << 20);
    }
}
