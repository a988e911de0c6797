use meshwright_proto::reports::Slot;
use proptest::prelude::*;

use super::*;
use crate::inspection::replica::State;

fn replica(uid: &str) -> Replica {
    Replica {
        revision: "mesh-1".to_owned(),
        pod: format!("cp-{uid}"),
        uid: uid.to_owned(),
        state: State::Stopped,
    }
}

fn proxy(pod: &str, draining: bool) -> Proxy {
    Proxy {
        pod_name: pod.to_owned(),
        pod_namespace: "shop".to_owned(),
        revision: "mesh-1".to_owned(),
        instance: "i".to_owned(),
        draining,
        ..Proxy::default()
    }
}

fn observed(pod: &str, last_report: i64, slots: &[(i64, u64)]) -> ObservedProxy {
    let slot = |(start, success): &(i64, u64)| Slot { start: *start, success: *success, ..Slot::default() };
    ObservedProxy { proxy: Some(proxy(pod, false)), last_report, slots: slots.iter().map(slot).collect() }
}

fn response(proxies: Vec<ObservedProxy>) -> ObserveResponse {
    let health = Some(Health { started: 7, ..Health::default() });
    ObserveResponse { proxies, health }
}

fn begun(since: i64) -> Memory {
    let mut memory = Memory::default();
    memory.begin("one", since, since + 60);
    memory
}

fn slots(memory: &Memory, pod: &str) -> Vec<(i64, u64)> {
    let proxies = memory.proxies("mesh-1");
    let seen = proxies.iter().find(|(key, _)| key.pod == pod).map(|(_, seen)| seen);
    seen.map(|s| s.slots.iter().map(|(start, t)| (*start, t.requests())).collect()).unwrap_or_default()
}

#[test]
fn of_two_replicas_the_one_with_more_requests_knows_a_slot() {
    let mut memory = begun(1000);
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1012, &[(1000, 5), (1005, 2)])]), 1020);
    memory.learn(&replica("b"), 1000, response(vec![observed("p", 1017, &[(1005, 6), (1010, 4)])]), 1020);
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1012, &[(1000, 5), (1005, 2)])]), 1025);
    assert_eq!(slots(&memory, "p"), [(1000, 5), (1005, 6), (1010, 4)]);
    assert_eq!(memory.proxies("mesh-1").values().next().unwrap().last_report, 1017);
}

#[test]
fn another_instance_is_another_proxy_and_another_revision_is_nobody_to_tell_of() {
    let mut memory = begun(1000);
    let mut again = observed("p", 1010, &[(1005, 1)]);
    again.proxy.as_mut().unwrap().instance = "j".to_owned();
    let mut foreign = observed("q", 1010, &[(1005, 1)]);
    foreign.proxy.as_mut().unwrap().revision = "mesh-2".to_owned();
    let all = vec![observed("p", 1010, &[(1005, 1)]), again, foreign];
    memory.learn(&replica("a"), 1000, response(all), 1020);
    assert_eq!(memory.proxies("mesh-1").len(), 2);
    assert!(memory.proxies("mesh-2").is_empty());
}

#[test]
fn only_what_is_new_is_asked_for_and_a_late_report_is_not_missed() {
    let mut memory = begun(1000);
    assert_eq!(memory.ask_since("a"), 1000);
    let both = |quick: i64, slow: i64| {
        vec![observed("quick", quick, &[(quick - 5, 1)]), observed("slow", slow, &[(slow - 5, 1)])]
    };
    memory.learn(&replica("a"), 1000, response(both(1100, 1100)), 1101);
    assert_eq!(memory.ask_since("a"), 1095 - OVERLAP);
    // While it is silent for a short time the question reaches back to it.
    memory.learn(&replica("a"), 1080, response(both(1150, 1100)), 1151);
    assert_eq!(memory.ask_since("a"), 1095 - OVERLAP);
    memory.learn(&replica("a"), 1080, response(both(1300, 1100)), 1301);
    let since = memory.ask_since("a");
    assert_eq!(since, 1295 - OVERLAP);
    // It comes back with all that it kept, of which the replica tells only what it was asked for.
    memory.learn(&replica("a"), since, response(both(1305, 1305)), 1306);
    assert_eq!(memory.ask_since("a"), 1095 - OVERLAP);
    let late: Vec<_> = (1100..1310).step_by(5).map(|start| (start, 1)).collect();
    let all = vec![observed("quick", 1310, &[(1305, 1)]), observed("slow", 1310, &late)];
    memory.learn(&replica("a"), 1095 - OVERLAP, response(all), 1311);
    assert_eq!(memory.ask_since("a"), 1305 - OVERLAP);
    assert_eq!(slots(&memory, "slow").len(), 43);
}

#[test]
fn what_a_new_proxy_told_before_is_asked_for_once() {
    let mut memory = begun(1000);
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1100, &[(1095, 1)])]), 1101);
    let since = memory.ask_since("a");
    let both = || vec![observed("p", 1105, &[(1100, 1)]), observed("new", 1105, &[(1100, 1)])];
    memory.learn(&replica("a"), since, response(both()), 1106);
    assert_eq!(memory.ask_since("a"), 1000);
    memory.learn(&replica("a"), 1000, response(both()), 1107);
    assert_eq!(memory.ask_since("a"), 1100 - OVERLAP);
}

#[test]
fn a_proxy_without_traffic_does_not_make_every_question_longer() {
    let mut memory = begun(1000);
    for now in (1100..2000).step_by(5) {
        let since = memory.ask_since("a");
        memory.learn(&replica("a"), since, response(vec![observed("idle", now, &[])]), now);
    }
    assert!(memory.ask_since("a") >= 1995 - SILENT - OVERLAP);
}

