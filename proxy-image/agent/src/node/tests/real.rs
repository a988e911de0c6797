//! With what a control plane really makes of a mesh.

use std::{collections::BTreeMap, sync::Arc};

use meshwright_core::{
    ObjectKey,
    endpoints::{Endpoint, EndpointHealth, Endpoints},
    mesh::{Member, Mesh, MeshPort, MeshService, Node, Peer, Protocol},
};

use super::{
    claim, pods,
    stage::{Stage, names, says},
};
use crate::{node::sockets::Sockets, tests::fake::eventually};

const SERVICE: &str = "10.96.0.10";

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".to_owned(), name: name.to_owned() }
}

/// Both pods are members; the Service has the second one as its endpoint; these take mutual TLS.
fn mesh(addresses: &[String; 2], captured: &[usize]) -> Mesh {
    let identity =
        |index: usize| -> Arc<str> { format!("spiffe://cluster.local/ns/shop/sa/u{index}").into() };
    let members = addresses.iter().zip(0..).map(|(address, index)| {
        let pod = key(&format!("pod-u{index}"));
        (format!("u{index}"), Member { pod, identity: identity(index), addresses: vec![address.clone()] })
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
            (addresses[*index].clone(), Peer { uid: format!("u{index}").into(), identity: identity(*index) })
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

    // Envoy alone; what it had is there again at once.
    stage.kill_envoy();
    eventually("again", async || says(caller, SERVICE.parse().unwrap(), 80).await == "app over HTTP").await;
    assert!(secured() > 0);
    agent.end().await;
    envoy.end().await;
}
