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
/// What was told is remembered for this long after the trouble was there last: agents' streams end now and then, and till the next one begins
/// nothing is known of a node.
const KEPT: Duration = Duration::from_secs(3600);
/// What could not be told is tried again after this, then after twice as long, and so on up to [`REST`].
const RETRY: Duration = Duration::from_secs(30);

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
    /// Since when there is no trouble, as far as is known.
    gone: Option<Instant>,
    /// Not to be tried before that, and how long it is to wait after one more failure.
    retry: Option<(Instant, Duration)>,
}

impl Known {
    fn is_worth_keeping(&self, now: Instant) -> bool {
        let kept = if self.told.is_some() { KEPT } else { PATIENCE };
        self.gone.is_none_or(|gone| now < gone + kept)
    }
}

/// By uid, as long as the trouble lasts and for some time after.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Known>);

impl Told {
    /// What is to be told now, if these are all troubles that there are.
    pub fn due(&mut self, all: Vec<Trouble>, now: Instant) -> Vec<Trouble> {
        let there: BTreeSet<&str> = all.iter().map(|trouble| trouble.uid.as_str()).collect();
        for (_, known) in self.0.iter_mut().filter(|(uid, _)| !there.contains(uid.as_str())) {
            known.gone.get_or_insert(now);
        }
        self.0.retain(|_, known| known.is_worth_keeping(now));
        all.into_iter().filter(|trouble| self.is_due(trouble, now)).collect()
    }

    fn is_due(&mut self, trouble: &Trouble, now: Instant) -> bool {
        let new = Known { since: now, told: None, gone: None, retry: None };
        let known = self.0.entry(trouble.uid.clone()).or_insert(new);
        if known.gone.take().is_some_and(|gone| now >= gone + PATIENCE) {
            known.since = now;
        }
        let has_waited = known.retry.is_none_or(|(at, _)| now >= at);
        let lasts = trouble.reason == REFUSED || now >= known.since + PATIENCE;
        has_waited
            && match &known.told {
                None => lasts,
                Some((at, note)) => *note != trouble.note && now >= *at + REST,
            }
    }

    /// It was told, or could not be.
    pub fn tried(&mut self, trouble: &Trouble, is_told: bool, now: Instant) {
        let Some(known) = self.0.get_mut(&trouble.uid) else { return };
        if is_told {
            (known.told, known.retry) = (Some((now, trouble.note.clone())), None);
        } else {
            let pause = known.retry.map_or(RETRY, |(_, pause)| pause);
            known.retry = Some((now + pause, (pause * 2).min(REST)));
        }
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
            let now = start + Duration::from_secs(seconds);
            let due = told.due(all, now);
            due.iter().for_each(|trouble| told.tried(trouble, true, now));
            due.into_iter().map(|trouble| trouble.uid).collect()
        };
        assert_eq!(due(both(), 0), ["a"]);
        assert_eq!(due(both(), 29), [""; 0]);
        assert_eq!(due(both(), 30), ["b"]);
        assert_eq!(due(both(), 100_000), [""; 0], "once is enough");
        let other = || vec![trouble("a", REFUSED, "sidecar"), trouble("b", AWAITED, "nft")];
        assert_eq!(due(other(), 100_000), ["a", "b"], "it is another now");
        assert_eq!(due(both(), 100_599), [""; 0]);
        // Nothing is known of the node for a while; or they were well in between.
        assert_eq!(due(Vec::new(), 100_600), [""; 0]);
        assert_eq!(due(other(), 104_199), [""; 0], "it was told within the hour");
        assert_eq!(due(Vec::new(), 104_200), [""; 0]);
        assert_eq!(due(other(), 107_800), ["a"]);
        assert_eq!(due(other(), 107_829), [""; 0], "it waits anew");
        assert_eq!(due(other(), 107_830), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_not_heard_of_for_a_moment_lasts_on() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut due = |all, seconds| told.due(all, start + Duration::from_secs(seconds)).len();
        let one = || vec![trouble("a", AWAITED, "envoy")];
        assert_eq!([due(one(), 0), due(Vec::new(), 10), due(one(), 20), due(one(), 30)], [0, 0, 0, 1]);
        let mut told = Told::default();
        let mut due = |all, seconds| told.due(all, start + Duration::from_secs(seconds)).len();
        assert_eq!([due(one(), 0), due(Vec::new(), 5), due(one(), 35), due(one(), 64)], [0; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_told_is_tried_again_more_and_more_seldom() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut tried = Vec::new();
        for seconds in (0..3000).step_by(5) {
            let now = start + Duration::from_secs(seconds);
            for trouble in told.due(vec![trouble("a", REFUSED, "host")], now) {
                told.tried(&trouble, seconds >= 1500, now);
                tried.push(seconds);
            }
        }
        assert_eq!(tried, [0, 30, 90, 210, 450, 930, 1530], "and not again after it was told");
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
                let now = start + Duration::from_secs(elapsed);
                for trouble in told.due(all, now) {
                    told.tried(&trouble, true, now);
                    count += 1;
                }
            }
            prop_assert!(count <= 1 + elapsed / REST.as_secs(), "{} in {} s", count, elapsed);
        }
    }
}
