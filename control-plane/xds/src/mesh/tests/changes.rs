//! What a change of the mesh changes, and what it leaves alone.

use std::time::Duration;

use meshwright_core::mesh::{Authorization, Rule, RuleSet};
use tokio::time::Instant;

use super::*;

#[test]
fn equal_meshes_give_equal_bytes() {
    let (one, other) = (snapshot(&shop(), "n1"), snapshot(&shop(), "n1"));
    assert_eq!(differences(&one, &other), [""; 0]);
    for kind in
        [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route, TypeUrl::ExtensionConfig]
    {
        assert!(!names(&one, kind).is_empty(), "{kind}");
    }
}

#[test]
fn equal_telemetry_gives_equal_bytes() {
    let tracing = Tracing { host: "otel".to_owned(), port: 4317, sampling: 10 };
    let made = || {
        let telemetry = Telemetry { tracing: Some(tracing.clone()), access_log: true };
        let cluster = shop();
        node(
            &Shared::new(TRUST_DOMAIN).with_telemetry(telemetry).next(&cluster.mesh),
            &cluster.mesh,
            "n1",
            PORTS,
        )
    };
    let one = made();
    for _ in 0..10 {
        assert_eq!(differences(&one, &made()), [""; 0]);
    }
    let added = ["Cluster otlp", "Listener node", "Listener node/detect", "Listener node/mirror"];
    assert_eq!(differences(&one, &snapshot(&shop(), "n1")), added, "and is the only difference");
}

/// The snapshots of a node before and after a change, where the second is made from what the first left. It has to be the one that is made
/// from nothing.
fn change(before: &Cluster, after: &Cluster, name: &str) -> [Snapshot; 2] {
    let known = shared(before);
    let first = node(&known, &before.mesh, name, PORTS);
    let second = node(&settled(known.next(&after.mesh)), &after.mesh, name, PORTS);
    assert_eq!(differences(&second, &snapshot(after, name)), [""; 0], "made from nothing it is another");
    [first, second]
}

/// Without what lingers.
pub fn settled(mut shared: Shared) -> Shared {
    let now = Instant::now();
    shared.let_go(now);
    shared.let_go(now + Duration::from_secs(60));
    shared
}

pub fn changed(before: &Cluster, after: &Cluster, name: &str) -> Vec<String> {
    let [first, second] = change(before, after, name);
    differences(&first, &second)
}

#[test]
fn a_pod_that_joins_changes_only_its_own_listeners() {
    let after = shop().pod("n1", "new", &[]);
    let expected = [
        "Listener pod/uid-new/inbound",
        "Listener pod/uid-new/outbound",
        "TypedExtensionConfig pod/uid-new/policy",
    ];
    assert_eq!(changed(&shop(), &after, "n1"), expected);
    assert_eq!(changed(&shop(), &after, "n2"), [""; 0]);
}

#[test]
fn listeners_of_pods_that_stay_are_the_same_allocations() {
    let before = shop();
    let [first, second] = change(&before, &before.clone().pod("n1", "new", &[]), "n1");
    for name in names(&first, TypeUrl::Listener) {
        let of = |snapshot: &Snapshot| snapshot.get(TypeUrl::Listener, &name).unwrap().clone();
        assert!(Arc::ptr_eq(&of(&first), &of(&second)), "{name}");
    }
}

#[test]
fn a_pod_that_is_another_gets_other_listeners() {
    let mut after = shop();
    let found = Arc::make_mut(after.mesh.nodes.get_mut("n1").unwrap());
    found.members.get_mut("uid-cart").unwrap().identity = spiffe("other");
    let expected = ["Listener pod/uid-cart/inbound", "Listener pod/uid-cart/outbound"];
    assert_eq!(changed(&shop(), &after, "n1"), expected);
}

#[test]
fn a_pod_that_leaves_takes_its_listeners_along() {
    let mut after = shop();
    Arc::make_mut(after.mesh.nodes.get_mut("n1").unwrap()).members.remove("uid-cart");
    let expected = [
        "Listener pod/uid-cart/inbound",
        "Listener pod/uid-cart/outbound",
        "TypedExtensionConfig pod/uid-cart/policy",
    ];
    assert_eq!(changed(&shop(), &after, "n1"), expected);
}

