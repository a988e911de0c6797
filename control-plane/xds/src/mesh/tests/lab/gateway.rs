//! A gateway's Envoy before pods of the mesh, with clusters and endpoints as the gateway's translation makes them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use meshwright_core::config::{
    BackendProtocol, ClusterRef, CompiledRule, Forward, GatewayConfig, ListenerConfig, PortConfig,
    PortProtocol, RouteEntry, RuleAction, VirtualHostConfig, WeightedBackend,
};
use meshwright_core::model::{HeaderModifier, HttpRouteMatch, PathMatch, RouteKind};

use super::*;
use crate::envoy::{Backends, EncodedHosts, Options, cluster, endpoint, translate};

const EDGE: &str = "10.77.0.99:8000";
/// Times that the pod becomes one of the mesh, or is one no more.
const TURNS: usize = 60;
const CLIENTS: usize = 8;

fn config() -> (GatewayConfig, ClusterRef) {
    let service =
        ClusterRef { service: ObjectKey::new("shop", "web"), port: 80, protocol: BackendProtocol::Http1 };
    let backend = WeightedBackend {
        cluster: Some(service.clone()),
        weight: 1,
        request_headers: HeaderModifier::default(),
        response_headers: HeaderModifier::default(),
    };
    let action = RuleAction::Forward(Forward { backends: vec![backend], rewrite: None });
    let entry = RouteEntry {
        kind: RouteKind::Http,
        route: ObjectKey::new("shop", "web"),
        rule_index: 0,
        match_index: 0,
        matches: HttpRouteMatch { path: PathMatch::Prefix("/".to_owned()), ..HttpRouteMatch::default() },
        rule: Arc::new(CompiledRule { action, ..CompiledRule::default() }),
    };
    let host = VirtualHostConfig { hostname: "*".to_owned(), routes: vec![Arc::new(entry)] };
    let listener = ListenerConfig {
        name: "http".to_owned(),
        hostname: "*".to_owned(),
        certificates: Vec::new(),
        virtual_hosts: vec![Arc::new(host)],
    };
    let port = PortConfig { port: 8000, protocol: PortProtocol::Http, listeners: vec![listener] };
    (GatewayConfig { gateway: ObjectKey::new("shop", "edge"), ports: vec![port] }, service)
}

fn snapshot(peers: &BTreeMap<String, Peer>) -> Snapshot {
    let (config, service) = config();
    let translation = translate(&config, &Options::default(), &mut |_| None, &EncodedHosts::default());
    let mut snapshot = Snapshot::default();
    for (kind, resources) in translation.resources {
        resources.into_values().for_each(|resource| snapshot.edit(kind).insert(resource));
    }
    let backends = Backends::new(Arc::new(of(&[("10.77.0.21", 8080), ("10.77.0.12", 8080)])), peers);
    snapshot.edit(TypeUrl::Cluster).insert(cluster::resource(&service, &backends));
    snapshot.edit(TypeUrl::Endpoint).insert(endpoint::resource(&service, &backends));
    snapshot
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_pods_into_the_mesh_and_out_of_it_without_a_failed_request() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let all = lab.cluster.mesh.peers.clone();
    let none = BTreeMap::new();
    let directory = lab.directory.path();
    let edge = Node::start_with("edge", directory, &lab.authority, BTreeMap::new(), |_| {});
    edge.send(snapshot(&none));
    let envoy = Envoy::start(&lab.network.path_of("pod:uid-outside"), directory, &edge);
    envoy.is_ready().await;
    let client = lab.pod("outside");
    assert_eq!(client.source(EDGE).await, "from 10.77.0.99", "in plaintext");

    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        let one = async || {
            let mut failed = Vec::new();
            let mut stream = client.connect(EDGE).await.unwrap();
            while !done.load(Ordering::SeqCst) {
                asked.fetch_add(1, Ordering::SeqCst);
                match client::get(&mut stream, "HTTP/1.1", "").await {
                    // After a minute the gateway says that it wants no more requests on this connection.
                    Ok((head, _))
                        if head.starts_with("HTTP/1.1 200")
                            && head.to_ascii_lowercase().contains("connection: close") =>
                    {
                        stream = client.connect(EDGE).await.unwrap();
                    }
                    Ok((head, _)) if head.starts_with("HTTP/1.1 200") => {}
                    other => {
                        failed.push(format!("{other:?}"));
                        stream = client.connect(EDGE).await.unwrap();
                    }
                }
            }
            failed
        };
        futures::future::join_all((0..CLIENTS).map(|_| one())).await.concat()
    };
    let turns = async {
        for turn in 0..TURNS {
            let peers = if turn % 2 == 0 { &*all } else { &none };
            edge.send(snapshot(peers));
            let source = if turn % 2 == 0 { "from 10.77.0." } else { "from 10.77.0.99" };
            until(&format!("turn {turn}"), async || {
                let by_mtls = envoy.ask("/clusters").await?.contains(":15008::");
                (by_mtls == (turn % 2 == 0) && client.source(EDGE).await.starts_with(source)).then_some(())
            })
            .await;
            let (before, enough) = (asked.load(Ordering::SeqCst), 100);
            until("some requests", async || (asked.load(Ordering::SeqCst) >= before + enough).then_some(()))
                .await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let (failed, ()) = tokio::join!(load, turns);
    let asked = asked.load(Ordering::SeqCst);
    assert_eq!(edge.refused(), [""; 0]);
    let stats = envoy.ask("/stats?filter=(upstream_rq|upstream_cx|ssl|503|retry)&usedonly").await;
    assert!(failed.is_empty(), "{} of {asked}: {failed:?}\n{}", failed.len(), stats.unwrap_or_default());
    println!("{asked} requests while the pods changed {TURNS} times");
    let callers = lab.callers("back", |callers| !callers.is_empty()).await;
    let edge = "spiffe://cluster.local/ns/shop/sa/edge|8080|spiffe://cluster.local/ns/shop/sa/back";
    assert!(callers.iter().all(|caller| caller == edge), "{callers:?}");
}
