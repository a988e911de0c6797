use std::sync::Arc;

use meshwright_decisions::analysis::ProbeSlot;
use meshwright_proto::reports;
use proptest::prelude::*;

use super::*;
use crate::inspection::{memory::ProxyKey, observe::Observed, traffic::Traffic};

const MEASURED: i64 = 10_000;
const NOW: i64 = 10_100;

#[derive(Debug, Clone)]
struct Pod {
    name: &'static str,
    instance: &'static str,
    ready_since: i64,
    drains_since: Option<i64>,
    /// One request in each slot.
    slots: std::ops::Range<i64>,
}

const STEADY: Pod = Pod { name: "a", instance: "i", ready_since: 1, drains_since: None, slots: 9_900..NOW };

fn observed(revision: &str, pods: &[Pod]) -> Observed {
    let proxies = pods.iter().map(|pod| {
        let key = ProxyKey {
            revision: revision.to_owned(),
            namespace: "shop".to_owned(),
            pod: pod.name.to_owned(),
            instance: pod.instance.to_owned(),
        };
        let proxy = reports::Proxy {
            gateway_namespace: "shop".to_owned(),
            gateway_name: "edge".to_owned(),
            ready_since: pod.ready_since,
            ..reports::Proxy::default()
        };
        let slot = |start| {
            let latency = [(4, 1)].into();
            reports::Slot {
                start,
                server_error: 1,
                no_route: 1,
                client_error: 2,
                latency,
                ..Default::default()
            }
        };
        let slots =
            pod.slots.clone().step_by(5).map(|start| (start, Traffic::new(&slot(start), NOW))).collect();
        let drains_since = pod.drains_since;
        (key, Arc::new(SeenProxy { proxy, last_report: NOW, drains_since, ended_before: (0, NOW), slots }))
    });
    Observed { proxies: proxies.collect(), ..Observed::default() }
}

fn observation(canary: &[Pod], baseline: &[Pod]) -> Observation {
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let revisions =
        [("new".to_owned(), observed("new", canary)), ("old".to_owned(), observed("old", baseline))];
    Observation { at: at(NOW), since: at(9_900), revisions: revisions.into() }
}

fn judged(observation: &Observation, probed: &[Probed]) -> Sides {
    sides(observation, probed, "new", "old", Timestamp::from_second(MEASURED).unwrap())
}

fn starts(series: &ProxySeries) -> (i64, i64, usize) {
    (series.slots[0].start, series.slots.last().unwrap().start, series.slots.len())
}

// A pod of the old revision answers, so the new one could.
fn judged_beside_one_that_answers(observation: &Observation, mut failed: Vec<Probed>) -> Sides {
    failed.push(Probed { revision: "old".to_owned(), answers: true, ..unanswered("a", 1, &[]) });
    judged(observation, &failed)
}

// Of each slot so many without an answer, and one that was answered without a route.
fn unanswered(pod: &str, since: i64, slots: &[(i64, u64)]) -> Probed {
    let slot = |(start, unanswered): &(i64, u64)| {
        (*start, ProbeSlot { start: *start, sent: unanswered + 1, unrouted: 1, unanswered: *unanswered })
    };
    Probed {
        revision: "new".to_owned(),
        namespace: "shop".to_owned(),
        gateway: "edge".to_owned(),
        pod: pod.to_owned(),
        since,
        answers: false,
        slots: slots.iter().map(slot).collect(),
    }
}

#[test]
fn the_window_is_the_same_for_both_without_warm_up_and_without_what_is_still_reported() {
    let sides = judged(&observation(&[STEADY], &[STEADY]), &[]);
    assert_eq!(sides.canary, sides.baseline);
    assert_eq!(starts(&sides.canary[0]), (MEASURED + 15, NOW - 10, 16));
    let slot = &sides.canary[0].slots[0];
    assert_eq!((slot.requests, slot.failed, slot.client_errors, slot.flags.no_route), (3, 1, 2, 1));
    assert_eq!(slot.latency, BTreeMap::from([(4, 1)]));
    assert_eq!((sides.canary[0].gateway.as_str(), sides.canary[0].pod.as_str()), ("shop/edge", "a"));
}

#[test]
fn a_pod_counts_from_its_own_warm_up_on_and_until_it_is_told_to_end() {
    let young = Pod { name: "young", ready_since: 10_032, ..STEADY };
    let ends = Pod { name: "ends", drains_since: Some(10_052), ..STEADY };
    let never = Pod { name: "never", ready_since: 0, ..STEADY };
    let gone = Pod { name: "gone", drains_since: Some(i64::MIN), ..STEADY };
    let pods = [young, ends, never, gone];
    let sides = judged(&observation(&pods, &pods), &[]);
    assert_eq!(sides.canary, sides.baseline);
    let named: Vec<_> = sides.canary.iter().map(|s| (s.pod.as_str(), starts(s))).collect();
    assert_eq!(named, [("ends", (10_015, 10_045, 7)), ("young", (10_050, 10_090, 9))]);
}

