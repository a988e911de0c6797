//! Waiting longer after each failure in a row, never in step with others.

use std::time::Duration;

use rand::Rng;

/// What ran this long did not fail because of how it was started.
const STABLE: Duration = Duration::from_secs(60);

/// Exponential, with jitter between half and all of the delay.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays start at about `first` and end at `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// After something that ran for this time and ended: whatever ended it, to run for long is a success.
    pub fn ran_for(&mut self, time: Duration) {
        if is_success(time) {
            self.reset();
        }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

fn is_success(ran_for: Duration) -> bool {
    ran_for >= STABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_for_long_is_a_success_and_what_ended_soon_is_not() {
        assert!(!is_success(Duration::ZERO));
        assert!(!is_success(STABLE - Duration::from_millis(1)));
        assert!(is_success(STABLE));
    }

    #[test]
    fn delays_grow_with_failures_and_begin_anew_after_a_success() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 15 * second);
        let delays: Vec<_> = (0..6).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= second && delays[5] >= 15 * second / 2 && delays[5] <= 15 * second);
        backoff.ran_for(second);
        assert!(backoff.next_delay() > second);
        backoff.ran_for(STABLE);
        assert!(backoff.next_delay() <= second);
    }
}
