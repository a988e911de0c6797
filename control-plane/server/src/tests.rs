//! The server for agents in this process, over real TLS: who gets which configuration.

mod inspection;
mod nodes;
mod reports;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_core::{GatewayConfig, ObjectKey};
use meshwright_index::Output;
use meshwright_pki::tls::{DynamicIdentity, DynamicRoots, client_config};
use meshwright_pki::{
    Authority, Identity, SpiffeId, certs_to_pem, new_csr, new_root, peer_identity, sign_issuing_ca, sign_leaf,
};
use meshwright_proto::certificates::SignCertificateRequest;
use meshwright_proto::certificates::certificate_service_client::CertificateServiceClient;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, Resource, Snapshot, TypeUrl};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status, Streaming};

use crate::ads::{NodeRegistry, Registry};
use crate::args::Args;
use crate::metrics::Metrics;
use crate::nacks::Nacks;
use crate::nodes::Followers;
use crate::server::State;

const DAY: Duration = Duration::from_secs(86400);

struct Running {
    address: SocketAddr,
    root: Authority,
    issuing: Authority,
    registry: Registry,
    nodes: NodeRegistry,
    followers: Followers,
    outputs: watch::Sender<Option<Arc<Output>>>,
    metrics: Metrics,
    _dir: tempfile::TempDir,
    _drain: tokio_util_guard::Guard,
}

/// Ends the server when a test is over.
mod tokio_util_guard {
    pub struct Guard(pub meshwright_runtime::CancellationToken);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.cancel();
        }
    }
}

const OPERATOR: (&str, &str) = ("meshwright-system", "meshwright-operator");

async fn start() -> Running {
    start_with(&["--operator-id", "spiffe://cluster.local/ns/meshwright-system/sa/meshwright-operator"]).await
}

async fn start_with(more: &[&str]) -> Running {
    meshwright_runtime::install_crypto();
    let root = new_root("cluster.local", Timestamp::now(), DAY * 365).unwrap();
    let issuing = sign_issuing_ca(&root, "mesh-1", Timestamp::now(), DAY * 30).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tls.crt"), certs_to_pem(&[issuing.cert().clone()])).unwrap();
    std::fs::write(dir.path().join("tls.key"), issuing.key().to_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(dir.path().join("ca.crt"), certs_to_pem(&[root.cert().clone()])).unwrap();
    let dir_text = dir.path().to_str().unwrap();
    let args = [
        "control-plane",
        "--pod-name",
        "cp-1",
        "--pod-namespace",
        "mesh-ns",
        "--mesh-name",
        "mesh",
        "--revision",
        "mesh-1",
        "--issuing-ca-dir",
        dir_text,
    ];
    let args = Args::parse_from(args.iter().chain(more));
    let reviewer = kube::Client::new(tower::service_fn(review), "ns");
    let drain = CancellationToken::new();
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let (outputs, receiver) = watch::channel(None);
    let state = State::new(&args, receiver, &metrics);
    let (registry, nodes, followers) = (state.registry.clone(), state.nodes.clone(), state.followers.clone());
    let services = args.services(state, &metrics, &drain);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(args.serve(reviewer, listener, services, metrics.clone(), drain.clone()).unwrap());
    let _drain = tokio_util_guard::Guard(drain);
    Running { address, root, issuing, registry, nodes, followers, outputs, metrics, _dir: dir, _drain }
}

/// The API server: `node` is a token of a node's agent, `lost` one that does not say on which node, any other is a gateway's.
async fn review(
    request: http::Request<kube::client::Body>,
) -> Result<http::Response<kube::client::Body>, std::convert::Infallible> {
    let sent: serde_json::Value =
        serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
    let mut extra = serde_json::json!({"authentication.kubernetes.io/pod-name": ["p"],
        "authentication.kubernetes.io/pod-uid": ["u"]});
    let account = match sent["spec"]["token"].as_str().unwrap() {
        "node" => {
            extra["authentication.kubernetes.io/node-name"] = serde_json::json!(["n1"]);
            "mesh-ns:mesh-1-node"
        }
        "lost" => "mesh-ns:mesh-1-node",
        _ => "shop:edge-meshwright",
    };
    let answer = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": {}, "spec": {}, "status": {"authenticated": true, "audiences": ["meshwright.io/ca"],
        "user": {"username": format!("system:serviceaccount:{account}"), "extra": extra}}});
    Ok(http::Response::new(kube::client::Body::from(answer.to_string().into_bytes())))
}

