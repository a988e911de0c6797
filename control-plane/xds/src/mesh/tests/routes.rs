//! What routes make of the resources.

use envoy_types::pb::envoy::config::cluster::v3::Cluster as EnvoyCluster;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::filter_state_matcher::Matcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::routed::{backend, route, rule};
use super::*;

/// With backends that take no mutual TLS, and a Service that has no endpoint.
fn shop_with_routes(namespaces: &[&str]) -> Cluster {
    let routes = namespaces.iter().map(|namespace| {
        let rules = vec![rule("/a", vec![backend("away", 1), backend("web", 1)])];
        route(namespace, "r", "empty", rules)
    });
    shop().service("empty", &["10.96.0.5"], 80, Protocol::Http, &[]).routed(routes.collect())
}

/// Name, path or status, and namespace of the caller of each route of a virtual host.
fn routes(cluster: &Cluster, host: &str) -> Vec<String> {
    let table: RouteConfiguration = decode(&snapshot(cluster, "n1"), TypeUrl::Route, "node/http");
    let host = table.virtual_hosts.into_iter().find(|known| known.name == host).unwrap();
    let describe = |route: envoy_types::pb::envoy::config::route::v3::Route| {
        let what = match &route.action {
            Some(Action::Route(action)) if route.name.is_empty() => format!("{:?}", action.cluster_specifier),
            Some(Action::DirectResponse(answer)) => answer.status.to_string(),
            _ => route.name.clone(),
        };
        let caller = route.r#match.unwrap().filter_state.into_iter().map(|state| {
            let Some(Matcher::StringMatch(matcher)) = state.matcher else { panic!("no text") };
            let Some(MatchPattern::Prefix(prefix)) = matcher.match_pattern else { panic!("no prefix") };
            format!(" from {prefix}")
        });
        what + &caller.collect::<String>()
    };
    host.routes.into_iter().map(describe).collect()
}

#[test]
fn a_service_with_routes_is_there_and_so_are_their_backends() {
    let added = changes::changed(&shop(), &shop_with_routes(&["shop"]), "n1");
    let expected = [
        "Cluster outbound|80|away|shop",
        "Cluster outbound|80|empty|shop",
        "ClusterLoadAssignment outbound|80|away|shop",
        "ClusterLoadAssignment outbound|80|empty|shop",
        "RouteConfiguration node/http",
        "TypedExtensionConfig node/services",
    ];
    assert_eq!(added, expected);
    let removed = changes::changed(&shop_with_routes(&["shop"]), &shop(), "n1");
    assert_eq!(removed, expected);
}

#[test]
fn consumers_come_first_and_end_with_404() {
    let host = "outbound|80|empty|shop";
    let web = " from spiffe://cluster.local/ns/web/sa/";
    let expected = [format!("web/r/0/0{web}"), format!("404{web}"), "shop/r/0/0".to_owned()];
    assert_eq!(routes(&shop_with_routes(&["shop", "web"]), host), expected);
    let alone = routes(&shop_with_routes(&["web"]), host);
    assert_eq!(alone[..2], expected[..2]);
    assert!(alone[2].contains("outbound|80|empty|shop"), "{alone:?}");
}

#[test]
fn a_backend_of_another_protocol_gets_a_cluster_for_routes_beside_its_own() {
    let route = route("shop", "r", "web", vec![rule("/", vec![backend("tcp", 1)])]);
    let cluster = shop().service("tcp", &["10.96.0.6"], 80, Protocol::Tcp, &[("10.0.2.1", 80)]);
    let added = changes::changed(&cluster, &cluster.clone().routed(vec![route]), "n1");
    assert_eq!(added, ["Cluster outbound|80|tcp|shop", "RouteConfiguration node/http"]);
}

/// What goes to `*` leaves in plaintext.
#[test]
fn whatever_is_in_the_mesh_has_a_virtual_host() {
    for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Detect] {
        let cluster = shop().service("new", &["10.96.0.9", "fd96::9"], 80, protocol, &[("10.0.2.1", 80)]);
        let snapshot = snapshot(&cluster, "n1");
        let table: RouteConfiguration = decode(&snapshot, TypeUrl::Route, "node/http");
        let mut domains: Vec<_> = table.virtual_hosts.iter().flat_map(|host| host.domains.clone()).collect();
        domains.sort();
        let all = ["10.96.0.1:80", "10.96.0.2:3306", "10.96.0.3:8000", "10.96.0.9:80"];
        let six = ["[fd96::1]:80", "[fd96::3]:8000", "[fd96::9]:80"];
        assert_eq!(domains, [&["*"], &all[..], &six[..]].concat(), "{protocol:?}");
        // And each leads to a cluster that there is, and that speaks HTTP.
        for host in table.virtual_hosts.iter().filter(|host| host.name != "*") {
            let Some(Action::Route(action)) = &host.routes[0].action else { panic!("no route") };
            let Some(ClusterSpecifier::Cluster(name)) = &action.cluster_specifier else {
                panic!("no cluster")
            };
            let cluster: EnvoyCluster = decode(&snapshot, TypeUrl::Cluster, name);
            assert!(!cluster.typed_extension_protocol_options.is_empty(), "{name}");
        }
    }
}

/// Of thousands, most did not change.
#[test]
fn virtual_hosts_of_other_ports_are_not_encoded_again() {
    let before = shared(&shop_with_routes(&["shop"]));
    let rules = vec![rule("/b", vec![backend("away", 1), backend("web", 1)])];
    let after = shop().service("empty", &["10.96.0.5"], 80, Protocol::Http, &[]);
    let after = after.routed(vec![route("shop", "r", "empty", rules)]);
    let next = before.next(&after.mesh);
    let is_same = |name: &str| {
        let (one, other) = (before.hosts(name), next.hosts(name));
        assert!(!one.is_empty() && one.len() == other.len(), "{name}");
        one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
    };
    // The first is a backend of the route's.
    let ports = ["outbound|80|web|shop", "outbound|3306|db|shop", "outbound|8000|any|shop"];
    assert!(ports.into_iter().all(is_same));
    assert!(!is_same("outbound|80|empty|shop"));
    // Put together they are the table that is made from nothing.
    assert_eq!(differences(&node(&next, &after.mesh, "n1", PORTS), &snapshot(&after, "n1")), [""; 0]);
}

#[test]
fn endpoints_of_a_backend_change_endpoints_only() {
    let before = shop_with_routes(&["shop"]);
    let mut after = before.clone();
    let moved = Arc::new(of(&[("10.0.3.2", 8080)]));
    Arc::make_mut(&mut after.mesh.backends).insert((ObjectKey::new("shop", "away"), 80), moved);
    assert_eq!(changes::changed(&before, &after, "n2"), ["ClusterLoadAssignment outbound|80|away|shop"]);
}
