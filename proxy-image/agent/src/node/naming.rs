//! Whom the control plane names, told so that nothing is done for a word that does not last: pure.

use std::time::Duration;

use meshwright_proto::nodes::{Claim, NodeOrder};
use tokio::time::Instant;

use super::{
    claim::Held,
    duty::{Named, to_take},
};

/// A claim that is unset for this long, with a connection all the time, is gone. A control plane that has just started may not have read it.
pub const GONE: Duration = Duration::from_secs(10);
/// An agent that does not live for this long, while we are named, does not come back.
const DEAD: Duration = Duration::from_secs(10);
/// An epoch below our own that is named for this long, with a connection all the time, is the true one: its MeshNode was deleted, and made anew
/// by a clock that is not ahead any more. Whoever only is behind says it for a moment.
const LOWER: Duration = Duration::from_secs(10);
/// So long may the pods that we are to take over keep us from it.
const PREPARED: Duration = Duration::from_secs(30);

/// Remembers since when.
#[derive(Debug, Default)]
pub struct Naming {
    unset_since: Option<Instant>,
    due_since: Option<Instant>,
    live: bool,
    /// An epoch below our own, and since when it is named.
    lower: Option<(i64, Instant)>,
}

/// How to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// The epoch to take.
    pub epoch: i64,
    /// Whatever the epoch of who acts, if that is a process that is dead, or us.
    pub anew: bool,
}

impl Naming {
    /// Whom the order names. `live` is whether its stream is open, or there will be none to wait for: we are told to end.
    pub fn named(&mut self, order: &NodeOrder, live: bool, revision: &str, now: Instant) -> Named {
        self.live = live;
        let unset = order.claim.is_none() && live;
        self.unset_since = self.unset_since.filter(|_| unset).or(unset.then_some(now));
        match &order.claim {
            Some(Claim { revision: named, epoch }) if named == revision => Named::Us(*epoch),
            Some(_) => Named::Another,
            None if self.unset_since.is_some_and(|since| now >= since + GONE) => {
                Named::Nobody { meant: true }
            }
            None => Named::Nobody { meant: false },
        }
    }

    /// Whether to take over now. Who serves meanwhile does so until everything stands here (`prepared`).
    pub fn takeover(
        &mut self,
        named: Named,
        held: Option<&Held>,
        revision: &str,
        prepared: bool,
        now: Instant,
    ) -> Option<Takeover> {
        if let Some(epoch) = self.lower(named, held, revision, now) {
            return Some(Takeover { epoch, anew: true });
        }
        let epoch = to_take(named, held, revision);
        self.due_since = self.due_since.filter(|_| epoch.is_some()).or(epoch.map(|_| now));
        let (epoch, since) = (epoch?, self.due_since?);
        let free = held.is_none_or(|held| held.revision == revision);
        (free || prepared || now >= since + PREPARED).then(|| Takeover { epoch, anew: now >= since + DEAD })
    }

    /// The epoch that is named although ours is higher, as soon as that is meant: as long as we act on another one nobody hears our reports.
    fn lower(&mut self, named: Named, held: Option<&Held>, revision: &str, now: Instant) -> Option<i64> {
        let ours = held.filter(|held| held.revision == revision && self.live);
        self.lower = match (named, ours) {
            (Named::Us(epoch), Some(held)) if epoch < held.epoch => {
                self.lower.filter(|(known, _)| *known == epoch).or(Some((epoch, now)))
            }
            _ => None,
        };
        self.lower.filter(|(_, since)| now >= *since + LOWER).map(|(epoch, _)| epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSET: Named = Named::Nobody { meant: false };

    fn order(claim: Option<(&str, i64)>) -> NodeOrder {
        let claim = claim.map(|(revision, epoch)| Claim { revision: revision.to_owned(), epoch });
        NodeOrder { claim, ..NodeOrder::default() }
    }

    #[test]
    fn a_claim_is_gone_only_after_it_was_unset_for_a_while_without_a_break() {
        let (mut naming, start) = (Naming::default(), Instant::now());
        let mut named = |seconds: u64, claim: Option<(&str, i64)>, live: bool| {
            naming.named(&order(claim), live, "us", start + Duration::from_secs(seconds))
        };
        assert_eq!(named(0, None, true), UNSET);
        assert_eq!(named(9, None, true), UNSET);
        assert_eq!(named(9, Some(("us", 3)), true), Named::Us(3));
        assert_eq!(named(11, None, true), UNSET);
        assert_eq!(named(20, None, false), UNSET);
        assert_eq!(named(60, None, false), UNSET, "nobody says it any more");
        assert_eq!(named(61, None, true), UNSET);
        assert_eq!(named(71, None, true), Named::Nobody { meant: true });
        assert_eq!(named(72, Some(("other", 4)), true), Named::Another);
    }

    #[test]
    fn an_epoch_below_our_own_is_taken_when_it_is_named_for_long_without_a_break() {
        let (mut naming, start) = (Naming::default(), Instant::now());
        let held = |revision: &str| Held { revision: revision.to_owned(), epoch: 9 };
        let mut takeover = |seconds: u64, epoch: i64, live: bool, holder: &str| {
            let now = start + Duration::from_secs(seconds);
            let named = naming.named(&order(Some(("us", epoch))), live, "us", now);
            naming.takeover(named, Some(&held(holder)), "us", false, now)
        };
        assert_eq!(takeover(0, 3, true, "us"), None);
        assert_eq!(takeover(9, 3, true, "us"), None, "a replica that is behind");
        assert_eq!(takeover(10, 9, true, "us"), None);
        assert_eq!(takeover(11, 3, true, "us"), None);
        assert_eq!(takeover(15, 4, true, "us"), None, "another one");
        assert_eq!(takeover(22, 4, false, "us"), None, "nobody says it any more");
        assert_eq!(takeover(30, 4, true, "us"), None);
        assert_eq!(takeover(40, 4, true, "us"), Some(Takeover { epoch: 4, anew: true }));
        assert_eq!(takeover(41, 4, true, "other"), None, "it acts and is alive");
    }

    #[test]
    fn who_is_named_takes_over_when_its_pods_are_prepared_or_at_a_deadline() {
        let other = Held { revision: "other".to_owned(), epoch: 2 };
        let takeover = |held: Option<&Held>, steps: &[(u64, bool)]| {
            let (mut naming, start) = (Naming::default(), Instant::now());
            steps.iter().fold(None, |_, (seconds, prepared)| {
                naming.takeover(Named::Us(3), held, "us", *prepared, start + Duration::from_secs(*seconds))
            })
        };
        let (taken, anew) = (Takeover { epoch: 3, anew: false }, Takeover { epoch: 3, anew: true });
        assert_eq!(takeover(None, &[(0, false)]), Some(taken), "nobody serves");
        assert_eq!(takeover(Some(&Held { revision: "us".to_owned(), epoch: 1 }), &[(0, false)]), Some(taken));
        assert_eq!(takeover(Some(&other), &[(0, false)]), None);
        assert_eq!(takeover(Some(&other), &[(0, false), (1, true)]), Some(taken));
        assert_eq!(takeover(Some(&other), &[(0, false), (29, false)]), None);
        assert_eq!(takeover(Some(&other), &[(0, false), (30, false)]), Some(anew));
        assert_eq!(takeover(Some(&other), &[(0, false), (10, true)]), Some(anew));
    }
}
