use proptest::prelude::*;

use super::*;

const SETTINGS: Settings =
    Settings { max_error_increase: 0.005, max_latency_increase: 0.2, min_requests: 300 };
const LOOK: Look = Look { steps: 3, window: Window::Step };

/// A pod with `slots` slots; `make` fills each by its number. Latencies lie in three buckets.
fn pod(name: &str, slots: i64, make: impl Fn(i64, &mut Slot)) -> ProxySeries {
    let slot = |at| {
        let mut slot = Slot { start: 1_000_000 + at * SLOT_SECONDS, requests: 100, ..Slot::default() };
        make(at, &mut slot);
        if slot.latency.is_empty() {
            slot.latency = latencies(slot.requests, 0);
        }
        slot
    };
    ProxySeries {
        gateway: "demo/gateway".to_owned(),
        pod: name.to_owned(),
        slots: (0..slots).map(slot).collect(),
    }
}

/// Around 20 ms, shifted by buckets.
fn latencies(requests: u64, shift: u32) -> BTreeMap<u32, u64> {
    [(14, 10), (15, 20), (16, 30), (17, 25), (18, 10), (20, 5)]
        .map(|(bucket, percent)| (bucket + shift, requests * percent / 100))
        .into()
}

/// Three pods that fail one request in a thousand.
fn baseline(slots: i64) -> Vec<ProxySeries> {
    ["old-0", "old-1", "old-2"]
        .map(|name| pod(name, slots, |at, slot| slot.failed = u64::from(at % 10 == 3)))
        .into()
}

fn canary(slots: i64, make: impl Fn(i64, &mut Slot)) -> Vec<ProxySeries> {
    vec![pod("new-0", slots, make)]
}

fn look(canary: &[ProxySeries], baseline: &[ProxySeries]) -> Verdict {
    judge(canary, baseline, &SETTINGS, &LOOK)
}

fn ends(verdict: &Verdict) -> (VerdictResult, Cause) {
    (verdict.result, verdict.cause)
}

#[test]
fn no_traffic_says_nothing() {
    let none = look(&[], &[]);
    assert_eq!(ends(&none), (VerdictResult::Insufficient, Cause::TooFewRequests));
    let silent = look(&canary(24, |_, slot| slot.requests = 0), &baseline(24));
    assert_eq!(ends(&silent), (VerdictResult::Insufficient, Cause::TooFewRequests));
    assert_eq!((silent.canary_requests, silent.baseline_requests), (0, 7200));
}

#[test]
fn a_canary_without_a_baseline_says_nothing() {
    let alone = look(&canary(24, |_, _| {}), &[]);
    assert_eq!(ends(&alone), (VerdictResult::Insufficient, Cause::NoBaseline));
    assert_eq!(alone.reason, "the baseline has no requests to compare 2,400 of the canary with");
}

#[test]
fn too_few_requests_do_not_pass() {
    let few = look(&canary(2, |_, _| {}), &baseline(2));
    assert_eq!(ends(&few), (VerdictResult::Insufficient, Cause::TooFewRequests));
    assert_eq!(few.reason, "200 requests of the canary and 600 of the baseline, of at least 300 each");
}

#[test]
fn equal_sides_pass_with_their_figures() {
    let verdict = look(&canary(24, |at, slot| slot.failed = u64::from(at % 10 == 7)), &baseline(24));
    assert_eq!(ends(&verdict), (VerdictResult::Pass, Cause::NothingRose));
    assert_eq!(
        verdict.reason,
        "nothing rose: old 0.1 % errors (9 of 7,200 requests), median 16 ms; new 0.08 % errors (2 of 2,400 requests), median 16 ms"
    );
}

#[test]
fn a_tenfold_rise_of_errors_fails_with_its_figures() {
    let verdict = look(&canary(24, |_, slot| slot.failed = 1), &baseline(24));
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::ErrorsRose));
    assert_eq!(verdict.reason, "errors rose from 0.1 % (9 of 7,200) to 1.0 % (24 of 2,400 requests)");
}

#[test]
fn a_total_failure_fails_from_a_few_dozen_requests() {
    let sparse = |slot: &mut Slot| slot.requests = 10;
    let dead = canary(2, |_, slot| {
        sparse(slot);
        slot.failed = 10;
    });
    let verdict = look(&dead, &[pod("old-0", 2, |_, slot| sparse(slot))]);
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::ErrorsRose));
    assert_eq!(verdict.canary_requests, 20);
}

#[test]
fn a_failure_of_both_sides_does_not_fail() {
    let dead = |_: i64, slot: &mut Slot| slot.failed = slot.requests;
    let verdict = look(&canary(24, dead), &[pod("old-0", 24, dead)]);
    assert_eq!(verdict.result, VerdictResult::Pass);
}

