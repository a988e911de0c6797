//! Many looks at one upgrade.

use super::*;

#[test]
fn more_steps_need_more_evidence() {
    // 24 errors against 3 of as many requests: less than one in ten thousand by chance.
    let canary = canary(24, |_, slot| slot.failed = 1);
    let baseline = [pod("old-0", 24, |at, slot| slot.failed = u64::from(at % 8 == 0))];
    let result = |steps| judge(&canary, &baseline, &SETTINGS, &Look { steps, window: Window::Step }).result;
    assert_eq!(result(1), VerdictResult::Fail);
    assert_eq!(result(1000), VerdictResult::Insufficient);
}

#[test]
fn all_looks_of_an_upgrade_share_one_bound() {
    for steps in 1..20 {
        let part = |window| Look { steps, window }.part();
        let later: f64 = (1..10_000).map(|n| part(Window::Later(n))).sum();
        let all = steps as f64 * (part(Window::Step) + later) + (steps + 1) as f64 * part(Window::Before);
        assert!(all <= 1.0 && all > 0.99, "{steps} steps: {all}");
    }
}

#[test]
fn what_turns_bad_after_an_hour_is_found_within_two_minutes() {
    // 20 and 60 requests a slot; from then on 2 % of the canary's fail.
    let turns = 3600;
    let slot = |start: i64, requests: u64, failed: u64| Slot { start, requests, failed, ..Slot::default() };
    let until = |now: i64| {
        let series = |pod: &str, of: &dyn Fn(i64) -> Slot| ProxySeries {
            gateway: "demo/a".to_owned(),
            pod: pod.to_owned(),
            slots: (0..now / SLOT_SECONDS).map(|at| of(at * SLOT_SECONDS)).collect(),
        };
        let bad = |start| slot(start, 100, if start >= turns { 2 } else { 0 });
        let (canary, baseline) = ([series("new", &bad)], [series("old", &|start| slot(start, 300, 0))]);
        judge_step(&canary, &baseline, &[], &SETTINGS, 3, (0, now)).result
    };
    assert_eq!(until(turns), VerdictResult::Pass);
    let found = (turns..turns + 600).step_by(5).find(|now| until(*now) == VerdictResult::Fail);
    assert!(found.is_some_and(|found| found <= turns + 120), "{found:?}");
}
