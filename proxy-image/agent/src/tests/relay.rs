//! The real relay between a fake control plane and a fake Envoy.

use std::path::Path;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use envoy_types::pb::google::{protobuf::Any, rpc::Status};
use hyper_util::rt::TokioIo;
use meshwright_xds::{Event, Resource, Snapshot, TypeUrl};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use super::fake::{Agent, ControlPlane, DEADLINE, args, eventually};

/// A client on the agent's socket that answers only when told to.
struct FakeEnvoy {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl FakeEnvoy {
    async fn connect(socket: &Path) -> Self {
        eventually("socket", async || socket.exists()).await;
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://agent").connect_with_connector(connector).await.unwrap();
        let (requests, receiver) = mpsc::unbounded_channel();
        // As Envoy does: clusters first.
        requests.send(request(TypeUrl::Cluster)).unwrap();
        let responses = AggregatedDiscoveryServiceClient::new(channel)
            .delta_aggregated_resources(UnboundedReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Self { requests, responses }
    }

    fn subscribe(&self, kind: TypeUrl, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect();
        self.requests
            .send(DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(kind) })
            .unwrap();
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        tokio::time::timeout(DEADLINE, self.responses.message()).await.unwrap().unwrap().unwrap()
    }

    /// The next response, which must be of this type and have these names.
    async fn expect(&mut self, kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        let got: Vec<_> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!((response.type_url.as_str(), got.as_slice()), (kind.as_str(), names));
        response
    }

    fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let status = |text: &str| Status { code: 13, message: text.to_owned(), ..Status::default() };
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(status),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).unwrap();
    }
}

fn request(kind: TypeUrl) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), ..DeltaDiscoveryRequest::default() }
}

fn resource(kind: TypeUrl, name: &str, text: &str) -> Resource {
    Resource::new(name, Any { type_url: kind.as_str().to_owned(), value: text.as_bytes().to_vec() })
}

fn snapshot(cluster: &str, route: &str) -> Snapshot {
    Snapshot::default()
        .with(TypeUrl::Cluster, [resource(TypeUrl::Cluster, "c", cluster)])
        .with(TypeUrl::Listener, [resource(TypeUrl::Listener, "l", "1")])
        .with(TypeUrl::Route, [resource(TypeUrl::Route, "r", route)])
        .with(TypeUrl::Secret, [resource(TypeUrl::Secret, "kubernetes://shop/cert", "1")])
}

fn acked(control_plane: &ControlPlane, kind: TypeUrl, name: &str) -> bool {
    control_plane.saw(|event| match event {
        Event::Ack { kind: of, resources, .. } => *of == kind && resources.iter().any(|(n, _)| &**n == name),
        _ => false,
    })
}

#[tokio::test]
async fn acks_and_nacks_go_upstream_only_when_envoy_has_judged() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    control_plane.publish(snapshot("1", "1"));
    let args = args("gateway-0", control_plane.address.clone(), dir.path());
    let _agent = Agent::without_envoy(&args);
    let mut envoy = FakeEnvoy::connect(&args.proxy.xds_socket()).await;

    let clusters = envoy.expect(TypeUrl::Cluster, &["c"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(!acked(&control_plane, TypeUrl::Cluster, "c"), "nobody asked envoy yet");
    envoy.answer(&clusters, None);
    eventually("cluster acked", async || acked(&control_plane, TypeUrl::Cluster, "c")).await;

    envoy.subscribe(TypeUrl::Listener, &[]);
    let listeners = envoy.expect(TypeUrl::Listener, &["l"]).await;
    envoy.answer(&listeners, None);
    envoy.subscribe(TypeUrl::Route, &["r"]);
    let routes = envoy.expect(TypeUrl::Route, &["r"]).await;
    envoy.answer(&routes, None);
    eventually("route acked", async || acked(&control_plane, TypeUrl::Route, "r")).await;

    control_plane.publish(snapshot("1", "bad"));
    let routes = envoy.expect(TypeUrl::Route, &["r"]).await;
    envoy.answer(&routes, Some("no such cluster"));
    let forwarded = |event: &Event| matches!(event, Event::Nack { kind: TypeUrl::Route, message, .. } if message.contains("no such cluster"));
    eventually("nack forwarded", async || control_plane.saw(forwarded)).await;
    // Back to what it had, so that nobody starts with the bad version.
    let routes = envoy.expect(TypeUrl::Route, &["r"]).await;
    assert_eq!(routes.resources[0].resource.as_ref().unwrap().value, b"1");
    envoy.answer(&routes, None);
    control_plane.publish(snapshot("2", "bad"));
    envoy.expect(TypeUrl::Cluster, &["c"]).await;
}

#[tokio::test]
async fn our_secrets_stay_here_and_others_are_relayed() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    control_plane.publish(snapshot("1", "1"));
    let args = args("gateway-0", control_plane.address.clone(), dir.path());
    let _agent = Agent::without_envoy(&args);
    let mut envoy = FakeEnvoy::connect(&args.proxy.xds_socket()).await;
    envoy.expect(TypeUrl::Cluster, &["c"]).await;
    envoy.subscribe(TypeUrl::Secret, &["workload", "roots", "kubernetes://shop/cert"]);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        seen.extend(envoy.next().await.resources.into_iter().map(|resource| resource.name));
    }
    let leaked = |event: &Event| match event {
        Event::Subscription { kind: TypeUrl::Secret, subscribed, .. } => {
            subscribed.iter().any(|name| matches!(&**name, "workload" | "roots"))
        }
        _ => false,
    };
    assert!(!control_plane.saw(leaked));
}

#[tokio::test]
async fn a_new_envoy_is_served_while_the_control_plane_is_away_and_both_catch_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start(dir.path()).await;
    control_plane.publish(snapshot("1", "1"));
    let args = args("gateway-0", control_plane.address.clone(), dir.path());
    let _agent = Agent::without_envoy(&args);
    let mut envoy = FakeEnvoy::connect(&args.proxy.xds_socket()).await;
    let clusters = envoy.expect(TypeUrl::Cluster, &["c"]).await;
    envoy.answer(&clusters, None);
    envoy.subscribe(TypeUrl::Listener, &[]);
    let listeners = envoy.expect(TypeUrl::Listener, &["l"]).await;
    envoy.answer(&listeners, None);
    eventually("listener acked", async || acked(&control_plane, TypeUrl::Listener, "l")).await;

    control_plane.stop();
    drop(envoy);
    let mut envoy = FakeEnvoy::connect(&args.proxy.xds_socket()).await;
    let clusters = envoy.expect(TypeUrl::Cluster, &["c"]).await;
    envoy.answer(&clusters, None);
    envoy.subscribe(TypeUrl::Listener, &[]);
    let listeners = envoy.expect(TypeUrl::Listener, &["l"]).await;
    envoy.answer(&listeners, None);

    // While nobody was there, the cluster changed and the listener went.
    let only = Snapshot::default().with(TypeUrl::Cluster, [resource(TypeUrl::Cluster, "c", "2")]);
    control_plane.publish(only);
    control_plane.restart().await;
    let mut changes = [envoy.next().await, envoy.next().await];
    changes.sort_by_key(|response| response.type_url.contains("Listener"));
    assert_eq!(changes[0].resources[0].resource.as_ref().unwrap().value, b"2");
    assert_eq!(changes[1].removed_resources, ["l"]);
    assert_eq!(control_plane.signed(), 1, "a valid certificate is kept");
}
