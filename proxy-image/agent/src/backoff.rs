//! Waiting longer after each failure in a row, never in step with others.

use std::time::Duration;

use rand::Rng;

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

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}
