use super::*;

mod looks;
mod probes;
mod properties;

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
