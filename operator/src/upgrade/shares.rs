//! How many pods a share of the traffic is. Connections go to pods alike, so a revision's share is its share of the ready pods.
//! The old revision keeps its steady number all the time: capacity never falls, and going back waits for nobody.

pub use meshwright_api::shares::canary_pods;

/// Share in percent of `canary` among all ready pods.
pub fn share(canary: i32, baseline: i32) -> i32 {
    let count = |n: i32| u64::try_from(n).unwrap_or(0);
    share_of(count(canary), count(baseline))
}

/// The same of requests.
pub fn share_of(canary: u64, baseline: u64) -> i32 {
    let (canary, all) = (u128::from(canary), u128::from(canary) + u128::from(baseline));
    if all == 0 { 0 } else { i32::try_from((200 * canary + all) / (2 * all)).unwrap_or(100) }
}

/// What an autoscaler saw last: its pods, and their average use of CPU in percent of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Ready pods: the average is theirs.
    pub pods: i32,
    /// Average use.
    pub cpu_percent: i32,
}

/// The steady number of a Gateway while its autoscaler is held: what it has, or what the autoscaler would make it where its pods have too
/// much to do. Never less: every pod that goes ends connections. The same load asks for the same number however often it is looked at.
pub fn steady(now: i32, load: Option<Load>, target: i32, max: i32) -> i32 {
    let busy = load.filter(|l| l.cpu_percent > target + target / 10);
    let needed = busy.map_or(0, |l| {
        (i64::from(l.pods) * i64::from(l.cpu_percent) + i64::from(target) - 1) / i64::from(target.max(1))
    });
    now.max(i32::try_from(needed).unwrap_or(i32::MAX).min(max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_pods_come_close() {
        assert_eq!(canary_pods(3, 10, 100), 1);
        assert_eq!(canary_pods(3, 25, 100), 1);
        assert_eq!(canary_pods(3, 50, 100), 3);
        assert_eq!(canary_pods(10, 10, 100), 1);
        assert_eq!(canary_pods(10, 25, 100), 3);
        assert_eq!(canary_pods(3, 75, 100), 3, "the surge is a bound");
        assert_eq!(canary_pods(3, 75, 300), 9);
        assert_eq!((share(1, 3), share(3, 3), share(0, 0)), (25, 50, 0));
    }

    #[test]
    fn a_held_autoscaler_does_not_leave_pods_alone_with_more_load() {
        let load = |cpu_percent| Some(Load { pods: 3, cpu_percent });
        assert_eq!(steady(3, load(75), 70, 10), 3);
        assert_eq!(steady(3, load(140), 70, 10), 6);
        assert_eq!(steady(6, load(140), 70, 10), 6, "the same load, looked at again");
        assert_eq!(steady(3, load(900), 70, 10), 10);
        assert_eq!((steady(5, None, 70, 10), steady(8, load(900), 70, 4)), (5, 8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn the_surge_bounds_the_pods_and_a_larger_share_never_has_fewer(
            steady in 1..200i32, percent in 1..99i32, surge in 1..900i32,
        ) {
            let pods = canary_pods(steady, percent, surge);
            let bound = (i64::from(steady) * i64::from(surge) + 99) / 100;
            prop_assert!(pods >= 1 && i64::from(pods) <= bound.max(1));
            prop_assert!(canary_pods(steady, percent + 1, surge) >= pods);
        }

        #[test]
        fn with_enough_surge_the_share_is_the_nearest_that_whole_pods_allow(steady in 1..100i32, percent in 1..90i32) {
            let pods = canary_pods(steady, percent, 900);
            let off = |c: i32| (f64::from(c) / f64::from(c + steady) - f64::from(percent) / 100.0).abs();
            // To the nearest number of pods, which may be one off the nearest share.
            prop_assert!(off(pods) <= off((pods - 1).max(1)) + 0.02 && off(pods) <= off(pods + 1) + 0.02);
        }

        #[test]
        fn a_held_number_only_grows_within_its_bound_and_settles_at_once(
            now in 1..50i32, pods in 1..50i32, cpu_percent in 0..2000i32, max in 1..60i32,
        ) {
            let load = Some(Load { pods, cpu_percent });
            let held = super::steady(now, load, 70, max);
            prop_assert!(held >= now && held <= now.max(max));
            prop_assert_eq!(super::steady(held, load, 70, max), held);
        }
    }
}