#[test]
fn a_service_never_touches_a_listener() {
    let before = shop();
    let new = before.clone().service("new", &["10.96.0.9"], 80, Protocol::Tcp, &[("10.0.2.1", 80)]);
    let other = before.clone().without_service("db").service(
        "db",
        &["10.96.0.2"],
        3306,
        Protocol::Detect,
        &[("10.0.2.1", 3306)],
    );
    for after in [new, other, before.clone().without_service("web")] {
        let [first, second] = change(&before, &after, "n1");
        let listeners = |snapshot: &Snapshot| snapshot.resources(TypeUrl::Listener).unwrap().clone();
        assert!(Arc::ptr_eq(&listeners(&first), &listeners(&second)));
        assert!(!differences(&first, &second).is_empty());
    }
}

#[test]
fn a_new_service_is_told_by_what_belongs_to_its_protocol() {
    let with = |protocol| shop().service("new", &["10.96.0.9"], 80, protocol, &[("10.0.2.1", 80)]);
    let (http, by_address) = ("Cluster outbound|80|new|shop", "Cluster 10.96.0.9:80");
    for (protocol, cluster) in
        [(Protocol::Http, http), (Protocol::Tcp, by_address), (Protocol::Detect, by_address)]
    {
        let expected = [
            cluster,
            "ClusterLoadAssignment outbound|80|new|shop",
            "RouteConfiguration node/http",
            "TypedExtensionConfig node/services",
        ];
        assert_eq!(changed(&shop(), &with(protocol), "n1"), expected, "{protocol:?}");
    }
}

#[test]
fn endpoints_change_endpoints_only() {
    let after = shop().service("web", &[], 80, Protocol::Http, &[("10.0.1.2", 8080), ("10.0.2.1", 8080)]);
    assert_eq!(changed(&shop(), &after, "n2"), ["ClusterLoadAssignment outbound|80|web|shop"]);
}

#[test]
fn who_takes_mutual_tls_changes_endpoints_and_the_list_of_peers() {
    // Without the Service that has nobody else.
    let before = shop().without_service("db").service(
        "web",
        &[],
        80,
        Protocol::Http,
        &[("10.0.1.2", 8080), ("10.0.2.1", 8080)],
    );
    let expected = ["ClusterLoadAssignment outbound|80|web|shop", "TypedExtensionConfig node/peers"];
    assert_eq!(changed(&before, &before.clone().without_peer("10.0.2.1"), "n1"), expected);
}

#[test]
fn a_service_is_there_while_one_of_its_endpoints_takes_mutual_tls() {
    let without = |cluster: Cluster| cluster.without_peer("10.0.2.1");
    let expected = [
        "Cluster 10.96.0.2:3306",
        "ClusterLoadAssignment outbound|3306|db|shop",
        "RouteConfiguration node/http",
        "TypedExtensionConfig node/peers",
        "TypedExtensionConfig node/services",
    ];
    assert_eq!(changed(&shop(), &without(shop()), "n1"), expected);
    assert_eq!(changed(&without(shop()), &shop(), "n1"), expected);
}

#[test]
fn what_did_not_change_is_shared_by_all_nodes_and_with_what_was_before() {
    let cluster = shop();
    let first = shared(&cluster);
    let after = cluster.clone().service("web", &[], 80, Protocol::Http, &[("10.0.1.2", 8081)]);
    let second = first.next(&after.mesh);
    let of = |shared: &Shared, name: &str, kind| {
        node(shared, &after.mesh, name, PORTS).resources(kind).unwrap().clone()
    };
    for kind in [TypeUrl::Cluster, TypeUrl::Route] {
        assert!(Arc::ptr_eq(&of(&first, "n1", kind), &of(&second, "n2", kind)), "{kind}");
    }
    let extensions = |shared: &Shared| of(shared, "n1", TypeUrl::ExtensionConfig);
    assert!(Arc::ptr_eq(&extensions(&first), &extensions(&second)));
    let db =
        |shared: &Shared| of(shared, "n1", TypeUrl::Endpoint).get("outbound|3306|db|shop").unwrap().clone();
    assert!(Arc::ptr_eq(&db(&first), &db(&second)));
    assert_ne!(*of(&first, "n1", TypeUrl::Endpoint), *of(&second, "n1", TypeUrl::Endpoint));
    assert!(Arc::ptr_eq(&of(&second, "n1", TypeUrl::Listener), &of(&second, "n1", TypeUrl::Listener)));
}

