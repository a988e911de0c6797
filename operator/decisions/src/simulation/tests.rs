use super::*;

/// Upgrades per case: few enough for every run of the tests, so the bounds are widened by what chance does to so few.
const UPGRADES: u32 = 150;

/// More than this of so many happens about once in ten thousand times when each has this probability.
fn at_most(probability: f64) -> u32 {
    let mean = f64::from(UPGRADES) * probability;
    (mean + 3.7 * mean.sqrt()).ceil() as u32
}

#[test]
fn every_case_holds() {
    for case in CASES {
        let outcome = run(case, UPGRADES, 0);
        assert_eq!(outcome.upgrades, UPGRADES, "{}", case.name);
        match case.kind {
            Kind::Equal => assert!(outcome.rolled_back <= at_most(0.01), "{}: {outcome:?}", case.name),
            Kind::Faulty { .. } => assert!(outcome.missed <= at_most(0.05), "{}: {outcome:?}", case.name),
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome_on_any_number_of_cores() {
    let (first, rest) = CASES.split_first().unwrap();
    let both = run(first, 20, 7);
    assert_eq!(both, run(first, 20, 7));
    assert_ne!(run(&rest[0], 50, 7).canary_requests_p50, u64::MAX);
    let ends: Vec<End> = (7..27).map(|seed| upgrade(first, &Above::new(first.traffic.shape), seed)).collect();
    assert_eq!(both, outcome(first, &ends));
}

#[test]
fn names_of_cases_are_theirs_alone() {
    let mut names: Vec<_> = CASES.iter().map(|case| case.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CASES.len());
}

#[test]
fn a_case_of_equal_revisions_has_no_fault() {
    for case in CASES {
        assert_eq!(case.kind == Kind::Equal, case.fault == Fault::default(), "{}", case.name);
    }
}

#[test]
fn traffic_is_what_the_case_says() {
    let traffic = CASES[1].traffic;
    let mut random = Random::new(1);
    let above = Above::new(traffic.shape);
    let mut world = World::new(&traffic, &above, &mut random);
    let mut pod = Pod::new(&traffic, true, &mut random);
    let (mut requests, mut failed, mut fast) = (0, 0, 0);
    for at in 0..20_000 {
        world.go(&mut random);
        let slot = world.slot(at * SLOT_SECONDS, &mut pod, 10, &Fault::default(), &mut random);
        requests += slot.requests;
        failed += slot.failed;
        fast += slot.latency.range(..=16).map(|(_, count)| count).sum::<u64>();
        assert_eq!(slot.latency.values().sum::<u64>(), slot.requests);
    }
    let ratio = |part: u64| part as f64 / requests as f64;
    assert!((requests as f64 / (20_000.0 * 50.0) - 1.0).abs() < 0.03, "{requests}");
    assert!((ratio(failed) - traffic.errors).abs() < 0.0002, "{failed} of {requests}");
    // The end of bucket 16 is 17.8 ms, a little below the median of 20 ms.
    assert!((ratio(fast) - 0.4).abs() < 0.05, "{fast} of {requests}");
}