#[test]
fn another_upgrade_begins_with_nothing() {
    let mut memory = begun(1000);
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1012, &[(1005, 5)])]), 1020);
    memory.begin("one", 1000, 1100);
    assert_eq!(memory.proxies("mesh-1").len(), 1);
    memory.begin("two", 1000, 1100);
    assert!(memory.proxies("mesh-1").is_empty() && memory.health("mesh-1").is_empty());
    assert_eq!(memory.ask_since("a"), 1000);
}

#[test]
fn what_is_not_needed_is_forgotten_and_can_be_asked_for_again() {
    let mut memory = begun(1000);
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1012, &[(1000, 5), (1005, 5)])]), 1020);
    memory.begin("one", 1005, 1100);
    assert_eq!(slots(&memory, "p"), [(1005, 5)]);
    memory.begin("one", 1000, 1100);
    assert_eq!(memory.ask_since("a"), 1000);
    memory.begin("one", 0, 10_000);
    assert_eq!(memory.since(), 10_000 - LONGEST);
    assert!(memory.proxies("mesh-1").is_empty(), "its last report is long ago");
}

#[test]
fn a_proxy_drains_since_its_last_report_of_the_contrary() {
    let mut memory = begun(1000);
    let drain =
        |pod: &str, at: i64| ObservedProxy { proxy: Some(proxy(pod, true)), ..observed(pod, at, &[]) };
    memory.learn(&replica("a"), 1000, response(vec![observed("p", 1010, &[]), drain("late", 1010)]), 1011);
    memory.learn(&replica("a"), 1000, response(vec![drain("p", 1015)]), 1016);
    // An older report of another replica takes nothing back.
    memory.learn(&replica("b"), 1000, response(vec![observed("p", 1012, &[])]), 1017);
    let drains: Vec<_> = memory.proxies("mesh-1").values().map(|seen| seen.drains_since).collect();
    assert_eq!(drains, [Some(i64::MIN), Some(1010)]);
}

#[test]
fn memory_is_bounded_by_forgetting_the_past_of_all_proxies_alike() {
    let mut memory = begun(10_000);
    let hour: Vec<_> = (10_000..13_600).step_by(5).map(|start| (start, 1)).collect();
    let all = (0..100).map(|n| observed(&format!("p{n}"), 13_600, &hour)).collect();
    memory.learn(&replica("a"), 10_000, response(all), 13_600);
    let kept: Vec<_> = memory.proxies("mesh-1").values().map(|seen| seen.slots.len()).collect();
    assert!(kept.iter().sum::<usize>() <= SLOTS && kept.iter().all(|n| *n == kept[0] && *n > 300));
    let since = memory.since();
    memory.begin("one", 10_000, 13_600);
    assert_eq!(memory.since(), since, "it does not come back only to go again");
}

#[test]
fn a_sample_says_what_the_replica_said() {
    let mut memory = begun(1000);
    let health = Health {
        started: 1,
        streams: vec!["shop/a".to_owned(), "shop/b".to_owned()],
        streams_opened: 3,
        configurations_refused: 4,
        certificates_signed: 5,
        certificates_refused: 6,
        resident_bytes: 7,
        translation_seconds: 8.5,
        translations: 9,
    };
    memory.learn(
        &replica("a"),
        1000,
        ObserveResponse { health: Some(health.clone()), ..ObserveResponse::default() },
        1020,
    );
    let expected = ReplicaHealth {
        pod: "cp-a".to_owned(),
        at: 1020,
        started: 1,
        resident_bytes: 7,
        configurations_refused: 4,
        streams_opened: 3,
        open_streams: 2,
        translations: 9,
        translation_seconds: 8.5,
    };
    assert_eq!(**memory.health("mesh-1").values().next().unwrap(), [expected]);
    memory.learn(
        &replica("b"),
        1000,
        ObserveResponse { health: Some(health), ..ObserveResponse::default() },
        1020,
    );
    assert_eq!(memory.certificates("mesh-1"), Certificates { signed: 10, refused: 12 });
    assert_eq!(memory.certificates("mesh-2"), Certificates::default());
}

#[test]
fn samples_of_health_are_thinned_and_those_of_old_replicas_go() {
    let mut memory = begun(1000);
    for now in 0..2000 {
        memory.learn(&replica("a"), 1000, response(Vec::new()), 1000 + now);
    }
    let health = memory.health("mesh-1");
    let samples = &health[&("cp-a".to_owned(), "a".to_owned())];
    assert!(samples.len() <= SAMPLES && samples[0].at == 1000 && samples.last().unwrap().at >= 2990);
    for n in 0..100 {
        memory.learn(&replica(&n.to_string()), 1000, response(Vec::new()), 5000 + n);
    }
    assert_eq!(memory.health("mesh-1").len(), REPLICAS);
}

proptest! {
    #[test]
    fn the_order_in_which_replicas_answer_does_not_matter(
        answers in prop::collection::vec((0..3usize, 0..2usize, 1000..1060i64, prop::collection::vec((0..12i64, 0..9u64), 0..6)), 0..12)
    ) {
        let learn = |order: &[usize]| {
            let mut memory = begun(1000);
            for index in order {
                let (replica_, pod, report, slots) = &answers[*index];
                let slots: Vec<_> = slots.iter().map(|(n, requests)| (1000 + n * 5, *requests)).collect();
                let told = response(vec![observed(["p", "q"][*pod], *report, &slots)]);
                memory.learn(&replica(["a", "b", "c"][*replica_]), 1000, told, 1060);
            }
            (slots(&memory, "p"), slots(&memory, "q"))
        };
        let forward: Vec<_> = (0..answers.len()).collect();
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        prop_assert_eq!(learn(&forward), learn(&backward));
    }
}
