//! What becomes of calls while nodes go over.

use meshwright_api::{Verdict, VerdictResult};
use meshwright_decisions::analysis::Settings;
use meshwright_proto::{
    inspection::ObservedNode,
    reports::{NodeProxy, Pair, PairSlot},
};

use super::*;
use crate::{inspection::pairs::Told, mesh_control_plane::nodes::moved::Moved};

/// When node `a` went over, with wave 1; and node `b`, with wave 2. Beginnings of slots.
const FIRST: i64 = 1_800_000_000;
const SECOND: i64 = FIRST + 600;

fn settings() -> Settings {
    Settings { max_error_increase: 0.005, max_latency_increase: 0.2, min_requests: 300 }
}

fn wave(since: i64, measured: bool) -> UpgradeStatus {
    let mut position = position("ShiftNodes", measured);
    position.since.0 = Timestamp::from_second(since).unwrap();
    position
}

/// `a` and `b` have gone over, `c` has not, and `d` is about to.
fn three() -> There {
    there(
        &[("a", true), ("b", true), ("c", true), ("d", true)],
        vec![
            mesh_node("a", (NEW, FIRST + 5), Some((NEW, FIRST + 5))),
            mesh_node("b", (NEW, SECOND + 5), Some((NEW, SECOND + 5))),
            mesh_node("c", (OLD, 7), Some((OLD, 7))),
            mesh_node("d", (NEW, SECOND + 5), Some((OLD, 7))),
        ],
    )
}

/// What this revision's proxy counted from then on until then: a hundred requests in each slot, of which so many fail.
fn told(node: &str, revision: &str, (from, until): (i64, i64), failed: u64) -> ObservedNode {
    let slots = (from..until).step_by(30).map(|start| PairSlot {
        start,
        requests: 100,
        failed,
        ..PairSlot::default()
    });
    let pair = Pair {
        source_namespace: "shop".to_owned(),
        source_workload: "front".to_owned(),
        destination_namespace: "shop".to_owned(),
        destination_service: "web".to_owned(),
        destination_port: 80,
        slots: slots.collect(),
    };
    let proxy = NodeProxy { node: node.to_owned(), revision: revision.to_owned(), ..NodeProxy::default() };
    ObservedNode { proxy: Some(proxy), last_report: until, pairs: vec![pair] }
}

/// Ten minutes before the first move up to `until`, with so many failures on nodes `a` and `b` since they went over.
fn heard(until: i64, failed: (u64, u64)) -> Told {
    let mut all = Told::default();
    all.add(OLD, vec![told("a", OLD, (FIRST - 600, FIRST), 0)]);
    all.add(OLD, vec![told("b", OLD, (FIRST - 600, SECOND), 0)]);
    all.add(OLD, vec![told("c", OLD, (FIRST - 600, until), 0)]);
    all.add(NEW, vec![told("a", NEW, (FIRST + 30, until), failed.0)]);
    all.add(NEW, vec![told("b", NEW, (SECOND + 30, until), failed.1)]);
    all
}

fn judge(measured: bool, told: &Told, now: i64) -> Option<Verdict> {
    let position = wave(SECOND, measured);
    let now = Timestamp::from_second(now).unwrap();
    Moved::of(&three(), &position).judge(told, &position, &settings(), now)
}

#[test]
fn nodes_are_of_the_wave_in_which_they_were_given() {
    let moved = Moved::of(&three(), &wave(SECOND, true));
    assert_eq!(moved.wave, [("b".to_owned(), SECOND + 5)].into());
    assert_eq!(moved.earlier, [("a".to_owned(), FIRST + 5)].into());
    assert_eq!(moved.others, ["c".to_owned()].into());
    assert_eq!(moved.since(), Some(FIRST + 5 - 900));
    let first = Moved::of(&three(), &wave(FIRST, true));
    assert_eq!((first.wave.len(), first.earlier.len()), (2, 0));
    let none = Moved::of(&there(&[("c", true)], vec![]), &wave(FIRST, true));
    assert_eq!((none.since(), none.names().len()), (None, 0));
}

#[test]
fn calls_that_go_worse_on_a_node_that_went_over_turn_it_back() {
    let until = SECOND + 300;
    for failed in [(0, 20), (20, 0)] {
        let bad = judge(true, &heard(until, failed), until).unwrap();
        assert_eq!(bad.result, VerdictResult::Fail, "{bad:?}");
        assert!(bad.reason.starts_with("shop/front to shop/web:80: "), "{}", bad.reason);
        assert!(bad.canary_requests > 0 && bad.baseline_requests > 0);
        assert_eq!(judge(false, &heard(until, failed), until), Some(bad), "also before all are served");
    }
    let good = judge(true, &heard(until, (0, 0)), until).unwrap();
    assert_eq!(good.result, VerdictResult::Pass, "{good:?}");
    assert_eq!(judge(false, &heard(until, (0, 0)), until), None, "nothing is good before all are served");
}

#[test]
fn what_nobody_tells_of_holds_it() {
    let until = SECOND + 300;
    let early = judge(true, &heard(SECOND + 40, (0, 0)), SECOND + 40).unwrap();
    assert_eq!(early.result, VerdictResult::Insufficient, "{early:?}");
    let mut deaf = heard(until, (0, 0));
    deaf.unheard.insert("cp-1".to_owned(), "no route".to_owned());
    let deaf = judge(true, &deaf, until).unwrap();
    assert_eq!(deaf.result, VerdictResult::Insufficient);
    assert!(deaf.reason.contains("cp-1"), "{}", deaf.reason);
    let silent = judge(true, &Told::default(), until).unwrap();
    assert_eq!(silent.result, VerdictResult::Insufficient);
    assert!(silent.reason.ends_with("went over: b"), "{}", silent.reason);
    let mut idle = Told::default();
    idle.add(NEW, vec![told("b", NEW, (until, until), 0)]);
    assert_eq!(judge(true, &idle, until).unwrap().result, VerdictResult::Pass, "nothing is called there");
}

proptest! {
    #[test]
    fn nobody_is_turned_back_for_nothing_and_nobody_goes_on_unheard(
        failed in (0_u64..30, 0_u64..30),
        after in 0_i64..600,
        measured in any::<bool>(),
        unheard in any::<bool>(),
    ) {
        let now = SECOND + after;
        let mut told = heard(now, failed);
        if unheard {
            told.unheard.insert("cp-1".to_owned(), "no route".to_owned());
        }
        let result = judge(measured, &told, now).map(|verdict| verdict.result);
        let fails = result == Some(VerdictResult::Fail);
        prop_assert!(!fails || failed.0 + failed.1 > 0);
        prop_assert!(measured || fails || result.is_none(), "while nodes go over only what is bad counts");
        prop_assert!(!measured || result.is_some());
        prop_assert!(!unheard || result != Some(VerdictResult::Pass));
        // Five minutes of a tenth that fails are enough to see it.
        prop_assert!(fails || after < 300 || failed.0.max(failed.1) < 10);
    }
}
