//! What an agent has to do on its node: pure.

use super::{claim::Held, farewell::Word};

/// Whom the control plane names to serve the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It has not said anything yet.
    Unknown,
    /// Nobody. For so long that it is `meant`, the mesh goes.
    Nobody {
        /// Or it may only not have been read yet.
        meant: bool,
    },
    /// Us, on this epoch.
    Us(i64),
    /// Another revision.
    Another,
}

/// What an agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Its listeners stand, in case it is called.
    StandsBy,
    /// It sets the rules, holds new pods until they are captured, and reports.
    Serves(i64),
    /// It goes for good. What it redirected is let go, if it was the last one to serve, and what is connected may end.
    Leaves,
    /// Nothing is left to do.
    Left,
}

/// What is known about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation<'a> {
    /// Whom the control plane names.
    pub named: Named,
    /// Who acts on the node.
    pub held: Option<&'a Held>,
    /// Our revision.
    pub revision: &'a str,
    /// What the control plane's word is worth since this process was told to end; none before that.
    pub ending: Option<Word>,
    /// Whether neither rules nor connections of ours are left.
    pub cleared: bool,
}

/// Decides.
pub fn duty(situation: Situation<'_>) -> Duty {
    let Situation { named, held, revision, ending, cleared } = situation;
    let ours = held.filter(|held| held.revision == revision);
    let leaves = if cleared { Duty::Left } else { Duty::Leaves };
    match (ours, named, ending) {
        (Some(_), Named::Nobody { meant: true }, _) => leaves,
        // Who ends now, and for good, would leave everything behind: it waits for certainty.
        (Some(held), Named::Nobody { meant: false }, _) => Duty::Serves(held.epoch),
        // An ordinary restart: whoever comes next finds everything as it is. Letting go would take the pods out of the mesh for it.
        (Some(_), _, Some(Word::Given)) => Duty::Left,
        (Some(held), _, Some(Word::Awaited)) => Duty::Serves(held.epoch),
        (Some(_), _, Some(Word::Lost)) => leaves,
        // Also when another one is named: until that has taken over, there is nobody else.
        (Some(held), _, None) => Duty::Serves(held.epoch),
        (None, _, Some(_)) => leaves,
        (None, _, None) => Duty::StandsBy,
    }
}

/// On which epoch to take over, if that is due.
pub fn to_take(named: Named, held: Option<&Held>, revision: &str) -> Option<i64> {
    match (named, held) {
        (Named::Us(epoch), Some(held)) if held.revision == revision => (held.epoch < epoch).then_some(epoch),
        (Named::Us(epoch), _) => Some(epoch),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Named = Named::Nobody { meant: true };
    const UNSET: Named = Named::Nobody { meant: false };
    const ALL: [Named; 5] = [Named::Unknown, UNSET, GONE, Named::Us(3), Named::Another];

    fn held(revision: &str, epoch: i64) -> Held {
        Held { revision: revision.to_owned(), epoch }
    }

    fn of(named: Named, held: Option<&Held>, ending: bool, cleared: bool) -> Duty {
        of_word(named, held, ending.then_some(Word::Given), cleared)
    }

    fn of_word(named: Named, held: Option<&Held>, ending: Option<Word>, cleared: bool) -> Duty {
        duty(Situation { named, held, revision: "us", ending, cleared })
    }

    #[test]
    fn who_holds_the_node_serves_until_another_one_does() {
        let (us, other) = (held("us", 3), held("other", 4));
        for named in [Named::Unknown, UNSET, Named::Us(3), Named::Us(9), Named::Another] {
            assert_eq!(of(named, Some(&us), false, false), Duty::Serves(3), "{named:?}");
        }
        for named in ALL {
            assert_eq!(of(named, Some(&other), false, true), Duty::StandsBy, "{named:?}");
            assert_eq!(of(named, None, false, true), Duty::StandsBy, "{named:?}");
        }
    }

    #[test]
    fn a_restart_changes_nothing_and_does_not_wait() {
        for named in [Named::Unknown, Named::Us(3), Named::Another] {
            assert_eq!(of(named, Some(&held("us", 3)), true, false), Duty::Left, "{named:?}");
        }
    }

    #[test]
    fn who_is_told_to_end_goes_on_until_it_is_certain_and_lets_go_where_nobody_says_otherwise() {
        let us = held("us", 3);
        for named in [Named::Unknown, Named::Us(3), Named::Another] {
            let of = |word, cleared| of_word(named, Some(&us), Some(word), cleared);
            assert_eq!(of(Word::Awaited, false), Duty::Serves(3), "{named:?}");
            assert_eq!(
                (of(Word::Lost, false), of(Word::Lost, true)),
                (Duty::Leaves, Duty::Left),
                "{named:?}"
            );
        }
        for word in [Word::Awaited, Word::Given, Word::Lost] {
            assert_eq!(of_word(GONE, Some(&us), Some(word), false), Duty::Leaves, "{word:?}");
            let other = held("other", 4);
            assert_eq!(of_word(Named::Another, Some(&other), Some(word), true), Duty::Left, "{word:?}");
        }
    }

    #[test]
    fn who_goes_for_good_waits_until_all_is_cleared() {
        let (us, other) = (held("us", 3), held("other", 4));
        for (ending, cleared, expected) in [
            (false, false, Duty::Leaves),
            (true, false, Duty::Leaves),
            (false, true, Duty::Left),
            (true, true, Duty::Left),
        ] {
            assert_eq!(of(GONE, Some(&us), ending, cleared), expected, "the mesh goes");
        }
        assert_eq!(of(UNSET, Some(&us), true, true), Duty::Serves(3), "it may go");
        for named in ALL {
            assert_eq!(
                of(named, Some(&other), true, false),
                Duty::Leaves,
                "{named:?}: connections are left in it"
            );
            assert_eq!(of(named, Some(&other), true, true), Duty::Left, "{named:?}");
            assert_eq!(of(named, None, true, true), Duty::Left, "{named:?}");
        }
    }

    #[test]
    fn only_who_is_named_takes_over_and_once() {
        let (us, other) = (held("us", 3), held("other", 3));
        for named in [Named::Unknown, UNSET, GONE, Named::Another] {
            assert_eq!(to_take(named, None, "us"), None);
        }
        assert_eq!(to_take(Named::Us(3), None, "us"), Some(3));
        assert_eq!(to_take(Named::Us(3), Some(&us), "us"), None);
        assert_eq!(to_take(Named::Us(2), Some(&us), "us"), None, "a replica that is behind");
        assert_eq!(to_take(Named::Us(4), Some(&us), "us"), Some(4));
        assert_eq!(to_take(Named::Us(4), Some(&other), "us"), Some(4));
    }
}
