//! What TCPRoutes make of the resources.

use super::content::expressions;
use super::routed::{backend, route, rule, tcp_route};
use super::*;

const SHARE: &str = "filter_state['meshwright.io/drawn']";

/// With a second database that takes no mutual TLS.
fn databases() -> Cluster {
    shop().service("db-v2", &["10.96.0.8"], 3306, Protocol::Tcp, &[("10.0.3.1", 3306)])
}

/// What is said beside the chains of protocols.
fn chosen(cluster: &Cluster) -> Vec<String> {
    let all = expressions(&snapshot(cluster, "n1"), "node/services");
    all.into_iter().skip_while(|text| text != "%UNIQUE_ID%").skip(1).collect()
}

fn caller_in(namespace: &str) -> String {
    let identity = "filter_state['envoy.tls.certificate_mappers.on_demand_secret']";
    let of = format!("spiffe://cluster.local/ns/{namespace}/sa");
    format!("{identity} >= b'{of}/' && {identity} < b'{of}0'")
}

#[test]
fn a_connection_gets_a_cluster_by_weight() {
    let routes = vec![tcp_route("shop", "db", &[("db", 2), ("gone", 1), ("db-v2", 1)])];
    let cluster = databases().routed(routes);
    let choice = format!(
        "({SHARE} < b'80000000' ? 'outbound|3306|db|shop' : {SHARE} < b'c0000000' ? 'nobody' : 'outbound|3306|db-v2|shop')"
    );
    assert_eq!(
        chosen(&cluster),
        [format!("%CEL(destination.address in ['10.96.0.2:3306'] ? {choice} : '')%")]
    );
    let changed = changes::changed(&databases(), &cluster, "n1");
    let expected = [
        "Cluster outbound|3306|db-v2|shop",
        "Cluster outbound|3306|db|shop",
        "ClusterLoadAssignment outbound|3306|db-v2|shop",
        "TypedExtensionConfig node/services",
    ];
    assert_eq!(changed, expected, "no listener, and no route of requests");
}

#[test]
fn without_a_backend_it_leads_nowhere_and_without_routes_nothing_is_drawn() {
    let cluster = databases().routed(vec![tcp_route("shop", "db", &[("gone", 1)])]);
    assert_eq!(chosen(&cluster), ["%CEL(destination.address in ['10.96.0.2:3306'] ? 'nobody' : '')%"]);
    assert!(
        expressions(&snapshot(&databases(), "n1"), "node/services").iter().all(|text| text.contains("CEL"))
    );
}

#[test]
fn a_consumers_route_is_for_callers_of_its_namespace_and_may_make_tcp_of_http_for_them() {
    let routes = vec![tcp_route("web", "web", &[("db-v2", 1)]), tcp_route("web", "db", &[("db-v2", 1)])];
    let (web, db) = (
        "destination.address in ['10.96.0.1:80','[fd96::1]:80']",
        "destination.address in ['10.96.0.2:3306']",
    );
    let theirs = caller_in("web");
    let cluster = databases().routed(routes);
    let expected = [
        format!("%CEL({db} && {theirs} ? 'outbound|3306|db-v2|shop' : '')%"),
        format!("%CEL({web} && {theirs} ? 'tcp' : '')%"),
        format!("%CEL({web} && {theirs} ? 'outbound|3306|db-v2|shop' : '')%"),
    ];
    let mut found = chosen(&cluster);
    found.sort_by_key(|text| text.contains(web));
    assert_eq!(found, expected);
}

#[test]
fn who_has_routes_about_requests_has_none_of_the_producers_connections() {
    let own = route("web", "http", "any", vec![rule("/", vec![backend("away", 1)])]);
    let cluster = databases().routed(vec![tcp_route("shop", "any", &[("db", 1)]), own]);
    let any = "destination.address in ['10.96.0.3:8000','[fd96::3]:8000']";
    let theirs = caller_in("web");
    let expected = [
        format!("%CEL({any} ? 'outbound|3306|db|shop' : '')%"),
        format!("%CEL({any} && {theirs} ? 'detect' : '')%"),
        format!("%CEL({any} && {theirs} ? destination.address : '')%"),
    ];
    assert_eq!(chosen(&cluster), expected);
}
