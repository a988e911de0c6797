//! What the agent of a node gets, and that it gets nothing of other nodes.

use meshwright_api::NodeSlot;
use meshwright_core::mesh::Mesh;
use meshwright_proto::nodes::node_service_client::NodeServiceClient;
use meshwright_proto::nodes::{NodeOrder, NodeReport, SignIdentityRequest};

use super::*;
use crate::metrics::counted;
use crate::nodes::tests::{mesh, report};

const N1: &str = "spiffe://cluster.local/ns/mesh-ns/sa/mesh-1-node/node/n1";
const N2: &str = "spiffe://cluster.local/ns/mesh-ns/sa/mesh-1-node/node/n2";
const OLDER: &str = "spiffe://cluster.local/ns/mesh-ns/sa/mesh-0-node/node/n1";
const GATEWAY: &str = "spiffe://cluster.local/ns/shop/sa/edge-meshwright";

fn id(id: &str) -> Option<SpiffeId> {
    Some(id.parse().unwrap())
}

type Follow = (mpsc::Sender<NodeReport>, Streaming<NodeOrder>);

impl Running {
    fn list(&self, mesh: Mesh) {
        self.outputs.send_replace(Some(Arc::new(Output { mesh: Arc::new(mesh), ..Output::default() })));
    }

    async fn follow(&self, id: Option<SpiffeId>, first: NodeReport) -> Result<Follow, Status> {
        let (sender, more) = mpsc::channel(1);
        let reports = futures::StreamExt::chain(futures::stream::iter([first]), ReceiverStream::new(more));
        let mut client = NodeServiceClient::new(self.connect_as(id).await);
        Ok((sender, client.follow(reports).await?.into_inner()))
    }

    async fn sign(&self, as_whom: Option<SpiffeId>, identity: &str) -> Result<SpiffeId, Status> {
        let (_, csr_der) = new_csr().unwrap();
        let mut client = NodeServiceClient::new(self.connect_as(as_whom).await);
        let request = SignIdentityRequest { csr_der, identity: identity.to_owned() };
        let answer = client.sign_identity(request).await?.into_inner();
        assert_eq!((answer.chain_der.len(), answer.roots_der.len()), (2, 1));
        Ok(peer_identity(&answer.chain_der[0]).unwrap())
    }
}

fn code<T>(result: Result<T, Status>) -> Code {
    result.map(drop).unwrap_err().code()
}

/// What comes next on a stream.
async fn message<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("a message in time")
}

#[tokio::test]
async fn a_token_of_an_agent_buys_the_identity_of_its_node() {
    let running = start().await;
    let mut client = CertificateServiceClient::new(running.connect(None).await);
    let (_, csr) = new_csr().unwrap();
    let answer =
        client.sign_certificate(token_request(Some("node"), csr.clone())).await.unwrap().into_inner();
    assert_eq!(peer_identity(&answer.chain_der[0]).unwrap().as_str(), N1);
    let lost = client.sign_certificate(token_request(Some("lost"), csr)).await;
    assert_eq!(code(lost), Code::PermissionDenied, "nor the account's, which would be nobody's");
}

