use super::*;

const SWITCH: i64 = 900_000;

/// A node with this many requests in a slot and the share of them that fails, before and after [`SWITCH`].
fn node(name: &str, requests: u64, fails: (f64, f64), until: i64) -> PairSeries {
    // Spread evenly: the sum is right, no slot stands out.
    let mut kept = 0.0;
    let slots = (SWITCH - 1200..until).step_by(30).map(|start| {
        kept += requests as f64 * if start < SWITCH { fails.0 } else { fails.1 };
        let failed = kept as u64;
        kept -= failed as f64;
        Slot { start, requests, failed, ..Slot::default() }
    });
    PairSeries { node: name.to_owned(), pair: "shop/cart to pay/api:80".to_owned(), slots: slots.collect() }
}

fn wave(now: i64) -> Wave {
    Wave {
        moved: [("n1".to_owned(), SWITCH)].into(),
        now,
        waves: 3,
        max_error_increase: 0.005,
        min_requests: 300,
    }
}

fn of(series: &[PairSeries], seconds: i64) -> Verdict {
    judge(series, &wave(SWITCH + seconds))
}

#[test]
fn a_node_that_goes_worse_than_it_did_is_found_and_one_that_does_not_passes() {
    let bad = node("n1", 300, (0.001, 0.02), SWITCH + 600);
    let verdict = of(&[bad], 300);
    assert_eq!(verdict.result, Result::Fail, "{}", verdict.reason);
    assert!(verdict.reason.starts_with("shop/cart to pay/api:80: "), "{}", verdict.reason);
    let good = node("n1", 300, (0.002, 0.002), SWITCH + 600);
    assert_eq!(of(std::slice::from_ref(&good), 300).result, Result::Pass);
    assert_eq!(of(&[good], 60).result, Result::Insufficient, "too early");
    let total = node("n1", 5, (0.0, 1.0), SWITCH + 600);
    assert_eq!(of(&[total], 240).result, Result::Fail, "few requests, none of which arrives");
}

#[test]
fn calls_to_nowhere_that_were_calls_of_a_service_do_not_pass() {
    let told = |failed: u64| {
        let mut now = node("n1", 300, (0.001, 0.0), SWITCH + 600);
        let after = now.slots.extract_if(.., |slot| slot.start >= SWITCH).collect::<Vec<_>>();
        let lost = |slot: Slot| Slot { failed: if slot.requests > 0 { failed } else { 0 }, ..slot };
        let slots = after.into_iter().map(lost).collect();
        let nowhere =
            PairSeries { pair: "shop/cart to addresses of no Service".to_owned(), slots, ..now.clone() };
        [now, nowhere]
    };
    let verdict = of(&told(300), 300);
    assert_eq!(verdict.result, Result::Insufficient, "{}", verdict.reason);
    assert!(
        verdict.reason.starts_with("shop/cart to addresses of no Service: 2400 of 2400"),
        "{}",
        verdict.reason
    );
    // Something new that goes well, or nearly so.
    for failed in [0, 1] {
        assert_eq!(of(&told(failed), 300).result, Result::Pass);
    }
    // It is called from elsewhere, and does not answer there either.
    let elsewhere = PairSeries { node: "n2".to_owned(), ..told(300)[1].clone() };
    let [now, nowhere] = told(300);
    assert_eq!(of(&[now, nowhere, elsewhere], 300).result, Result::Pass);
}

#[test]
fn what_got_worse_on_other_nodes_too_is_not_the_proxys_doing() {
    let rose = |name| node(name, 300, (0.001, 0.05), SWITCH + 600);
    assert_eq!(of(&[rose("n1")], 300).result, Result::Fail);
    assert_ne!(of(&[rose("n1"), rose("n2")], 300).result, Result::Fail);
}

#[test]
fn handshakes_with_pods_of_a_node_that_went_over_are_seen_to_fail_from_elsewhere() {
    let caller = |bad: u64| {
        let slots = (SWITCH - 1200..SWITCH + 600).step_by(30).map(|start| {
            let tls_failures = if start < SWITCH { 0 } else { bad };
            Slot { start, requests: 50, tls_failures, ..Slot::default() }
        });
        PairSeries { node: "n2".to_owned(), pair: "a".to_owned(), slots: slots.collect() }
    };
    assert_eq!(of(&[caller(5)], 300).result, Result::Fail);
    assert_eq!(of(&[caller(0)], 300).result, Result::Pass);
}

#[test]
fn a_burst_of_one_slot_is_no_rise() {
    let mut burst = node("n1", 300, (0.001, 0.001), SWITCH + 600);
    burst.slots.iter_mut().find(|s| s.start == SWITCH + 60).unwrap().failed = 200;
    let verdict = of(&[burst], 600);
    assert_ne!(verdict.result, Result::Fail, "{}", verdict.reason);
}

#[test]
fn connections_and_handshakes_count_as_requests_do() {
    for metric in METRICS {
        let with = |bad: u64| {
            let slots = (SWITCH - 1200..SWITCH + 600).step_by(30).map(|start| {
                let failed = if start < SWITCH { 0 } else { bad };
                let slot = Slot { start, requests: 50, connections: 50, ..Slot::default() };
                match metric {
                    Metric::Requests => Slot { failed, ..slot },
                    Metric::Connections => Slot { connections_failed: failed, ..slot },
                    Metric::Handshakes => Slot { tls_failures: failed, ..slot },
                }
            });
            PairSeries { node: "n1".to_owned(), pair: "a".to_owned(), slots: slots.collect() }
        };
        assert_eq!(of(&[with(5)], 300).result, Result::Fail, "{metric:?}");
        assert_eq!(of(&[with(0)], 300).result, Result::Pass, "{metric:?}");
    }
}

#[test]
fn nodes_without_traffic_hold_nothing_up_and_those_that_fell_silent_do() {
    assert_eq!(of(&[], 300).result, Result::Pass);
    let little = node("n1", 1, (0.0, 0.0), SWITCH + 600);
    assert_eq!(of(std::slice::from_ref(&little), 85).result, Result::Insufficient, "too early");
    assert_eq!(of(&[little], 100).result, Result::Pass, "as much as before");
    for requests in [1, 300] {
        let silent = node("n1", requests, (0.0, 0.0), SWITCH);
        assert_eq!(of(&[silent], 600).result, Result::Insufficient);
        let ended = node("n1", requests, (0.0, 0.0), SWITCH - RECENT);
        assert_eq!(of(&[ended], 600).result, Result::Pass, "it had ended before");
    }
}

/// Random numbers without a crate for them.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }
}

#[test]
fn equal_revisions_are_seldom_taken_for_worse_however_often_one_looks() {
    let mut random = Random(7);
    let (upgrades, mut alarms) = (600, 0);
    for _ in 0..upgrades {
        let series: Vec<PairSeries> = (0..4)
            .map(|pair| {
                let slots = (SWITCH - 900..SWITCH + 600).step_by(30).map(|start| {
                    let failed = (0..60).filter(|_| random.next() < 0.004).count() as u64;
                    Slot { start, requests: 60, failed, ..Slot::default() }
                });
                PairSeries { node: "n1".to_owned(), pair: pair.to_string(), slots: slots.collect() }
            })
            .collect();
        let bad = |seconds: i64| of(&series, seconds).result == Result::Fail;
        alarms += usize::from((60..=600).step_by(30).any(bad));
    }
    assert!(alarms <= upgrades / 100, "{alarms} of {upgrades}");
}
