//! Which certificates are due, without I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::backoff::Backoff;

/// At least this long between two certificates of one identity: near the issuer's end each is due again as soon as it is there.
const LEAST: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Entry {
    has_one: bool,
    under_way: bool,
    due: Instant,
    /// The same by the wall clock, for what is there: it goes on while the machine is paused.
    renew: Option<Timestamp>,
    backoff: Backoff,
}

/// What is wanted, what is there, what is under way.
#[derive(Debug, Default)]
pub struct Plan(BTreeMap<String, Entry>);

impl Plan {
    /// These identities need one, and no others. Returns those that need none any more.
    pub fn want(&mut self, wanted: &BTreeSet<String>, now: Instant) -> Vec<String> {
        for identity in wanted {
            self.0.entry(identity.clone()).or_insert_with(|| Entry {
                has_one: false,
                under_way: false,
                due: now,
                renew: None,
                backoff: Backoff::new(Duration::from_millis(250), Duration::from_secs(30)),
            });
        }
        let forgotten = self.0.extract_if(.., |identity, _| !wanted.contains(identity));
        forgotten.map(|(identity, _)| identity).collect()
    }

    /// Whether somebody still needs one for it.
    pub fn wants(&self, identity: &str) -> bool {
        self.0.contains_key(identity)
    }

    /// What to ask for now: first what has none, so that renewals keep no pod waiting.
    pub fn begin(&mut self, now: Instant, at_once: usize) -> Vec<String> {
        let under_way = self.0.values().filter(|entry| entry.under_way).count();
        let mut due: Vec<_> =
            self.0.iter_mut().filter(|(_, entry)| !entry.under_way && entry.due <= now).collect();
        due.sort_by_key(|(_, entry)| (entry.has_one, entry.due));
        let begun = due.into_iter().take(at_once.saturating_sub(under_way));
        begun
            .map(|(identity, entry)| {
                entry.under_way = true;
                identity.clone()
            })
            .collect()
    }

    /// There is one now, to be renewed then.
    pub fn signed(&mut self, identity: &str, renew: Instant) {
        if let Some(entry) = self.0.get_mut(identity) {
            (entry.has_one, entry.under_way) = (true, false);
            entry.due = renew.max(Instant::now() + LEAST);
            // A time that cannot be said is never reached.
            entry.renew = Timestamp::now().checked_add(entry.due.duration_since(Instant::now())).ok();
            entry.backoff.reset();
        }
    }

    /// It was not to be had. Returns when it is asked for again; what is there is kept.
    pub fn failed(&mut self, identity: &str, now: Instant) -> Option<Duration> {
        let entry = self.0.get_mut(identity)?;
        let delay = entry.backoff.next_delay();
        (entry.under_way, entry.due, entry.renew) = (false, now + delay, None);
        Some(delay)
    }

    /// What the wall clock says is due is due now.
    pub fn compare(&mut self, wall: Timestamp, now: Instant) {
        let late = |entry: &&mut Entry| entry.renew.is_some_and(|renew| wall >= renew);
        for entry in self.0.values_mut().filter(late) {
            entry.due = entry.due.min(now);
        }
    }

    /// What has none is asked for at once.
    pub fn hurry(&mut self, now: Instant) {
        for entry in self.0.values_mut().filter(|entry| !entry.has_one) {
            entry.due = entry.due.min(now);
        }
    }

    /// Identities that have one.
    pub fn certified(&self) -> BTreeSet<String> {
        self.0.iter().filter(|(_, entry)| entry.has_one).map(|(identity, _)| identity.clone()).collect()
    }

    /// When something is due next.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().filter(|entry| !entry.under_way).map(|entry| entry.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(identities: &[&str]) -> BTreeSet<String> {
        identities.iter().map(|identity| (*identity).to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_identity_is_asked_for_once_and_renewed() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        assert!(plan.want(&set(&["a", "b", "c"]), now).is_empty());
        assert_eq!(plan.begin(now, 2), ["a", "b"]);
        assert!(plan.begin(now, 2).is_empty(), "two are under way");
        let hour = Duration::from_secs(3600);
        plan.signed("a", now + hour);
        assert_eq!(plan.certified(), set(&["a"]));
        assert_eq!(plan.begin(now, 2), ["c"]);
        plan.signed("b", now);
        plan.signed("c", now + hour);
        assert_eq!(plan.due(), Some(now + LEAST), "not at once again");
        assert_eq!(plan.begin(now + LEAST, 9), ["b"]);
        assert_eq!(plan.begin(now + hour, 9), ["a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_ever_later_and_takes_nothing_away() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        plan.want(&set(&["a", "b"]), now);
        plan.begin(now, 9);
        plan.signed("a", now + LEAST);
        let first = plan.failed("b", now).unwrap();
        assert!(plan.begin(now, 9).is_empty() && plan.due() == Some(now + first));
        plan.hurry(now);
        assert_eq!(plan.begin(now, 9), ["b"], "another connection");
        assert!(plan.failed("b", now).unwrap() > first / 2);
        assert_eq!(plan.begin(now + LEAST, 1), ["b"], "who has none comes first");
        plan.begin(now + LEAST, 9);
        plan.failed("a", now + LEAST);
        assert_eq!(plan.certified(), set(&["a"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_night_that_the_machine_slept_through_counts() {
        let (mut plan, now, wall) = (Plan::default(), Instant::now(), Timestamp::now());
        plan.want(&set(&["a", "b", "c"]), now);
        plan.begin(now, 9);
        let hour = Duration::from_secs(3600);
        plan.signed("a", now + hour);
        plan.signed("b", now + 9 * hour);
        plan.compare(wall + hour / 2, now);
        assert!(plan.begin(now, 9).is_empty());
        plan.compare(wall + 8 * hour, now);
        assert_eq!(plan.begin(now, 9), ["a"]);
        let delay = plan.failed("a", now).unwrap();
        plan.compare(wall + 8 * hour, now);
        assert_eq!(plan.due(), Some(now + delay), "not faster than any other");
        assert_eq!(plan.certified(), set(&["a", "b"]));
    }

    #[test]
    fn what_nobody_needs_is_forgotten_also_while_it_is_under_way() {
        let (mut plan, now) = (Plan::default(), Instant::now());
        plan.want(&set(&["a", "b"]), now);
        plan.begin(now, 9);
        assert_eq!(plan.want(&set(&["b"]), now), ["a"]);
        plan.signed("a", now);
        assert_eq!(plan.failed("a", now), None);
        assert!(plan.certified().is_empty());
    }
}
