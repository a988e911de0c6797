use proptest::prelude::*;

use super::*;

type Stats = BTreeMap<String, u64>;

fn reading(counters: &Stats, times: &[(f64, u64)]) -> Reading {
    let mut stats: Vec<_> = counters
        .iter()
        .map(|(name, value)| serde_json::json!({"name": format!("cluster.{name}.upstream_cx_none_healthy"), "value": value}))
        .collect();
    let bins: Vec<_> = times
        .iter()
        .map(|(lower, count)| serde_json::json!({"lower_bound": lower, "width": 0, "count": count}))
        .collect();
    let details = serde_json::json!([{"name": "http.shop/front/80.downstream_rq_time", "totals": bins}]);
    stats.push(serde_json::json!({"histograms": {"details": details}}));
    Reading::parse(serde_json::json!({"stats": stats}).to_string().as_bytes()).unwrap()
}

fn stats(all: &[(&str, u64)]) -> Stats {
    all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn buckets_are_those_of_the_contract() {
    assert_eq!((bucket(0.0), bucket(0.5), bucket(0.6), bucket(0.7)), (0, 0, 1, 2));
    for i in 0..LAST_BUCKET {
        let bound = 0.5 * 1.25_f64.powi(i32::try_from(i).unwrap());
        assert_eq!((bucket(bound * 0.999), bucket(bound * 1.001)), (i, i + 1));
    }
    assert_eq!((bucket(54_000.0), bucket(60_000.0), bucket(f64::MAX)), (52, LAST_BUCKET, LAST_BUCKET));
}

#[test]
fn readings_soon_after_the_ends_of_slots_belong_to_the_slot_between_them() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let start = |from, to| start(at(from), at(to)) - at("2026-11-20T12:00:00Z").as_second();
    assert_eq!(start("2026-11-20T12:00:05.05Z", "2026-11-20T12:00:10.051Z"), 5);
    assert_eq!(start("2026-11-20T12:00:04.9Z", "2026-11-20T12:00:09.9Z"), 5, "the clock was set");
    assert_eq!(start("2026-11-20T12:00:05.05Z", "2026-11-20T12:00:12Z"), 5, "envoy was slow");
    assert_eq!(rest(at("2026-11-20T12:00:04.9Z")), Duration::from_millis(100));
    assert_eq!(rest(at("2026-11-20T12:00:05Z")), Duration::from_secs(5));
}

#[test]
fn an_envoy_that_started_again_counts_from_zero() {
    let before = reading(&stats(&[("a", 100)]), &[(0.0, 50), (20.0, 50)]);
    let after = reading(&stats(&[("a", 3)]), &[(0.0, 60), (20.0, 1)]);
    let slot = between(&before, &after, 0);
    assert_eq!(slot.no_healthy_upstream, 3);
    assert_eq!(slot.latency.values().sum::<u64>(), 61, "a histogram is new as a whole");
}

#[test]
fn a_cluster_that_goes_and_comes_back_counts_nothing_twice() {
    let readings = [&[("a", 1000), ("b", 5)][..], &[("b", 7)], &[("b", 7), ("a", 2)]]
        .map(|now| reading(&stats(now), &[]));
    let counted: Vec<_> =
        readings.windows(2).map(|pair| between(&pair[0], &pair[1], 0).no_healthy_upstream).collect();
    assert_eq!(counted, [2, 2]);
}

/// What clusters do within five seconds: requests, their end, or the end of Envoy.
#[derive(Clone, Debug)]
enum Step {
    Count(u8, u64),
    Remove(u8),
    Restart,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4_u8, 1..100_u64).prop_map(|(cluster, count)| Step::Count(cluster, count)),
        1 => (0..4_u8).prop_map(Step::Remove),
        1 => Just(Step::Restart),
        4 => Just(Step::Read),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// More than there was is never reported, and all of it when nothing was lost between two readings.
    #[test]
    fn slots_add_up_to_what_happened(steps in steps()) {
        let (mut clusters, mut last) = (Stats::new(), reading(&Stats::new(), &[]));
        let (mut happened, mut lost, mut reported) = (0, false, 0);
        for step in steps.into_iter().chain([Step::Read]) {
            match step {
                Step::Count(cluster, count) => {
                    *clusters.entry(cluster.to_string()).or_default() += count;
                    happened += count;
                }
                Step::Remove(cluster) => lost |= clusters.remove(&cluster.to_string()).is_some(),
                Step::Restart => {
                    lost |= !clusters.is_empty();
                    clusters.clear();
                }
                Step::Read => {
                    let now = reading(&clusters, &[]);
                    reported += between(&last, &now, 0).no_healthy_upstream;
                    last = now;
                }
            }
            prop_assert!(reported <= happened);
        }
        prop_assert!(lost || reported == happened);
    }
}
