//! Clusters that linger.

mod incremental;

use meshwright_core::config::{
    BackendProtocol, CompiledRule, Forward, GatewayConfig, ListenerConfig, PortConfig, PortProtocol,
    RouteEntry, RuleAction, VirtualHostConfig, WeightedBackend,
};
use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
use meshwright_core::model::{HttpRouteMatch, RouteKind};
use meshwright_xds::{Event, Snapshot, TypeUrl};

use super::made::LINGER;
use super::*;

fn names(snapshot: &Snapshot, kind: TypeUrl) -> Vec<String> {
    snapshot.resources(kind).into_iter().flat_map(|all| all.iter()).map(|r| r.name().to_string()).collect()
}

fn cluster(name: &str) -> ClusterRef {
    ClusterRef { service: ObjectKey::new("shop", name), port: 80, protocol: BackendProtocol::Http1 }
}

/// The Gateway `shop/edge` with a route to each of these.
fn gateway(port: u16, clusters: &[ClusterRef]) -> GatewayOutput {
    let entry = |cluster: &ClusterRef| {
        let backend = WeightedBackend {
            cluster: Some(cluster.clone()),
            weight: 1,
            request_headers: Default::default(),
            response_headers: Default::default(),
        };
        let action = RuleAction::Forward(Forward { backends: vec![backend], rewrite: None });
        Arc::new(RouteEntry {
            kind: RouteKind::Http,
            route: cluster.service.clone(),
            rule_index: 0,
            match_index: 0,
            matches: HttpRouteMatch::default(),
            rule: Arc::new(CompiledRule { action, ..CompiledRule::default() }),
        })
    };
    let host = VirtualHostConfig { hostname: "*".to_owned(), routes: clusters.iter().map(entry).collect() };
    let listener = ListenerConfig {
        name: "http".to_owned(),
        hostname: "*".to_owned(),
        certificates: Vec::new(),
        virtual_hosts: vec![Arc::new(host)],
    };
    let ports = vec![PortConfig { port, protocol: PortProtocol::Http, listeners: vec![listener] }];
    let config = Arc::new(GatewayConfig { gateway: edge(), ports });
    let clusters = Arc::new(clusters.iter().cloned().collect());
    GatewayOutput { config, clusters, certificates: BTreeMap::new() }
}

fn edge() -> ObjectKey {
    ObjectKey::new("shop", "edge")
}

fn endpoints(address: &str) -> Arc<Endpoints> {
    let one = Endpoint { address: address.to_owned(), port: 1, health: EndpointHealth::Ready, node: None };
    Arc::new(Endpoints { zones: [(String::new(), vec![one])].into() })
}

/// An output with a route to each of these, and endpoints at this address for these and `kept`.
pub(crate) fn output(routes: &[&str], kept: &[&str], address: &str) -> Output {
    let clusters = |names: &[&str]| names.iter().map(|name| cluster(name)).collect::<Vec<_>>();
    let (routes, kept, endpoints) = (clusters(routes), clusters(kept), endpoints(address));
    let named = routes.iter().chain(&kept);
    Output {
        gateways: [(edge(), Arc::new(gateway(80, &routes)))].into(),
        endpoints: named.map(|cluster| (Arc::new(cluster.clone()), endpoints.clone())).collect(),
        kept: kept.into_iter().collect(),
        mesh: Arc::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn lingering_clusters_have_endpoints_and_outlast_a_refusal() {
    let edge = edge();
    let registry = Registry::default();
    let nacks = Nacks::new(registry.clone());
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let mut translator = Translator::new(registry, nacks.clone(), metrics);
    translator.publish(Arc::new(output(&["a", "b"], &[], "10.0.0.1")));
    let now = output(&["a"], &["b"], "10.0.0.1");
    translator.publish(Arc::new(now.clone()));
    assert_eq!(translator.lingering(), [cluster("b")].into());
    for kind in [TypeUrl::Cluster, TypeUrl::Endpoint] {
        assert_eq!(
            names(translator.made[&edge].snapshot(), kind),
            ["outbound|80|a.shop", "outbound|80|b.shop"],
            "a cluster outlives its last route"
        );
    }
    let version = |translator: &Translator| {
        let snapshot = &translator.made[&edge].snapshot();
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
    translator.publish(Arc::new(moved));
    assert_ne!(before, version(&translator), "an endpoint of a lingering cluster moved");

    let refused = vec![("shop/edge/80".into(), "1".into())];
    let nack = Event::Nack { kind: TypeUrl::Route, resources: refused, message: String::new() };
    nacks.on_event(1, &edge, &nack);
    tokio::time::advance(LINGER * 3).await;
    translator.expire(Instant::now());
    translator.publish(Arc::new(output(&["c"], &["a", "b"], "10.0.0.2")));
    assert_eq!(translator.lingering(), [cluster("a"), cluster("b")].into(), "the last good routes name them");
    assert!(translator.next_expiry() > Some(Instant::now()), "and nobody runs in circles meanwhile");

    let taken = vec![("shop/edge/80".into(), "2".into())];
    nacks.on_event(1, &edge, &Event::Ack { kind: TypeUrl::Route, resources: taken, removed: Vec::new() });
    tokio::time::advance(LINGER).await;
    translator.expire(Instant::now());
    assert!(translator.lingering().is_empty());
    assert_eq!(names(translator.made[&edge].snapshot(), TypeUrl::Cluster), ["outbound|80|c.shop"]);
    assert_eq!(names(translator.made[&edge].snapshot(), TypeUrl::Endpoint), ["outbound|80|c.shop"]);
}
