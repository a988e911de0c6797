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
/// So long may the pods that we are to take over keep us from it.
const PREPARED: Duration = Duration::from_secs(30);

/// Remembers since when.
#[derive(Debug, Default)]
pub struct Naming {
    unset_since: Option<Instant>,
    due_since: Option<Instant>,
}

/// How to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// The epoch to take.
    pub epoch: i64,
    /// Also from a process that is dead, whatever its epoch.
    pub over_dead: bool,
}

impl Naming {
    /// Whom the order names. `live` is whether its stream is open, or there will be none to wait for: we are told to end.
    pub fn named(&mut self, order: &NodeOrder, live: bool, revision: &str, now: Instant) -> Named {
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
        let epoch = to_take(named, held, revision);
        self.due_since = self.due_since.filter(|_| epoch.is_some()).or(epoch.map(|_| now));
        let (epoch, since) = (epoch?, self.due_since?);
        let free = held.is_none_or(|held| held.revision == revision);
        (free || prepared || now >= since + PREPARED)
            .then(|| Takeover { epoch, over_dead: now >= since + DEAD })
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
    fn who_is_named_takes_over_when_its_pods_are_prepared_or_at_a_deadline() {
        let other = Held { revision: "other".to_owned(), epoch: 2 };
        let takeover = |held: Option<&Held>, steps: &[(u64, bool)]| {
            let (mut naming, start) = (Naming::default(), Instant::now());
            steps.iter().fold(None, |_, (seconds, prepared)| {
                naming.takeover(Named::Us(3), held, "us", *prepared, start + Duration::from_secs(*seconds))
            })
        };
        let (taken, over_dead) =
            (Takeover { epoch: 3, over_dead: false }, Takeover { epoch: 3, over_dead: true });
        assert_eq!(takeover(None, &[(0, false)]), Some(taken), "nobody serves");
        assert_eq!(takeover(Some(&Held { revision: "us".to_owned(), epoch: 1 }), &[(0, false)]), Some(taken));
        assert_eq!(takeover(Some(&other), &[(0, false)]), None);
        assert_eq!(takeover(Some(&other), &[(0, false), (1, true)]), Some(taken));
        assert_eq!(takeover(Some(&other), &[(0, false), (29, false)]), None);
        assert_eq!(takeover(Some(&other), &[(0, false), (30, false)]), Some(over_dead));
        assert_eq!(takeover(Some(&other), &[(0, false), (10, true)]), Some(over_dead));
    }
}