#[test]
fn a_burst_that_both_sides_share_does_not_fail() {
    let burst = |at: i64, slot: &mut Slot| slot.failed = if (6..12).contains(&at) { 30 } else { 0 };
    let verdict = look(&canary(24, burst), &[pod("old-0", 24, burst), pod("old-1", 24, burst)]);
    assert_eq!(verdict.result, VerdictResult::Pass);
}

#[test]
fn a_burst_of_one_side_does_not_fail_until_it_has_lasted() {
    let burst = |seconds: i64| {
        let slots = 12..12 + seconds / SLOT_SECONDS;
        canary(24, move |at, slot| slot.failed = if slots.contains(&at) { 10 } else { 0 })
    };
    assert_eq!(ends(&look(&burst(30), &baseline(24))), (VerdictResult::Insufficient, Cause::InDoubt));
    assert_eq!(look(&burst(60), &baseline(24)).result, VerdictResult::Fail);
}

#[test]
fn one_pod_of_several_does_not_condemn_the_revision() {
    let pods = |bad: usize| -> Vec<ProxySeries> {
        (0..3)
            .map(|n| pod(&format!("new-{n}"), 24, move |_, slot| slot.failed = 5 * u64::from(n < bad)))
            .collect()
    };
    assert_ne!(look(&pods(1), &baseline(24)).result, VerdictResult::Fail);
    assert_eq!(look(&pods(3), &baseline(24)).result, VerdictResult::Fail);
}

#[test]
fn a_lost_route_is_named_before_the_404_that_it_leads_to() {
    let lost = canary(24, |_, slot| {
        slot.flags.no_route = 5;
        slot.client_errors = 5;
    });
    let verdict = look(&lost, &baseline(24));
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::NoRouteRose));
    assert_eq!(
        verdict.reason,
        "requests without a route (NR) rose from 0 % (0 of 7,200) to 5.0 % (120 of 2,400 requests)"
    );
}

#[test]
fn each_flag_fails_by_its_own_cause() {
    type Set = fn(&mut Flags);
    let flags: [(Set, Cause); 4] = [
        (|flags| flags.no_healthy_upstream = 5, Cause::NoHealthyUpstreamRose),
        (|flags| flags.upstream_connection_failure = 5, Cause::UpstreamConnectionFailuresRose),
        (|flags| flags.retry_limit_exceeded = 5, Cause::RetryLimitExceededRose),
        (|flags| flags.upstream_overflow = 5, Cause::UpstreamOverflowRose),
    ];
    for (set, cause) in flags {
        let verdict = look(&canary(24, |_, slot| set(&mut slot.flags)), &baseline(24));
        assert_eq!(ends(&verdict), (VerdictResult::Fail, cause), "{}", verdict.reason);
    }
}

#[test]
fn slow_requests_fail_with_their_median() {
    let slow = canary(24, |_, slot| slot.latency = latencies(slot.requests, 2));
    let verdict = look(&slow, &baseline(24));
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::LatencyRose));
    assert_eq!(verdict.reason, "median latency rose from 16 ms (7,200 requests) to 26 ms (2,400 requests)");
}

#[test]
fn a_slow_tail_fails_although_the_median_stays() {
    let tail = canary(24, |_, slot| {
        slot.latency = latencies(slot.requests, 0);
        slot.latency.extend([(17, 15), (26, 10)]);
    });
    assert_eq!(ends(&look(&tail, &baseline(24))), (VerdictResult::Fail, Cause::TailLatencyRose));
}

#[test]
fn a_canary_that_completes_no_handshake_fails() {
    let refuses = canary(24, |_, slot| {
        slot.requests = 0;
        slot.tls_failures = 20;
        slot.latency = [(0, 0)].into();
    });
    let verdict = look(&refuses, &baseline(24));
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::TlsFailuresRose));
    assert_eq!(
        verdict.reason,
        "failed TLS handshakes rose from 0 % (0 of 7,200) to 100 % (480 of 480 requests and handshakes)"
    );
}

#[test]
fn what_the_user_allows_passes_however_certain_it_is() {
    let steady = |slot: &mut Slot, failed| (slot.requests, slot.failed) = (10_000, failed);
    let verdict = look(
        &canary(24, |_, slot| steady(slot, 40)),
        &[pod("old-0", 24, |_, slot| steady(slot, 10)), pod("old-1", 24, |_, slot| steady(slot, 10))],
    );
    assert_eq!(ends(&verdict), (VerdictResult::Pass, Cause::NothingRose), "{}", verdict.reason);
}

#[test]
fn a_share_of_traffic_that_differs_between_gateways_is_no_rise() {
    // Together the canary fails more, because it has a greater share of the Gateway that fails; each by itself does not.
    let of = |gateway: &str, name: &str, requests: u64, failed: u64| {
        let mut series = pod(name, 24, |_, slot| (slot.requests, slot.failed) = (requests, failed));
        series.gateway = gateway.to_owned();
        series
    };
    let canary = [of("demo/a", "a-new", 10, 0), of("demo/b", "b-new", 100, 10)];
    let baseline = [of("demo/a", "a-old", 1000, 0), of("demo/b", "b-old", 100, 10)];
    assert_eq!(look(&canary, &baseline).result, VerdictResult::Pass);
    let bad = [of("demo/a", "a-new", 100, 5), of("demo/b", "b-new", 100, 10)];
    let verdict = look(&bad, &baseline);
    assert_eq!(ends(&verdict), (VerdictResult::Fail, Cause::ErrorsRose));
    assert!(verdict.reason.starts_with("Gateway demo/a: errors rose"), "{}", verdict.reason);
}

