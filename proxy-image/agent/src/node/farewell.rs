//! Told to end: is that a restart, or the end of the mesh? Pure.
//!
//! Whoever comes after a restart finds the pods redirected, and goes on. After the end of the mesh nobody comes, and pods that are left redirected
//! are cut off. The two look alike to a process that gets SIGTERM, most of all when the mesh's namespace is deleted: then everything in it ends at
//! once, in any order, the control plane that could tell included. So nobody believes what he heard before that moment. Who hears the control plane
//! for a while longer, and hears nothing else from it, is restarted. Who does not hear it lets his pods go: his certificates and his
//! configuration end with him, and without a control plane whoever came next would have none for them either.

use std::time::Duration;

use tokio::time::Instant;

/// A control plane that goes too is gone by then, or has seen that the node's claim is.
const CONFIRMED: Duration = Duration::from_secs(3);
/// A control plane that is restarted is there again by then.
const SILENT: Duration = Duration::from_secs(60);

/// What the control plane's last word is worth to who was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is too early to say.
    Awaited,
    /// It holds.
    Given,
    /// Nobody is there who could take it back.
    Lost,
}

/// Remembers since when.
#[derive(Debug, Default)]
pub struct Farewell {
    live_since: Option<Instant>,
    silent_since: Option<Instant>,
}

impl Farewell {
    /// To be asked again and again once the process was told to end. `live` is whether the control plane's stream is open.
    pub fn word(&mut self, live: bool, now: Instant) -> Word {
        self.live_since = self.live_since.filter(|_| live).or(live.then_some(now));
        // One that comes up for a moment again and again says nothing either.
        self.silent_since = self.silent_since.or((!live).then_some(now));
        let has_lasted = |since: Option<Instant>, time| since.is_some_and(|since| now >= since + time);
        if has_lasted(self.live_since, CONFIRMED) {
            self.silent_since = None;
            Word::Given
        } else if !live && has_lasted(self.silent_since, SILENT) {
            Word::Lost
        } else {
            Word::Awaited
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(steps: &[(u64, bool)]) -> Vec<Word> {
        let (mut farewell, start) = (Farewell::default(), Instant::now());
        steps
            .iter()
            .map(|(second, live)| farewell.word(*live, start + Duration::from_secs(*second)))
            .collect()
    }

    #[test]
    fn what_was_heard_before_is_believed_only_while_it_is_still_said() {
        use Word::{Awaited, Given, Lost};
        assert_eq!(words(&[(0, true), (2, true), (3, true)]), [Awaited, Awaited, Given]);
        assert_eq!(
            words(&[(0, true), (2, false), (61, false), (62, false)]),
            [Awaited, Awaited, Awaited, Lost],
            "the control plane goes too"
        );
        assert_eq!(
            words(&[(0, false), (59, false), (60, true), (62, true), (63, true)]),
            [Awaited, Awaited, Awaited, Awaited, Given],
            "it was restarted"
        );
        assert_eq!(
            words(&[(0, false), (60, false), (61, true), (64, true)]),
            [Awaited, Lost, Awaited, Given]
        );
        assert_eq!(
            words(&[(0, true), (2, false), (40, true), (42, false), (61, true), (62, false)]),
            [Awaited, Awaited, Awaited, Awaited, Awaited, Lost],
            "it comes up for a moment again and again"
        );
    }
}
