//! What holds whatever proxies say.

use proptest::prelude::*;

use super::*;

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
