use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000;

fn proxy(gateway: &str, pod: &str, instance: &str) -> Proxy {
    Proxy {
        pod_name: pod.to_owned(),
        pod_namespace: "shop".to_owned(),
        gateway_name: gateway.to_owned(),
        gateway_namespace: "shop".to_owned(),
        instance: instance.to_owned(),
        ..Proxy::default()
    }
}

fn slot(start: i64, success: u64) -> Slot {
    Slot { start, success, latency: [(3, success)].into(), ..Slot::default() }
}

/// Pod, instance, and its slots' start and successes.
type Brief = (String, String, Vec<(i64, u64)>);

fn seen(store: &Store, since: i64, now: i64) -> Vec<Brief> {
    let observed = store.observe(since, now).into_iter();
    let brief = observed.map(|observed| {
        let proxy = observed.proxy.unwrap();
        let slots = observed.slots.iter().map(|slot| (slot.start, slot.success)).collect();
        (proxy.pod_name, proxy.instance, slots)
    });
    brief.collect()
}

fn one(slots: &[(i64, u64)]) -> Vec<Brief> {
    vec![("a".to_owned(), "1".to_owned(), slots.to_vec())]
}

#[test]
fn a_slot_that_comes_again_replaces_what_was_known_and_the_rest_stays() {
    let mut store = Store::default();
    let a = || proxy("edge", "a", "1");
    store.record(a(), &[slot(NOW - 10, 1), slot(NOW - 5, 2)], NOW).unwrap();
    store.record(a(), &[slot(NOW - 5, 7), slot(NOW, 3)], NOW + 3).unwrap();
    assert_eq!(seen(&store, 0, NOW + 3), one(&[(NOW - 10, 1), (NOW - 5, 7), (NOW, 3)]));
    assert_eq!(seen(&store, NOW - 5, NOW + 3), one(&[(NOW - 5, 7), (NOW, 3)]), "from then on");
    let observed = store.observe(0, NOW + 3);
    assert_eq!((observed[0].last_report, &observed[0].slots[2]), (NOW + 3, &slot(NOW, 3)));
    let drained = Proxy { draining: true, ..a() };
    store.record(drained.clone(), &[], NOW + 5).unwrap();
    assert_eq!(store.observe(0, NOW + 5)[0].proxy, Some(drained), "how it is comes with each report");
}

#[test]
fn another_process_of_a_pod_is_told_apart() {
    let mut store = Store::default();
    for instance in ["1", "2"] {
        store.record(proxy("edge", "a", instance), &[slot(NOW, 1)], NOW).unwrap();
    }
    assert_eq!(seen(&store, 0, NOW).len(), 2);
}

#[test]
fn slots_and_proxies_are_forgotten_after_an_hour() {
    let mut store = Store::default();
    let old = [slot(NOW - KEPT, 1), slot(NOW - KEPT + 5, 2), slot(NOW, 3)];
    store.record(proxy("edge", "a", "1"), &old, NOW).unwrap();
    assert_eq!(seen(&store, 0, NOW), one(&[(NOW - KEPT + 5, 2), (NOW, 3)]));
    assert_eq!(seen(&store, 0, NOW + 5), one(&[(NOW, 3)]), "whether or not it was forgotten yet");
    store.forget(NOW + KEPT - 1);
    assert_eq!(store.len(), 1);
    assert!(seen(&store, 0, NOW + KEPT).is_empty());
    store.forget(NOW + KEPT);
    assert_eq!((store.len(), store.0.bytes), (0, 0));
}

#[test]
fn a_gateway_with_too_many_proxies_loses_the_most_silent_of_its_own() {
    let mut store = Store::default();
    store.record(proxy("other", "x", "1"), &[], NOW - 100).unwrap();
    for number in 0..MAX_PROXIES_OF_GATEWAY {
        let time = NOW + i64::try_from(number).unwrap();
        store.record(proxy("edge", &format!("p{number}"), "1"), &[slot(NOW, 1)], time).unwrap();
    }
    let bytes = store.0.bytes;
    store.record(proxy("edge", "new", "1"), &[slot(NOW, 1)], NOW + 900).unwrap();
    assert_eq!((store.len(), store.0.bytes), (MAX_PROXIES_OF_GATEWAY + 1, bytes));
    let pods: Vec<_> = seen(&store, 0, NOW + 900).into_iter().map(|(pod, ..)| pod).collect();
    assert!(
        !pods.contains(&"p0".to_owned())
            && pods.contains(&"x".to_owned())
            && pods.contains(&"new".to_owned())
    );
}