#[test]
fn a_cluster_lingers_with_its_endpoints_when_nothing_leads_there_any_more() {
    let (before, after) = (shop(), shop().without_service("web").without_service("db"));
    let of = |shared: &Shared, mesh: &Cluster| node(shared, &mesh.mesh, "n1", PORTS);
    let mut gone = shared(&before).next(&after.mesh);
    let first = of(&shared(&before), &before);
    let clusters = |snapshot: &Snapshot| names(snapshot, TypeUrl::Cluster);
    let endpoints = |snapshot: &Snapshot| names(snapshot, TypeUrl::Endpoint);
    let second = of(&gone, &after);
    assert_eq!((clusters(&second), endpoints(&second)), (clusters(&first), endpoints(&first)));
    assert!(differences(&first, &second).contains(&"RouteConfiguration node/http".to_owned()));
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    assert_eq!(gone.next_end(), None, "nobody has looked at the clock");
    assert!(!gone.let_go(start) && !gone.let_go(start + minute / 2));
    assert_eq!(gone.next_end(), Some(start + minute));

    // One comes back, called in another way: of its endpoints there is one version, the present one.
    let cluster =
        before.clone().without_service("db").service("web", &[], 80, Protocol::Tcp, &[("10.0.1.2", 8081)]);
    let mut back = gone.next(&cluster.mesh);
    let third = of(&back, &cluster);
    let is_there = |name: &str| clusters(&third).contains(&name.to_owned());
    assert!(is_there("10.96.0.1:80") && is_there("outbound|80|web|shop") && is_there("10.96.0.2:3306"));
    let name = "outbound|80|web|shop";
    let own = of(&shared(&cluster), &cluster).get(TypeUrl::Endpoint, name).unwrap().version().clone();
    assert_eq!(*third.get(TypeUrl::Endpoint, name).unwrap().version(), own);

    assert!(back.let_go(start + minute));
    assert_eq!(back.next_end(), None);
    assert_eq!(differences(&of(&back, &cluster), &snapshot(&cluster, "n1")), [""; 0]);
    assert!(gone.let_go(start + minute));
    assert_eq!(differences(&of(&gone, &after), &snapshot(&after, "n1")), [""; 0]);
}

#[test]
fn each_slot_has_listeners_of_its_own() {
    let (cluster, other) = (shop(), Ports { outbound: 15201, inbound: 15208 });
    let shared = shared(&cluster);
    let [a, b] = [PORTS, other].map(|ports| node(&shared, &cluster.mesh, "n2", ports));
    let expected = ["Listener pod/uid-db/inbound", "Listener pod/uid-db/outbound"];
    assert_eq!(differences(&a, &b), expected);
}

#[test]
fn a_policy_changes_what_its_pod_refers_to_and_nothing_else() {
    let strict = |ports: &[u16]| {
        let deny = Rule { ports: ports.iter().copied().collect(), ..Rule::default() };
        let enforced = RuleSet { allow: None, deny: vec![deny] };
        let authorization = Authorization { enforced, tried: None };
        shop().policy("n1", "cart", PodPolicy { authorization, ..PodPolicy::default() })
    };
    for (before, after) in [(shop(), strict(&[80])), (strict(&[80]), strict(&[81])), (strict(&[80]), shop())]
    {
        // Somebody may be connected from a time when its rules looked at requests.
        let expected = ["TypedExtensionConfig inbound/rules", "TypedExtensionConfig pod/uid-cart/policy"];
        assert_eq!(changed(&before, &after, "n1"), expected);
        assert_eq!(changed(&before, &after, "n2"), [""; 0]);
        let [first, second] = change(&before, &after, "n1");
        let listeners = |snapshot: &Snapshot| snapshot.resources(TypeUrl::Listener).unwrap().clone();
        assert!(Arc::ptr_eq(&listeners(&first), &listeners(&second)));
    }
}
