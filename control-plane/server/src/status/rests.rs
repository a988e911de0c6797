//! Which statuses rest: those of policies count pods and name some of them, which changes with every pod that starts. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::time::Instant;

/// Between two writes of one object that differ in words and numbers only.
pub const REST: Duration = Duration::from_secs(5);

/// What was written a moment ago.
#[derive(Debug)]
pub struct Rests<T> {
    until: BTreeMap<T, Instant>,
    /// Those that had something to say meanwhile.
    waiting: BTreeSet<T>,
}

impl<T> Default for Rests<T> {
    fn default() -> Self {
        Self { until: BTreeMap::new(), waiting: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Rests<T> {
    /// It was written.
    pub fn written(&mut self, target: &T, now: Instant) {
        self.until.retain(|_, until| now < *until);
        self.until.insert(target.clone(), now + REST);
    }

    /// Whether it has to wait with what is not urgent. If so, [`Self::take_rested`] names it when it has waited.
    pub fn holds(&mut self, target: &T, now: Instant) -> bool {
        let holds = self.until.get(target).is_some_and(|until| now < *until);
        if holds {
            self.waiting.insert(target.clone());
        }
        holds
    }

    /// When the next one has waited for long enough.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|target| self.until.get(target)).min().copied()
    }

    /// Those that have waited for long enough.
    pub fn take_rested(&mut self, now: Instant) -> BTreeSet<T> {
        self.until.retain(|_, until| now < *until);
        let (waiting, rested) =
            std::mem::take(&mut self.waiting).into_iter().partition(|target| self.until.contains_key(target));
        self.waiting = waiting;
        rested
    }
}

/// Whether both sets of conditions say the same in other words.
pub fn is_same_verdict(one: &[&Condition], other: &[&Condition]) -> bool {
    let verdict =
        |of: &Condition| (of.type_.clone(), of.status.clone(), of.reason.clone(), of.observed_generation);
    one.iter().map(|of| verdict(of)).eq(other.iter().map(|of| verdict(of)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_written_waits_with_the_next_one_and_is_not_forgotten() {
        let (mut rests, start) = (Rests::default(), Instant::now());
        assert!(!rests.holds(&"a", start), "it was not written yet");
        rests.written(&"a", start);
        rests.written(&"b", start);
        assert_eq!(rests.next(), None, "nobody waits");
        assert!(rests.holds(&"a", start) && rests.holds(&"a", start + REST / 2));
        assert_eq!(rests.next(), Some(start + REST));
        assert!(rests.take_rested(start + REST / 2).is_empty());
        assert_eq!(rests.take_rested(start + REST), ["a"].into());
        assert!(!rests.holds(&"a", start + REST) && !rests.holds(&"b", start + REST));
        assert!(rests.next().is_none() && rests.until.is_empty());
    }
}