#[test]
fn a_gateway_that_the_canary_does_not_serve_is_not_passed_over() {
    let mut other = pod("b-old", 24, |_, _| {});
    other.gateway = "demo/b".to_owned();
    let mut baseline = baseline(24);
    baseline.push(other);
    let verdict = look(&canary(24, |_, _| {}), &baseline);
    assert_eq!(ends(&verdict), (VerdictResult::Insufficient, Cause::TooFewRequests));
    assert_eq!(verdict.reason, "Gateway demo/b: no request of the canary, 2,400 of the baseline");
}

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

#[test]
fn more_steps_need_more_evidence() {
    // 24 errors against 3 of as many requests: less than one in ten thousand by chance.
    let canary = canary(24, |_, slot| slot.failed = 1);
    let baseline = [pod("old-0", 24, |at, slot| slot.failed = u64::from(at % 8 == 0))];
    let result = |steps| judge(&canary, &baseline, &SETTINGS, &Look { steps, window: Window::Step }).result;
    assert_eq!(result(1), VerdictResult::Fail);
    assert_eq!(result(1000), VerdictResult::Insufficient);
}

fn counts() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, 0..2000_u64, Just(u64::MAX)]
}

fn slots() -> impl Strategy<Value = Slot> {
    let start = prop_oneof![(0..60_i64).prop_map(|n| n * 5), any::<i64>()];
    let latency = proptest::collection::btree_map(prop_oneof![0..70_u32, any::<u32>()], counts(), 0..6);
    (start, [(); 6].map(|()| counts()), latency).prop_map(|(start, counts, latency)| {
        let [requests, failed, client_errors, no_route, retried, tls_failures] = counts;
        let flags = Flags { no_route, retry_limit_exceeded: retried, ..Flags::default() };
        Slot { start, requests, failed, client_errors, flags, tls_failures, latency }
    })
}

fn sides() -> impl Strategy<Value = Vec<ProxySeries>> {
    let series = |gateway: bool, slots| ProxySeries {
        gateway: if gateway { "demo/a" } else { "demo/b" }.to_owned(),
        pod: "pod".to_owned(),
        slots,
    };
    let one = (any::<bool>(), proptest::collection::vec(slots(), 0..12))
        .prop_map(move |(g, slots)| series(g, slots));
    proptest::collection::vec(one, 0..4)
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

proptest! {
    #[test]
    fn whatever_proxies_say_there_is_a_verdict(
        canary in sides(), baseline in sides(), steps in 0..20_usize, allowed in -1.0..2.0_f64, min_requests in counts(),
    ) {
        let settings = Settings { max_error_increase: allowed, max_latency_increase: allowed, min_requests };
        let probe = |series: &ProxySeries| ProbeSeries {
            gateway: series.gateway.clone(),
            pod: series.pod.clone(),
            slots: series.slots.iter().map(|s| ProbeSlot { start: s.start, sent: s.failed, unrouted: s.requests, unanswered: s.tls_failures }).collect(),
        };
        let probes: Vec<ProbeSeries> = canary.iter().map(probe).collect();
        let verdict = judge_with_probes(&canary, &baseline, &probes, &settings, &Look { steps, window: Window::Step });
        prop_assert!(!verdict.reason.is_empty());
    }

    #[test]
    fn a_canary_that_does_what_the_baseline_does_never_fails(side in sides()) {
        let verdict = look(&side, &side);
        prop_assert_ne!(verdict.result, VerdictResult::Fail, "{}", verdict.reason);
    }

    #[test]
    fn the_order_of_pods_and_slots_does_not_matter(canary in sides(), baseline in sides()) {
        let reversed = |side: &[ProxySeries]| -> Vec<ProxySeries> {
            let slots = |series: &ProxySeries| series.slots.iter().rev().cloned().collect();
            side.iter().rev().map(|series| ProxySeries { slots: slots(series), ..series.clone() }).collect()
        };
        let (one, other) = (look(&canary, &baseline), look(&reversed(&canary), &reversed(&baseline)));
        prop_assert_eq!(one.result, other.result);
        prop_assert_eq!(one.canary_requests, other.canary_requests);
    }

    #[test]
    fn nothing_passes_below_the_minimum(canary in sides(), baseline in sides()) {
        let verdict = look(&canary, &baseline);
        if verdict.result == VerdictResult::Pass {
            prop_assert!(verdict.canary_requests >= 300 && verdict.baseline_requests >= 300);
        }
    }
}
