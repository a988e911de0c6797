//! With what a control plane really makes of a mesh.

use std::{collections::BTreeMap, sync::Arc};

use meshwright_core::{
    ObjectKey,
    endpoints::{Endpoint, EndpointHealth, Endpoints},
    mesh::{
        self, Attributes, Authorization, Member, Mesh, MeshPort, MeshService, Node, Peer, Protocol, Rule,
        RuleSet,
    },
    model::AuthorizedPath,
};
use meshwright_xds::mesh::policy_version;

use super::{
    claim, pods,
    stage::{Stage, names, says},
};
use meshwright_proto::nodes::{Admission, PodPolicy};

use crate::{
    node::{rules::MARK, sockets::Sockets},
    tests::fake::eventually,
};

pub(super) const SERVICE: &str = "10.96.0.10";
/// Ports of SMTP and MySQL, where servers speak first.
const FIRST: [u16; 2] = [25, 3306];

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// Both pods are members; the Service has the second one as its endpoint; these take mutual TLS.
pub(super) fn mesh(addresses: &[String; 2], captured: &[usize]) -> Mesh {
    let identity =
        |index: usize| -> Arc<str> { format!("spiffe://cluster.local/ns/shop/sa/u{index}").into() };
    let members = addresses.iter().zip(0..).map(|(address, index)| {
        let pod = key(&format!("pod-u{index}"));
        (
            format!("u{index}"),
            Member {
                pod,
                identity: identity(index),
                addresses: vec![address.clone()],
                workload: "app".into(),
            },
        )
    });
    let endpoint = Endpoint {
        address: addresses[1].clone(),
        port: 9001,
        health: EndpointHealth::Ready,
        node: Some("n1".to_owned()),
    };
    let endpoints = Arc::new(Endpoints { zones: [(String::new(), vec![endpoint])].into() });
    let port = MeshPort { protocol: Protocol::Http, endpoints };
    let service = MeshService {
        addresses: vec![SERVICE.to_owned()],
        ports: [(80, port)].into(),
        balancing: Default::default(),
    };
    let peers: BTreeMap<_, _> = captured
        .iter()
        .map(|index| {
            (
                addresses[*index].clone(),
                Peer { uid: format!("u{index}").into(), identity: identity(*index), ..Peer::default() },
            )
        })
        .collect();
    Mesh {
        nodes: [("n1".to_owned(), Arc::new(Node { members: members.collect(), ..Node::default() }))].into(),
        services: Arc::new([(key("app"), Arc::new(service))].into()),
        peers: Arc::new(peers),
        ..Mesh::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pods_of_a_node_talk_mutual_tls() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let labs = pods();
    labs[1].answers(9001, "app over HTTP");
    labs.iter().for_each(super::super::lab::Lab::routes_everything);
    let addresses = labs.each_ref().map(|lab| lab.addresses[0].to_string());
    for (lab, uid) in labs.iter().zip(["u0", "u1"]) {
        stage.wrote_down(uid, lab);
        stage.member(uid, &lab.addresses[..1]);
    }
    stage.publish_mesh(&mesh(&addresses, &[]));
    stage.order(|order| order.claim = claim("old", 1));
    let (envoy, agent) = (stage.envoy(), stage.agent().await);
    eventually("captured", async || stage.captured(1) == Some(names(&["u0", "u1"]))).await;
    let secured = || Sockets::of(&labs[1].netns).unwrap().connected(&[15108]);
    let [caller, target] = &labs;
    assert_eq!(
        says(caller, target.addresses[0], 9001).await,
        "app over HTTP",
        "nobody says yet that it takes mutual TLS"
    );
    assert_eq!(secured(), 0);

    stage.publish_mesh(&mesh(&addresses, &[0, 1]));
    eventually("the Service", async || says(caller, SERVICE.parse().unwrap(), 80).await == "app over HTTP")
        .await;
    assert!(secured() > 0, "it went in plaintext");
    eventually("the pod itself", async || {
        let before = secured();
        says(caller, target.addresses[0], 9001).await == "app over HTTP" && secured() >= before
    })
    .await;
    assert_eq!(caller.reaches(target.addresses[0], 9000, 0), super::APP, "and what the server begins");

    // Servers that speak first, where plaintext is taken and where it is not: what is said before and after is the same.
    FIRST.iter().for_each(|port| target.serves(*port, "220 ready"));
    for strict in [false, true] {
        let policy = PodPolicy { refused: strict, ..PodPolicy::default() };
        stage.order(|order| _ = order.policies.insert("u1".to_owned(), policy));
        let plain = if strict { "connection refused" } else { "220 ready" };
        for port in FIRST {
            let what = format!("plaintext to {port}, strict {strict}");
            eventually(&what, async || caller.reaches(target.addresses[0], port, MARK) == plain).await;
            let since = std::time::Instant::now();
            let mut talk = caller.connect(target.addresses[0], port, 0).unwrap();
            assert_eq!(talk.greeting(), "220 ready", "strict {strict}");
            assert!(since.elapsed() < std::time::Duration::from_secs(1), "somebody waited for the client");
            assert!(talk.lives() && secured() > 0, "port {port}, strict {strict}");
        }
    }
    stage.order(|order| order.policies.clear());
    eventually("plaintext", async || caller.reaches(target.addresses[0], 9000, MARK) == super::APP).await;

    // A caller that is refused from now on loses what is open, and nothing gets around the proxy.
    let mut open = caller.connect(target.addresses[0], 9000, 0).unwrap();
    assert_eq!(open.greeting(), super::APP);
    assert_eq!(caller.reaches(target.addresses[0], 9000, MARK), super::APP, "plaintext");
    let nobody = Some(Admission { limited: true, ..Admission::default() });
    let policy = PodPolicy { refused: true, admission: nobody, ..PodPolicy::default() };
    stage.order(|order| _ = order.policies.insert("u1".to_owned(), policy));
    let since = std::time::Instant::now();
    eventually("cut off", async || !open.lives()).await;
    assert!(since.elapsed() < std::time::Duration::from_secs(5), "{:?}", since.elapsed());
    eventually("no plaintext", async || {
        caller.reaches(target.addresses[0], 9000, MARK) == "connection refused"
    })
    .await;
    assert!(stage.reports().iter().any(|report| !report.callers.is_empty()), "it asked who that was");
    stage.order(|order| order.policies.clear());
    eventually("plaintext", async || caller.reaches(target.addresses[0], 9000, MARK) == super::APP).await;

    // A rule about requests, at a port where something else is connected: that does not go on beside it.
    let mut open = caller.connect(target.addresses[0], 9000, 0).unwrap();
    assert_eq!(open.greeting(), super::APP);
    let paths = vec![AuthorizedPath::Prefix("/admin".to_owned())];
    let http = vec![Attributes { paths, ..Attributes::default() }];
    let rule = Rule { ports: [9000].into(), http, callers: None };
    let enforced = RuleSet { allow: None, deny: vec![rule] };
    let authorization = Authorization { enforced, tried: None };
    let policy = mesh::PodPolicy { authorization, ..mesh::PodPolicy::default() };
    let version = policy_version("u1", "spiffe://cluster.local/ns/shop/sa/u1", &policy);
    let admission = Some(Admission { http_ports: vec![9000], ..Admission::default() });
    let told = PodPolicy { except: vec![9000], admission, version, ..PodPolicy::default() };
    stage.order(|order| _ = order.policies.insert("u1".to_owned(), told));
    let before = std::time::Instant::now();
    while before.elapsed() < std::time::Duration::from_secs(7) {
        assert!(open.lives(), "the proxy has not taken the rules yet");
    }
    let mut restricted = mesh(&addresses, &[0, 1]);
    let node = Arc::make_mut(restricted.nodes.get_mut("n1").unwrap());
    node.policies.insert("u1".to_owned(), Arc::new(policy));
    stage.publish_mesh(&restricted);
    eventually("another way", async || !open.lives()).await;
    let mut next = caller.connect(target.addresses[0], 9000, 0).unwrap();
    assert_ne!(next.greeting(), super::APP, "requests only");
    stage.publish_mesh(&mesh(&addresses, &[0, 1]));
    stage.order(|order| order.policies.clear());
    eventually("plaintext", async || caller.reaches(target.addresses[0], 9000, MARK) == super::APP).await;
    // Who called whom is told.
    eventually("a report of the traffic", async || {
        assert_eq!(says(caller, SERVICE.parse().unwrap(), 80).await, "app over HTTP");
        let mut pairs = stage.traffic().into_iter().flat_map(|report| report.pairs);
        pairs.any(|pair| {
            let slots = pair.slots.iter().map(|slot| (slot.requests, slot.failed));
            let (requests, failed) =
                slots.fold((0, 0), |(all, bad), (more, worse)| (all + more, bad + worse));
            (pair.source_workload.as_str(), pair.destination_service.as_str()) == ("app", "app")
                && requests > 0
                && failed == 0
        })
    })
    .await;
    let text = stage.metrics().await.unwrap();
    let row = r#"meshwright_requests_total{source_namespace="shop",source_workload="app",source_service_account="u0",destination_namespace="shop",destination_service="app",destination_port="80",destination_workload_namespace="shop",destination_workload="",destination_service_account="u1",protocol="HTTP/1.1",response_class="2xx",grpc_status="",flags="",mtls="true"}"#;
    assert!(text.contains(row), "{text}");
    assert!(text.contains("envoy_server_live") && !text.contains("envoy_mesh"), "Envoy's own, and not twice");

    // Envoy alone; what it had is there again at once.
    stage.kill_envoy();
    eventually("again", async || says(caller, SERVICE.parse().unwrap(), 80).await == "app over HTTP").await;
    assert!(secured() > 0);
    agent.end().await;
    envoy.end().await;
}