#[test]
fn when_there_are_too_many_of_all_gateways_a_new_gateway_is_refused_and_the_known_go_on() {
    let mut store = Store::default();
    for number in 0..MAX_PROXIES {
        let gateway = format!("g{}", number % 10);
        store.record(proxy(&gateway, &format!("p{number}"), "1"), &[], NOW).unwrap();
    }
    let said = store.record(proxy("new", "p", "1"), &[], NOW).unwrap_err();
    assert!(said.contains("2000"), "{said}");
    store.record(proxy("g1", "p1", "1"), &[slot(NOW, 1)], NOW).unwrap();
    store.record(proxy("g1", "another", "1"), &[], NOW).unwrap();
    assert_eq!(store.len(), MAX_PROXIES);
}

#[test]
fn when_memory_is_short_who_has_most_pays_with_the_oldest() {
    let mut store = Store::default();
    let full = |start| Slot { latency: (0..90).map(|bucket| (bucket, 1000)).collect(), ..slot(start, 1) };
    let hour = |one: &dyn Fn(i64) -> Slot| (0..720).map(|number| one(NOW - number * 5)).collect::<Vec<_>>();
    for pod in ["a", "b"] {
        store.record(proxy("edge", pod, "1"), &hour(&full), NOW).unwrap();
    }
    store.record(proxy("small", "s", "1"), &hour(&|start| slot(start, 1)), NOW).unwrap();
    let before = store.0.bytes;
    store.0.shrink(before);
    assert_eq!(store.0.bytes, before, "there is room");
    let most = before / 2;
    store.0.shrink(most);
    assert!(store.0.bytes <= most && store.0.bytes > most - 1000);
    let observed = store.observe(0, NOW);
    let slots: Vec<_> = observed.iter().map(|proxy| proxy.slots.len()).collect();
    assert_eq!(slots[2], 720, "it has its share and less");
    assert!(slots[0].abs_diff(slots[1]) <= 1 && slots[0] < 400, "{slots:?}");
    let newest = NOW - 5 * i64::try_from(slots[0] - 1).unwrap();
    assert_eq!(observed[0].slots[0].start, newest);
}

proptest! {
    /// The same as a map of what was said last, cut at an hour.
    #[test]
    fn what_is_observed_is_what_was_said_last(
        reports in vec((0_usize..3, vec((0_i64..900, 0_u64..100), 0..20), 0_i64..600, any::<bool>()), 1..20),
    ) {
        let (mut store, mut model, mut now) = (Store::default(), BTreeMap::new(), NOW);
        let mut last = BTreeMap::new();
        for (pod, slots, later, sweeps) in reports {
            now += later;
            let slots: Vec<_> = slots.into_iter().map(|(age, success)| slot((now - age * 5) / 5 * 5, success)).collect();
            let known: &mut BTreeMap<i64, u64> = model.entry(pod).or_default();
            known.extend(slots.iter().map(|slot| (slot.start, slot.success)));
            last.insert(pod, now);
            store.record(proxy("edge", &pod.to_string(), "1"), &slots, now).unwrap();
            if sweeps {
                store.forget(now);
            }
            let expected: Vec<_> = model
                .iter()
                .filter(|(pod, _)| last[pod] > now - KEPT)
                .map(|(pod, slots)| {
                    let slots = slots.iter().filter(|(start, _)| **start > now - KEPT).map(|(a, b)| (*a, *b));
                    (pod.to_string(), "1".to_owned(), slots.collect::<Vec<_>>())
                })
                .collect();
            prop_assert_eq!(seen(&store, 0, now), expected);
            let slots = store.0.proxies.values().flat_map(|known| known.slots.values());
            let bytes: usize = slots.map(|slot| cost(slot)).sum();
            prop_assert_eq!(store.0.bytes, bytes, "what is counted is what is there");
        }
    }
}
