use super::*;

const NOW: i64 = 1_000_020;

fn proxy(node: &str, instance: &str) -> NodeProxy {
    NodeProxy { node: node.to_owned(), instance: instance.to_owned(), ..NodeProxy::default() }
}

fn of(service: &str, slots: &[(i64, u64)]) -> Pair {
    let slot = |&(start, requests)| PairSlot { start, requests, ..PairSlot::default() };
    Pair {
        source_namespace: "shop".to_owned(),
        source_workload: "front".to_owned(),
        destination_namespace: "shop".to_owned(),
        destination_service: service.to_owned(),
        destination_port: 80,
        slots: slots.iter().map(slot).collect(),
    }
}

fn observed(nodes: &Nodes, since: i64, now: i64) -> Vec<ObservedNode> {
    nodes.observe(since, now, &["n1", "n2"].map(str::to_owned).into())
}

#[test]
fn a_slot_that_comes_again_replaces_what_was_known_of_its_pair() {
    let mut nodes = Nodes::default();
    let record = |nodes: &mut Nodes, pairs| nodes.record(proxy("n1", "1"), pairs, NOW).unwrap();
    record(&mut nodes, vec![of("web", &[(NOW - 60, 1), (NOW - 30, 2)]), of("db", &[(NOW - 30, 5)])]);
    record(&mut nodes, vec![of("web", &[(NOW - 30, 7), (NOW, 3)])]);
    let pairs = |since| observed(&nodes, since, NOW).remove(0).pairs;
    assert_eq!(pairs(0), [of("db", &[(NOW - 30, 5)]), of("web", &[(NOW - 60, 1), (NOW - 30, 7), (NOW, 3)])]);
    assert_eq!(pairs(NOW), [of("web", &[(NOW, 3)])], "pairs without slots are left out");
    assert_eq!(nodes.observe(0, NOW, &["n2".to_owned()].into()), [], "nobody asked for it");
}

#[test]
fn an_hour_is_kept_and_silent_proxies_go() {
    let mut nodes = Nodes::default();
    for instance in ["1", "2"] {
        nodes.record(proxy("n1", instance), vec![of("web", &[(NOW, 1)])], NOW).unwrap();
    }
    let later = NOW + KEPT - 30;
    nodes
        .record(proxy("n1", "2"), vec![of("web", &[(later, 1)]), of("old", &[(NOW - 30, 1)])], later)
        .unwrap();
    assert_eq!(observed(&nodes, 0, later)[1].pairs, [of("web", &[(NOW, 1), (later, 1)])]);
    nodes.forget(later + 30);
    assert_eq!(nodes.len(), 1);
    assert_eq!(observed(&nodes, 0, later + 30)[0].pairs, [of("web", &[(later, 1)])]);
    nodes.forget(later + KEPT);
    assert_eq!((nodes.len(), nodes.0.bytes), (0, 0));
}

#[test]
fn a_node_has_room_for_its_own_only() {
    let mut nodes = Nodes::default();
    nodes.record(proxy("n2", "x"), vec![of("web", &[(NOW, 1)])], NOW).unwrap();
    for instance in 0..20 {
        nodes.record(proxy("n1", &instance.to_string()), vec![], NOW + instance).unwrap();
    }
    let left: Vec<_> = nodes.0.proxies.keys().map(|(node, _)| node.as_str()).collect();
    assert_eq!(left.iter().filter(|node| **node == "n1").count(), MAX_OF_NODE);
    assert!(left.contains(&"n2"));
    assert!(nodes.0.proxies.contains_key(&("n1".to_owned(), "19".to_owned())));
}

#[test]
fn who_has_too_many_pairs_loses_the_quietest() {
    let mut nodes = Nodes::default();
    nodes.record(proxy("n1", "1"), vec![of("quiet", &[(NOW - 60, 1)])], NOW).unwrap();
    for number in 0..MAX_PAIRS {
        nodes.record(proxy("n1", "1"), vec![of(&format!("s{number}"), &[(NOW, 1)])], NOW).unwrap();
    }
    let pairs = &observed(&nodes, 0, NOW)[0].pairs;
    assert_eq!(pairs.len(), MAX_PAIRS);
    assert!(pairs.iter().all(|pair| pair.destination_service != "quiet"));
}

#[test]
fn what_is_too_much_in_all_loses_the_oldest_of_who_has_most() {
    let mut nodes = Nodes::default();
    nodes
        .record(proxy("n1", "1"), vec![of("a", &[(NOW - 60, 1), (NOW, 1)]), of("b", &[(NOW - 30, 1)])], NOW)
        .unwrap();
    nodes.record(proxy("n2", "1"), vec![of("a", &[(NOW - 90, 1)])], NOW).unwrap();
    let most = nodes.0.bytes - 1;
    nodes.0.shrink(most);
    assert_eq!(observed(&nodes, 0, NOW)[0].pairs, [of("a", &[(NOW, 1)]), of("b", &[(NOW - 30, 1)])]);
    nodes.0.shrink(0);
    assert_eq!(nodes.0.bytes, 0);
    assert!(observed(&nodes, 0, NOW).iter().all(|node| node.pairs.is_empty()));
}

#[test]
fn what_envoy_refused_counts_once_and_not_again_where_the_agent_only_changed_the_replica() {
    let mut nodes = Nodes::default();
    let mut told = |instance: &str, started: i64, refused_configuration: u64| {
        let proxy = NodeProxy { started, refused_configuration, ..proxy("n1", instance) };
        nodes.record(proxy, Vec::new(), NOW).unwrap()
    };
    assert_eq!(told("old", NOW - 3600, 5), 0, "it told another replica");
    assert_eq!(told("old", NOW - 3600, 5), 0);
    assert_eq!(told("old", NOW - 3600, 7), 2);
    assert_eq!(told("new", NOW - 5, 1), 1, "it has just begun");
    assert_eq!(told("new", NOW - 5, 1), 0);
}
