//! What was told already. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwright_core::ObjectKey;
use tokio::time::Instant;

/// Reason of Events on pods that cannot be in the mesh as they are.
pub const REFUSED: &str = "NotInMesh";
/// Reason of Events on pods that wait for too long.
pub const AWAITED: &str = "AwaitingMesh";

/// A pod is on its way for this long before anybody is told: most need less than a second.
const PATIENCE: Duration = Duration::from_secs(30);
/// A pod's trouble is told again only if it is another, and never sooner than after this.
const REST: Duration = Duration::from_secs(600);

/// Why a pod is not in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Uid of the Pod.
    pub uid: String,
    /// The Pod.
    pub pod: ObjectKey,
    /// [`REFUSED`] or [`AWAITED`].
    pub reason: &'static str,
    /// For the pod's owner.
    pub note: String,
}

#[derive(Debug)]
struct Known {
    since: Instant,
    /// When it was told, and what.
    told: Option<(Instant, String)>,
}

/// By uid, as long as the trouble lasts.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Known>);

impl Told {
    /// What is to be told now, if these are all troubles that there are.
    pub fn due(&mut self, all: Vec<Trouble>, now: Instant) -> Vec<Trouble> {
        let there: BTreeSet<&str> = all.iter().map(|trouble| trouble.uid.as_str()).collect();
        self.0.retain(|uid, _| there.contains(uid.as_str()));
        all.into_iter().filter(|trouble| self.is_due(trouble, now)).collect()
    }

    fn is_due(&mut self, trouble: &Trouble, now: Instant) -> bool {
        let known = self.0.entry(trouble.uid.clone()).or_insert(Known { since: now, told: None });
        let is_due = match &known.told {
            None => trouble.reason == REFUSED || now >= known.since + PATIENCE,
            Some((at, note)) => *note != trouble.note && now >= *at + REST,
        };
        if is_due {
            known.told = Some((now, trouble.note.clone()));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trouble(uid: &str, reason: &'static str, note: &str) -> Trouble {
        let pod = ObjectKey::new("shop", uid);
        Trouble { uid: uid.to_owned(), pod, reason, note: note.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_obstacle_is_told_at_once_and_a_wait_when_it_lasts() {
        let (mut told, start) = (Told::default(), Instant::now());
        let both = || vec![trouble("a", REFUSED, "host"), trouble("b", AWAITED, "envoy")];
        let mut due = |all, seconds| -> Vec<String> {
            let due = told.due(all, start + Duration::from_secs(seconds));
            due.into_iter().map(|trouble| trouble.uid).collect()
        };
        assert_eq!(due(both(), 0), ["a"]);
        assert_eq!(due(both(), 29), [""; 0]);
        assert_eq!(due(both(), 30), ["b"]);
        assert_eq!(due(both(), 100_000), [""; 0], "once is enough");
        let other = || vec![trouble("a", REFUSED, "sidecar"), trouble("b", AWAITED, "nft")];
        assert_eq!(due(other(), 100_000), ["a", "b"], "it is another now");
        assert_eq!(due(both(), 100_599), [""; 0]);
        assert_eq!(due(Vec::new(), 100_600), [""; 0]);
        assert_eq!(due(both(), 100_601), ["a"], "they were well in between");
    }

    proptest! {
        /// Whatever is said of a pod while its trouble lasts.
        #[test]
        fn nobody_is_told_endlessly(steps in proptest::collection::vec((0_u64..400, 0_u8..3, any::<bool>()), 1..200)) {
            let (mut told, start) = (Told::default(), Instant::now());
            let (mut elapsed, mut count) = (0, 0);
            for (seconds, note, refused) in steps {
                elapsed += seconds;
                let reason = if refused { REFUSED } else { AWAITED };
                let all = vec![trouble("a", reason, &note.to_string())];
                count += told.due(all, start + Duration::from_secs(elapsed)).len() as u64;
            }
            prop_assert!(count <= 1 + elapsed / REST.as_secs(), "{} in {} s", count, elapsed);
        }
    }
}
