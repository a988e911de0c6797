//! The operator's own requests beside those of users.

use super::*;

/// Twenty-five probes per slot of a pod, so many of them unanswered; the answered ones are in the series.
fn probes(series: &mut ProxySeries, unanswered: u64) -> ProbeSeries {
    let probe = |slot: &mut Slot| {
        let unrouted = 25 - unanswered;
        slot.requests += unrouted;
        slot.client_errors += unrouted;
        slot.flags.no_route += unrouted;
        *slot.latency.entry(0).or_default() += unrouted;
        ProbeSlot { start: slot.start, sent: 25, unrouted, unanswered }
    };
    let slots = series.slots.iter_mut().map(probe).collect();
    ProbeSeries { gateway: series.gateway.clone(), pod: series.pod.clone(), slots }
}

#[test]
fn a_pod_with_fewer_users_beside_its_probes_is_not_worse() {
    let users = |requests: u64| move |_: i64, slot: &mut Slot| slot.requests = requests;
    let (mut canary, mut baseline) = (canary(24, users(10)), vec![pod("old-0", 24, users(100))]);
    let all = [probes(&mut canary[0], 0), probes(&mut baseline[0], 0)];
    let blind = look(&canary, &baseline);
    assert_eq!(ends(&blind), (VerdictResult::Fail, Cause::NoRouteRose));
    let verdict = judge_with_probes(&canary, &baseline, &all, &SETTINGS, &LOOK);
    assert_eq!(ends(&verdict), (VerdictResult::Pass, Cause::NothingRose), "{}", verdict.reason);
    assert_eq!(verdict.canary_requests, 24 * 35);
}

#[test]
fn probes_do_not_hide_what_users_get() {
    let lost = |_: i64, slot: &mut Slot| {
        slot.requests = 20;
        (slot.client_errors, slot.flags.no_route) = (1, 1);
    };
    let (mut canary, mut baseline) = (canary(24, lost), vec![pod("old-0", 24, |_, slot| slot.requests = 20)]);
    let all = [probes(&mut canary[0], 0), probes(&mut baseline[0], 0)];
    assert_eq!(look(&canary, &baseline).result, VerdictResult::Pass);
    let verdict = judge_with_probes(&canary, &baseline, &all, &SETTINGS, &LOOK);
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::NoRouteRose));
}

#[test]
fn probes_alone_pass_a_canary_and_fail_one_that_does_not_answer() {
    let silent = |_: i64, slot: &mut Slot| slot.requests = 0;
    let judged = |unanswered: u64, slots: i64| {
        let (mut canary, mut baseline) = (canary(slots, silent), vec![pod("old-0", slots, silent)]);
        let all = [probes(&mut canary[0], unanswered), probes(&mut baseline[0], 0)];
        judge_with_probes(&canary, &baseline, &all, &SETTINGS, &LOOK)
    };
    let answers = judged(0, 24);
    assert_eq!(ends(&answers), (VerdictResult::Pass, Cause::NothingRose));
    assert_eq!(
        answers.reason,
        "nothing rose: old 0 % unanswered (0 of 600 probes); new 0 % unanswered (0 of 600 probes)"
    );
    assert_ne!(judged(25, 4).result, VerdictResult::Fail, "its pod may just start again");
    let dead = judged(25, 5);
    assert_eq!(ends(&dead), (VerdictResult::Fail, Cause::UnansweredProbesRose));
    assert_eq!(dead.reason, "unanswered probes rose from 0 % (0 of 125) to 100 % (125 of 125 probes)");
}
