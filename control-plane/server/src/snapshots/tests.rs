//! Clusters that linger, in snapshots and in the translator.

use meshwright_core::config::{
    BackendProtocol, CompiledRule, Forward, GatewayConfig, ListenerConfig, PortConfig, PortProtocol,
    RouteEntry, RuleAction, VirtualHostConfig, WeightedBackend,
};
use meshwright_core::endpoints::{Endpoint, EndpointHealth};
use meshwright_core::model::HttpRouteMatch;
use meshwright_xds::Event;

use super::*;

fn resources(names: &[&str]) -> BTreeMap<TypeUrl, BTreeMap<String, Resource>> {
    let named = |name: &&str| {
        ((*name).to_owned(), Resource::with_version(*name, "1", meshwright_xds::Any::default()))
    };
    let all: BTreeMap<String, Resource> = names.iter().map(named).collect();
    BTreeMap::from([(TypeUrl::Cluster, all.clone()), (TypeUrl::Endpoint, all.clone()), (TypeUrl::Route, all)])
}

fn names(snapshot: &Snapshot, kind: TypeUrl) -> Vec<String> {
    snapshot.resources(kind).into_iter().flat_map(|all| all.iter()).map(|r| r.name().to_string()).collect()
}

fn cluster(name: &str) -> ClusterRef {
    ClusterRef { service: ObjectKey::new("shop", name), port: 80, protocol: BackendProtocol::Http1 }
}

#[test]
fn a_cluster_outlives_its_last_route_and_other_resources_do_not() {
    let first = next_snapshot(None, resources(&["a", "b"]), &Lingering::new());
    let lingering = Lingering::from([("b".into(), (Arc::new(cluster("b")), Instant::now()))]);
    let second = next_snapshot(Some(&first), resources(&["a"]), &lingering);
    assert_eq!(names(&second, TypeUrl::Cluster), ["a", "b"]);
    assert_eq!(names(&second, TypeUrl::Endpoint), ["a", "b"]);
    assert_eq!(names(&second, TypeUrl::Route), ["a"]);
    let third = next_snapshot(Some(&second), resources(&["a"]), &Lingering::new());
    assert_eq!(names(&third, TypeUrl::Cluster), ["a"]);
}

/// An output with a route to each of these, and endpoints at this address for these and `kept`.
fn output(routes: &[&str], kept: &[&str], address: &str) -> Output {
    let entry = |name: &&str| {
        let backend = WeightedBackend {
            cluster: Some(cluster(name)),
            weight: 1,
            request_headers: Default::default(),
            response_headers: Default::default(),
        };
        let action = RuleAction::Forward(Forward { backends: vec![backend], rewrite: None });
        RouteEntry {
            route: ObjectKey::new("shop", *name),
            rule_index: 0,
            match_index: 0,
            matches: HttpRouteMatch::default(),
            rule: Arc::new(CompiledRule { action, ..CompiledRule::default() }),
        }
    };
    let host = VirtualHostConfig { hostname: "*".to_owned(), routes: routes.iter().map(entry).collect() };
    let listener = ListenerConfig {
        name: "http".to_owned(),
        hostname: "*".to_owned(),
        certificates: Vec::new(),
        virtual_hosts: vec![host],
    };
    let ports = vec![PortConfig { port: 80, protocol: PortProtocol::Http, listeners: vec![listener] }];
    let gateway = ObjectKey::new("shop", "edge");
    let config = Arc::new(GatewayConfig { gateway: gateway.clone(), ports });
    let one = Endpoint { address: address.to_owned(), port: 1, health: EndpointHealth::Ready, node: None };
    let endpoints = Arc::new(Endpoints { zones: [(String::new(), vec![one])].into() });
    let clusters = Arc::new(config.clusters());
    Output {
        gateways: [(gateway, Arc::new(GatewayOutput { config, clusters, certificates: BTreeMap::new() }))]
            .into(),
        endpoints: routes
            .iter()
            .chain(kept)
            .map(|name| (Arc::new(cluster(name)), endpoints.clone()))
            .collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn lingering_clusters_have_endpoints_and_outlast_a_refusal() {
    let edge = ObjectKey::new("shop", "edge");
    let registry = Registry::default();
    let nacks = Nacks::new(registry.clone());
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let mut translator = Translator::new(registry, nacks.clone(), metrics);
    translator.publish(&output(&["a", "b"], &[], "10.0.0.1"));
    let now = output(&["a"], &["b"], "10.0.0.1");
    translator.publish(&now);
    assert_eq!(translator.lingering(), [cluster("b")].into());
    let version = |translator: &Translator| {
        let snapshot = &translator.made[&edge].snapshot;
        snapshot
            .resources(TypeUrl::Endpoint)
            .unwrap()
            .get("outbound|80|b.shop")
            .unwrap()
            .version()
            .to_string()
    };
    let before = version(&translator);
    let moved = Output { endpoints: output(&["a"], &["b"], "10.0.0.2").endpoints, ..now };
    translator.publish(&moved);
    assert_ne!(before, version(&translator), "an endpoint of a lingering cluster moved");

    let refused = vec![("shop/edge/80".into(), "1".into())];
    let nack = Event::Nack { kind: TypeUrl::Route, resources: refused, message: String::new() };
    nacks.on_event(1, &edge, &nack);
    tokio::time::advance(LINGER * 3).await;
    translator.expire(Instant::now());
    translator.publish(&output(&["c"], &["a", "b"], "10.0.0.2"));
    assert_eq!(translator.lingering(), [cluster("a"), cluster("b")].into(), "the last good routes name them");
    assert!(translator.next_expiry() > Some(Instant::now()), "and nobody runs in circles meanwhile");

    let taken = vec![("shop/edge/80".into(), "2".into())];
    nacks.on_event(1, &edge, &Event::Ack { kind: TypeUrl::Route, resources: taken, removed: Vec::new() });
    tokio::time::advance(LINGER).await;
    translator.expire(Instant::now());
    assert!(translator.lingering().is_empty());
    assert_eq!(names(&translator.made[&edge].snapshot, TypeUrl::Cluster), ["outbound|80|c.shop"]);
    assert_eq!(names(&translator.made[&edge].snapshot, TypeUrl::Endpoint), ["outbound|80|c.shop"]);
}