#[tokio::test]
async fn a_node_gets_its_own_configuration_with_the_ports_of_its_slot() {
    let running = start().await;
    let open = async |identity: &str, node: &str, slot: &str| {
        let metadata =
            [("NODE_NAME", node), ("SLOT", slot), ("POD_NAME", "mesh-1-node-x"), ("REVISION", "mesh-1")];
        Running::ads(running.connect_as(id(identity)).await, &metadata).await
    };
    for (identity, node, slot, expected) in [
        (N2, "n1", "A", Code::PermissionDenied),
        (OLDER, "n1", "A", Code::PermissionDenied),
        (GATEWAY, "n1", "A", Code::InvalidArgument),
        (N1, "n1", "C", Code::InvalidArgument),
        (N1, "n1", "", Code::InvalidArgument),
        (N1, "", "A", Code::InvalidArgument),
    ] {
        assert_eq!(code(open(identity, node, slot).await), expected, "{identity} {node} {slot}");
    }
    assert!(running.nodes.open().is_empty());
    let refused = running.ask(None, "edge").await;
    assert_eq!(code(refused), Code::Unauthenticated);

    let (sender, mut responses) = open(N1, "n1", "B").await.unwrap();
    let key = ("n1".to_owned(), NodeSlot::B);
    assert_eq!(running.nodes.open(), [key.clone()].into());
    let body = Any { type_url: TypeUrl::Cluster.as_str().to_owned(), value: Vec::new() };
    let snapshot = Snapshot::default().with(TypeUrl::Cluster, [Resource::new("original_dst", body)]);
    running.nodes.publish(&key, Arc::new(snapshot));
    let response = message(&mut responses).await.unwrap().unwrap();
    assert_eq!(response.resources[0].name, "original_dst");

    // What it refuses is counted; that it concerns no Gateway, a test of refusals shows.
    let nack = DeltaDiscoveryRequest {
        type_url: TypeUrl::Cluster.as_str().to_owned(),
        response_nonce: response.nonce,
        error_detail: Some(envoy_types::pb::google::rpc::Status {
            message: "no".to_owned(),
            ..Default::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(nack).await.unwrap();
    drop(sender);
    assert!(message(&mut responses).await.unwrap().is_none());
    assert_eq!(counted(&running.metrics.answers, "nack"), 1);
}

#[tokio::test]
async fn an_order_comes_when_everything_was_listed_and_then_when_it_is_another() {
    let running = start().await;
    let (agent, mut orders) = running.follow(id(N1), report(0, &[])).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), orders.message()).await;
    assert!(early.is_err(), "an empty order would take pods out of the mesh");
    let first = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], Some(("mesh-1", 3)));
    running.list(first.clone());
    let order = message(&mut orders).await.unwrap().unwrap();
    assert_eq!(order.members.keys().collect::<Vec<_>>(), ["u1"]);
    assert_eq!((order.claim.unwrap().epoch, order.namespaces.len()), (3, 1));

    // What changes elsewhere only is not told; what comes next is.
    running.list(Mesh { nodes: [("n1".to_owned(), first.nodes["n1"].clone())].into(), ..first.clone() });
    let next = mesh(&[("n1", "u3", "10.0.0.3")], Some(("mesh-1", 4)));
    running.list(Mesh { namespaces: first.namespaces, ..next });
    let order = message(&mut orders).await.unwrap().unwrap();
    assert_eq!(order.members.keys().collect::<Vec<_>>(), ["u3"]);
    assert_eq!(order.claim.unwrap().epoch, 4);

    let known = running.followers.report("n1").unwrap();
    agent.send(report(4, &[("u3", &["10.0.0.3"])])).await.unwrap();
    while running.followers.report("n1").unwrap() == known {
        running.followers.changed().await;
    }
    assert_eq!(running.followers.report("n1").unwrap().1.captured[0].uid, "u3");

    let (_again, mut others) = running.follow(id(N1), report(0, &[])).await.unwrap();
    assert_eq!(message(&mut orders).await.unwrap_err().code(), Code::Aborted, "an agent has one stream");
    assert_eq!(message(&mut others).await.unwrap().unwrap().members.len(), 1, "which gets all at once");
}

#[tokio::test]
async fn nobody_follows_or_reports_for_another_node() {
    let running = start().await;
    let other_revision = NodeReport { revision: "mesh-0".to_owned(), ..report(0, &[]) };
    for (identity, first, expected) in [
        (None, report(0, &[]), Code::Unauthenticated),
        (id(N2), report(0, &[]), Code::PermissionDenied),
        (id(OLDER), report(0, &[]), Code::PermissionDenied),
        (id(GATEWAY), report(0, &[]), Code::PermissionDenied),
        (id(N1), NodeReport::default(), Code::PermissionDenied),
        (id(N1), other_revision.clone(), Code::PermissionDenied),
    ] {
        assert_eq!(code(running.follow(identity.clone(), first).await), expected, "{identity:?}");
    }
    assert!(running.followers.nodes().is_empty());
    for later in [NodeReport { node: "n2".to_owned(), ..report(3, &[]) }, other_revision] {
        let (agent, mut orders) = running.follow(id(N1), report(0, &[])).await.unwrap();
        agent.send(later).await.unwrap();
        assert_eq!(message(&mut orders).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let metrics = &running.metrics.nodes;
    assert_eq!((counted(&metrics.streams, "refused"), counted(&metrics.reports, "refused")), (6, 2));
}

#[tokio::test]
async fn an_identity_is_signed_for_the_node_where_a_pod_has_it() {
    let running = start().await;
    running.list(mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], None));
    let (of_u1, of_u2) =
        ("spiffe://cluster.local/ns/shop/sa/of-u1", "spiffe://cluster.local/ns/shop/sa/of-u2");
    assert_eq!(running.sign(id(N1), of_u1).await.unwrap().as_str(), of_u1);
    for (as_whom, expected) in [
        (None, Code::Unauthenticated),
        (id(GATEWAY), Code::PermissionDenied),
        (id(OLDER), Code::PermissionDenied),
        (id("spiffe://cluster.local/ns/mesh-ns/sa/mesh-1"), Code::PermissionDenied),
    ] {
        assert_eq!(code(running.sign(as_whom, of_u1).await), expected);
    }
    assert_eq!(code(running.sign(id(N1), "of-u1").await), Code::InvalidArgument);

    // A pod that the watch shows a little later.
    let (signed, ()) = tokio::join!(running.sign(id(N1), of_u2), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.list(mesh(&[("n1", "u1", "10.0.0.1"), ("n1", "u2", "10.0.0.2")], None));
    });
    assert_eq!(signed.unwrap().as_str(), of_u2);
    let certificates = |outcome| counted(&running.metrics.certificates, outcome);
    assert_eq!((certificates("signed"), certificates("refused"), certificates("unauthenticated")), (2, 1, 4));
}