impl Running {
    /// A client with the certificate of this service account, or none.
    async fn connect(&self, account: Option<(&str, &str)>) -> Channel {
        let id = |(namespace, account)| SpiffeId::workload("cluster.local", namespace, account).unwrap();
        self.connect_as(account.map(id)).await
    }

    /// A client with a certificate of this identity, or none.
    async fn connect_as(&self, id: Option<SpiffeId>) -> Channel {
        let identity = DynamicIdentity::default();
        if let Some(id) = id {
            let (key, csr) = new_csr().unwrap();
            let leaf = sign_leaf(&self.issuing, &csr, &id, &[], Timestamp::now(), DAY).unwrap();
            identity.set(&Identity { chain: vec![leaf, self.issuing.cert().clone()], key }).unwrap();
        }
        let roots = DynamicRoots::new(&[self.root.cert().clone()]).unwrap();
        let server = SpiffeId::workload("cluster.local", "mesh-ns", "mesh-1").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(client_config(identity, roots, server).unwrap()));
        let address = self.address;
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let name = rustls::pki_types::ServerName::try_from("mesh-1.mesh-ns.svc").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        Endpoint::from_static("http://control-plane").connect_with_connector(connector).await.unwrap()
    }

    async fn ask(
        &self,
        account: Option<(&str, &str)>,
        gateway: &str,
    ) -> Result<DeltaDiscoveryResponse, Status> {
        let (_open, mut responses) = self.stream(account, gateway).await?;
        responses.message().await?.ok_or_else(|| Status::cancelled("no response"))
    }

    /// Opens an ADS stream of the pod `edge-1` and asks for clusters; it ends with the sender.
    async fn stream(
        &self,
        account: Option<(&str, &str)>,
        gateway: &str,
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
        let metadata = [("GATEWAY_NAME", gateway), ("GATEWAY_NAMESPACE", "shop"), ("POD_NAME", "edge-1")];
        Self::ads(self.connect(account).await, &metadata).await
    }

    /// Opens an ADS stream of a proxy whose node says this of itself.
    async fn ads(
        channel: Channel,
        metadata: &[(&str, &str)],
    ) -> Result<(mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status> {
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = metadata.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        let first = DeltaDiscoveryRequest {
            node: Some(Node { metadata: Some(Struct { fields }), ..Node::default() }),
            type_url: TypeUrl::Cluster.as_str().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let (sender, more) = mpsc::channel(1);
        let requests = futures::StreamExt::chain(futures::stream::iter([first]), ReceiverStream::new(more));
        Ok((sender, client.delta_aggregated_resources(requests).await?.into_inner()))
    }
}

/// What `shop/edge` is made from, with a listener on port 80 and these routes.
fn config(routes: &[&str]) -> Arc<GatewayConfig> {
    let output = crate::snapshots::tests::output(routes, &[], "10.0.0.1");
    output.gateways[&ObjectKey::new("shop", "edge")].config.clone()
}

#[tokio::test]
async fn a_gateway_gets_its_own_configuration_and_nobody_elses() {
    let running = start().await;
    let body = Any { type_url: TypeUrl::Cluster.as_str().to_owned(), value: Vec::new() };
    let snapshot = Snapshot::default().with(TypeUrl::Cluster, [Resource::new("shop/cart", body)]);
    running.registry.publish(&ObjectKey::new("shop", "edge"), Arc::new(snapshot), config(&[]));

    let response = running.ask(Some(("shop", "edge-meshwright")), "edge").await.unwrap();
    assert_eq!(response.resources[0].name, "shop/cart");
    for (account, code) in [
        (Some(("shop", "default")), Code::PermissionDenied),
        (Some(("shop", "other-meshwright")), Code::PermissionDenied),
        (Some(("elsewhere", "edge-meshwright")), Code::PermissionDenied),
        (None, Code::Unauthenticated),
    ] {
        let error = running.ask(account, "edge").await.unwrap_err();
        assert_eq!(error.code(), code, "{account:?}: {error}");
    }
    let missing = running.ask(Some(("shop", "edge-meshwright")), "").await.unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument);
}