#[test]
fn two_instances_in_a_pod_are_one_series_with_each_slot_once() {
    let first = Pod { slots: 10_000..10_045, ..STEADY };
    let second = Pod { instance: "j", ready_since: 10_020, slots: 10_040..NOW, ..STEADY };
    let sides = judged(&observation(&[first, second], &[]), &[]);
    assert_eq!(sides.canary.len(), 1);
    assert_eq!(starts(&sides.canary[0]), (10_015, 10_090, 16));
    let both = sides.canary[0].slots.iter().find(|s| s.start == 10_040).unwrap();
    assert_eq!((both.requests, both.latency[&4]), (6, 2));
}

#[test]
fn probes_are_kept_apart_from_what_their_pod_reported() {
    let failed = vec![unanswered("a", 1, &[(10_000, 9), (10_020, 2)])];
    let steady = observation(&[STEADY], &[STEADY]);
    let sides = judged_beside_one_that_answers(&steady, failed);
    assert_eq!(
        (&sides.canary, &sides.baseline),
        (&judged(&steady, &[]).canary, &judged(&steady, &[]).baseline)
    );
    let slots = vec![ProbeSlot { start: 10_020, sent: 3, unrouted: 1, unanswered: 2 }];
    let of_pod = ProbeSeries { gateway: "shop/edge".to_owned(), pod: "a".to_owned(), slots };
    assert_eq!(
        sides.probes,
        [of_pod],
        "without the warm-up, and without a pod that was not asked within the window"
    );
}

#[test]
fn what_a_pod_reported_before_this_process_asked_it_says_nothing() {
    // Another leader may have asked it, and every pod of the Gateway alike.
    let steady = observation(&[STEADY], &[STEADY, Pod { name: "gone", ..STEADY }]);
    let of = |revision: &str| Probed {
        revision: revision.to_owned(),
        answers: true,
        ..unanswered("a", 10_052, &[])
    };
    let sides = judged(&steady, &[of("new"), of("old")]);
    assert_eq!(sides.canary, sides.baseline);
    assert_eq!(starts(&sides.canary[0]).0, 10_055);
}

#[test]
fn a_pod_that_never_reported_counts_by_what_it_did_not_answer_after_its_warm_up() {
    let failed = vec![unanswered("dead", 10_020, &[(10_030, 9), (10_035, 2)])];
    let sides = judged_beside_one_that_answers(&observation(&[], &[STEADY]), failed);
    let silent = ProxySeries { gateway: "shop/edge".to_owned(), pod: "dead".to_owned(), slots: Vec::new() };
    assert_eq!(sides.canary, [silent]);
    assert_eq!(
        sides.probes[0].slots.iter().map(|s| (s.start, s.unanswered)).collect::<Vec<_>>(),
        [(10_035, 2)]
    );
}

#[test]
fn where_no_pod_of_either_side_answers_nothing_is_said_of_a_revision() {
    let failed = [unanswered("a", 1, &[(10_020, 2)])];
    let steady = observation(&[STEADY], &[STEADY]);
    assert_eq!(judged(&steady, &failed), judged(&steady, &[]));
}

#[test]
fn what_the_operator_had_to_forget_is_missing_on_both_sides() {
    let mut observation = observation(&[STEADY], &[STEADY]);
    observation.since = Timestamp::from_second(10_050).unwrap();
    let failed = vec![unanswered("a", 1, &[(10_020, 2)])];
    let sides = judged_beside_one_that_answers(&observation, failed);
    assert_eq!(sides.canary, sides.baseline);
    assert_eq!((starts(&sides.canary[0]).0, sides.probes.len()), (10_050, 0));
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let pod =
        (0..3usize, 0..2usize, 0..NOW, prop::option::of(MEASURED..NOW), MEASURED / 5 - 20..NOW / 5, 0..20i64);
    let pod = pod.prop_map(|(name, instance, ready_since, drains_since, from, length)| Pod {
        name: ["a", "b", "c"][name],
        instance: ["i", "j"][instance],
        ready_since,
        drains_since,
        slots: from * 5..from * 5 + length * 5,
    });
    prop::collection::vec(pod, 0..6)
}

proptest! {
    #[test]
    fn both_sides_are_treated_alike(pods in pods()) {
        let sides = judged(&observation(&pods, &pods), &[]);
        prop_assert_eq!(sides.canary, sides.baseline);
    }

    #[test]
    fn each_start_is_there_once_and_in_the_window(pods in pods(), failed in prop::collection::vec((1990..2020i64, 1..5u64), 0..5)) {
        let failed: Vec<_> = failed.iter().map(|(start, n)| (start * 5, *n)).collect();
        let failed = vec![unanswered("a", 0, &failed)];
        let sides = judged_beside_one_that_answers(&observation(&pods, &[]), failed);
        for probes in &sides.probes {
            prop_assert!(probes.slots.iter().all(|s| s.start >= MEASURED + 15 && s.start + 10 <= NOW));
        }
        for series in &sides.canary {
            prop_assert!(series.slots.windows(2).all(|two| two[0].start < two[1].start));
            prop_assert!(series.slots.iter().all(|s| s.start >= MEASURED + 15 && s.start + 10 <= NOW));
            prop_assert!(series.slots.iter().all(|s| s.failed + s.client_errors <= s.requests));
        }
    }
}