fn token_request(token: Option<&str>, csr_der: Vec<u8>) -> Request<SignCertificateRequest> {
    let mut request = Request::new(SignCertificateRequest { csr_der });
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_token_buys_a_certificate_for_its_service_account_only() {
    let running = start().await;
    let mut client = CertificateServiceClient::new(running.connect(None).await);
    let (_, csr) = new_csr().unwrap();
    let request = token_request;
    let answer = client.sign_certificate(request(Some("t"), csr.clone())).await.unwrap().into_inner();
    assert_eq!(
        peer_identity(&answer.chain_der[0]).unwrap().service_account(),
        Some(("shop", "edge-meshwright"))
    );
    assert_eq!((answer.chain_der.len(), answer.roots_der.len()), (2, 1));
    let code = |result: Result<_, Status>| result.map(|_: tonic::Response<_>| ()).unwrap_err().code();
    assert_eq!(code(client.sign_certificate(request(None, csr)).await), Code::Unauthenticated);
    assert_eq!(code(client.sign_certificate(request(Some("t"), vec![0; 9000])).await), Code::InvalidArgument);
    assert_eq!(code(client.sign_certificate(request(Some("t"), vec![1, 2, 3])).await), Code::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_blamed_on_the_route_until_that_stream_takes_something_better() {
    let (gateway, route) = (ObjectKey::new("shop", "edge"), ObjectKey::new("shop", "cart"));
    let registry = Registry::default();
    let objects = [(ObjectKind::Gateway, &gateway), (ObjectKind::HttpRoute, &route)];
    let objects = objects.map(|(kind, key)| ObjectId { kind, key: key.clone() });
    registry.publish(&gateway, Arc::default(), config(&["cart"]));
    let nacks = Nacks::new(registry.clone());
    let nack = |kind, name: &str| Event::Nack {
        kind,
        resources: vec![(name.into(), "v1".into())],
        message: "no such thing".to_owned(),
    };
    nacks.on_event(1, &gateway, &nack(TypeUrl::Cluster, "outbound|80|cart.shop"));
    nacks.on_event(2, &gateway, &nack(TypeUrl::Cluster, "outbound|80|cart.shop"));
    assert_eq!(nacks.rejections(), BTreeMap::from([(objects[1].clone(), "no such thing".to_owned())]));
    let ack = Event::Ack {
        kind: TypeUrl::Cluster,
        resources: vec![("outbound|80|cart.shop".into(), "v2".into())],
        removed: vec![],
    };
    nacks.on_event(1, &gateway, &ack);
    assert_eq!(nacks.rejections().len(), 1, "the other proxy still refuses it");
    nacks.on_event(2, &gateway, &ack);
    assert!(nacks.rejections().is_empty());

    let closed = Event::Closed { maybe_sent: Default::default() };
    nacks.on_event(1, &gateway, &nack(TypeUrl::Cluster, "outbound|80|cart.shop"));
    nacks.on_event(1, &gateway, &closed);
    assert_eq!(nacks.rejections().len(), 1, "the proxy will be back");
    nacks.on_event(3, &gateway, &ack);
    assert!(nacks.rejections().is_empty(), "another version was taken");
    nacks.on_event(1, &gateway, &nack(TypeUrl::Cluster, "outbound|80|cart.shop"));
    nacks.on_event(1, &gateway, &closed);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(nacks.rejections().len(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(nacks.rejections().is_empty(), "nobody knows any more");

    assert!(!nacks.is_behind(&gateway));
    nacks.on_event(1, &gateway, &nack(TypeUrl::Listener, "shop/edge/80"));
    assert!(nacks.is_behind(&gateway));
    assert!(nacks.rejections().contains_key(&objects[0]));
    let empty = GatewayConfig { gateway: gateway.clone(), ports: Vec::new() };
    registry.publish(&gateway, Arc::default(), Arc::new(empty));
    assert!(nacks.rejections().is_empty(), "the resource is gone");
}

#[tokio::test]
async fn a_part_that_ends_ends_the_process_and_a_stop_does_not_fail() {
    let client = kube::Client::new(
        tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        }),
        "ns",
    );
    let config = meshwright_k8s::lease::LeaseConfig::for_revision("ns", "status", "cp-1", "mesh-1");
    for stopped in [false, true] {
        let drain = CancellationToken::new();
        let mut lease = meshwright_k8s::lease::spawn(client.clone(), config.clone(), drain.clone());
        let pending = || tokio::spawn(std::future::pending::<anyhow::Result<()>>());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { "translator" });
        if stopped {
            drain.cancel();
        }
        let ended = crate::run::supervise(&mut pending(), pending(), &mut tasks, &mut lease, &drain).await;
        let said = ended.map_err(|error| error.to_string());
        drain.cancel();
        assert_eq!(said, if stopped { Ok(()) } else { Err("translator ended unexpectedly".to_owned()) });
    }
}
