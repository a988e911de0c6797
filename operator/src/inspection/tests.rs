//! The operator asks control planes that run in this process.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use meshwright_pki::{
    Authority, Identity, SpiffeId, certs_to_pem, fingerprint, new_csr, new_root, peer_identity,
    sign_issuing_ca, sign_leaf,
    tls::{ClientAuth, DynamicIdentity, DynamicRoots, server_config},
    validity,
};
use meshwright_proto::{
    inspection::{
        Health, ObservePairsRequest, ObservePairsResponse, ObserveRequest, ObserveResponse, ObservedNode,
        ObservedProxy, RenderRequest, RenderResponse, RenderedGateway,
        inspection_service_server::{InspectionService, InspectionServiceServer},
    },
    reports::{NodeProxy, Proxy, Slot},
};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Request, Response, Status,
    transport::{
        Server,
        server::{TcpConnectInfo, TlsConnectInfo},
    },
};

use super::*;
use crate::certificates::root::Root;

const DAY: Duration = Duration::from_secs(86_400);

/// A control plane: what it says, and what it was asked.
#[derive(Debug, Clone, Default)]
struct ControlPlane {
    streams: Vec<String>,
    hangs: bool,
    callers: Arc<Mutex<Vec<SpiffeId>>>,
    asked_since: Arc<Mutex<Vec<i64>>>,
}

#[tonic::async_trait]
impl InspectionService for ControlPlane {
    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ObserveResponse>, Status> {
        let peer = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|i| i.peer_certs());
        let leaf = peer.unwrap().first().unwrap().clone();
        self.callers.lock().unwrap().push(peer_identity(&leaf).unwrap());
        self.asked_since.lock().unwrap().push(request.get_ref().since);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let slot = |start| Slot { start, success: 3, ..Slot::default() };
        let proxy =
            Proxy { pod_name: "edge-0".to_owned(), revision: "mesh-1".to_owned(), ..Proxy::default() };
        let observed = ObservedProxy {
            proxy: Some(proxy),
            last_report: 1100,
            slots: [1085, 1090, 1095].map(slot).into(),
        };
        let health = Health { streams: self.streams.clone(), ..Health::default() };
        Ok(Response::new(ObserveResponse { proxies: vec![observed], health: Some(health) }))
    }

    async fn observe_pairs(
        &self,
        request: Request<ObservePairsRequest>,
    ) -> Result<Response<ObservePairsResponse>, Status> {
        let ObservePairsRequest { since, nodes } = request.into_inner();
        self.asked_since.lock().unwrap().push(since);
        if self.hangs {
            return Err(Status::unavailable("not now"));
        }
        let of = |node: String| {
            let proxy = NodeProxy { node, revision: "mesh-1".to_owned(), ..NodeProxy::default() };
            ObservedNode { proxy: Some(proxy), last_report: 1100, pairs: Vec::new() }
        };
        Ok(Response::new(ObservePairsResponse { nodes: nodes.into_iter().map(of).collect() }))
    }

    async fn render(&self, _: Request<RenderRequest>) -> Result<Response<RenderResponse>, Status> {
        if self.hangs {
            return Err(Status::unavailable("no snapshot yet"));
        }
        let gateway = RenderedGateway { name: "edge".to_owned(), ..RenderedGateway::default() };
        Ok(Response::new(RenderResponse { gateways: vec![gateway] }))
    }
}

fn root() -> Root {
    let authority = new_root("cluster.local", Timestamp::now(), DAY * 365).unwrap();
    let cert = authority.cert().clone();
    Root {
        secret: "meshwright-system/mesh.default.root".to_owned(),
        pem: certs_to_pem(std::slice::from_ref(&cert)),
        fingerprint: fingerprint(&cert),
        not_after: validity(&cert).unwrap().until,
        authority,
    }
}

fn identity(root: &Authority, revision: &str) -> Identity {
    let now = Timestamp::now();
    let issuing = sign_issuing_ca(root, revision, now, DAY * 30).unwrap();
    let (key, csr) = new_csr().unwrap();
    let id = SpiffeId::workload("cluster.local", "mesh", revision).unwrap();
    let leaf = sign_leaf(&issuing, &csr, &id, &[], now, DAY).unwrap();
    Identity { chain: vec![leaf, issuing.cert().clone()], key }
}

// As the control plane serves: with a certificate that its issuing CA signed, to clients that the root vouches for.
async fn serve(
    at: SocketAddr,
    root: &Root,
    revision: &str,
    service: ControlPlane,
) -> (SocketAddr, oneshot::Sender<()>) {
    let own = DynamicIdentity::default();
    own.set(&identity(&root.authority, revision)).unwrap();
    let roots = DynamicRoots::new(&[root.authority.cert().clone()]).unwrap();
    let config = server_config(own, roots, ClientAuth::Optional).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
        loop {
            let (stream, _) = listener.accept().await.ok()?;
            if let Ok(stream) = acceptor.accept(stream).await {
                return Some((Ok::<_, std::io::Error>(stream), (listener, acceptor)));
            }
        }
    });
    let service = InspectionServiceServer::new(service);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, async {
        let _ = stopped.await;
    }));
    (address, stop)
}

async fn anywhere(root: &Root, revision: &str, service: ControlPlane) -> (SocketAddr, oneshot::Sender<()>) {
    serve(([127, 0, 0, 1], 0).into(), root, revision, service).await
}

fn replica(pod: &str, address: SocketAddr) -> Replica {
    let state = State::Running { address, ready: true };
    Replica { revision: "mesh-1".to_owned(), pod: pod.to_owned(), uid: pod.to_owned(), state }
}

async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn mesh(root: &Root) -> Mesh<'_> {
    Mesh { namespace: "mesh", trust_domain: "cluster.local", root }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

async fn observe(inspector: &Inspector, root: &Root, replicas: &[Replica]) -> Observed {
    let scope = Scope { upgrade: "mesh-1 to mesh-2", since: at(1000) };
    let mut all = inspector.observe(&mesh(root), &scope, &["mesh-1"], replicas, at(1101)).await;
    assert_eq!(all.since, at(1000));
    all.revisions.remove("mesh-1").unwrap()
}

fn streams(observed: &Observed) -> Vec<&str> {
    observed.streams.iter().flatten().map(String::as_str).collect()
}

#[tokio::test]
async fn the_operator_is_known_by_its_identity_and_hears_all_replicas() {
    let root = root();
    let one = ControlPlane { streams: vec!["shop/edge-0".to_owned()], ..ControlPlane::default() };
    let two = ControlPlane { streams: vec!["shop/edge-1".to_owned()], ..ControlPlane::default() };
    let (first, _one) = anywhere(&root, "mesh-1", one.clone()).await;
    let (second, _two) = anywhere(&root, "mesh-1", two).await;
    let inspector = Inspector::default();
    let replicas = [replica("cp-0", first), replica("cp-1", second)];
    let observed = observe(&inspector, &root, &replicas).await;
    assert_eq!(observed.unreachable, Default::default());
    assert_eq!(streams(&observed), ["shop/edge-0", "shop/edge-1"]);
    let requests: Vec<u64> =
        observed.proxies.values().flat_map(|p| p.slots.values()).map(Traffic::requests).collect();
    assert_eq!(requests, [3, 3, 3], "one proxy, though both tell of it");
    let again = observe(&inspector, &root, &replicas).await;
    let samples = again.health.values().map(|samples| samples.iter().map(|s| s.open_streams).collect());
    assert_eq!(samples.collect::<Vec<Vec<_>>>(), [[1, 1], [1, 1]]);
    assert_eq!(*one.asked_since.lock().unwrap(), [1000, 1080], "only what is new");
    let callers = one.callers.lock().unwrap();
    assert!(callers.iter().all(|id| id.path() == "/ns/meshwright.io/sa/operator"));
}

#[tokio::test]
async fn pairs_are_asked_of_all_replicas_and_not_more_often_than_they_change() {
    let root = root();
    let (one, two) = (ControlPlane::default(), ControlPlane { hangs: true, ..ControlPlane::default() });
    let (first, _one) = anywhere(&root, "mesh-1", one.clone()).await;
    let (second, _two) = anywhere(&root, "mesh-1", two).await;
    let inspector = Inspector::default();
    let ask = async |replicas: &[Replica], since: i64, now: i64| {
        let scope = PairScope { nodes: ["n1".to_owned()].into(), since };
        inspector.observe_pairs(&mesh(&root), scope, &["mesh-1"], replicas, at(now)).await
    };
    let replicas = [replica("cp-0", first)];
    for (since, now) in [(500, 1100), (500, 1105), (500, 1110), (400, 1111)] {
        let told = ask(&replicas, since, now).await;
        assert_eq!((told.reported("n1", "mesh-1"), told.unheard.len()), (Some(1100), 0));
    }
    assert_eq!(*one.asked_since.lock().unwrap(), [500, 500, 400]);
    let both = [replica("cp-0", first), replica("cp-1", second)];
    for now in [1200, 1201] {
        let told = ask(&both, 400, now).await;
        assert_eq!(told.reported("n1", "mesh-1"), Some(1100));
        assert!(told.unheard["cp-1"].contains("not now"), "{:?}", told.unheard);
    }
    assert_eq!(one.asked_since.lock().unwrap().len(), 5, "who was not heard is asked again");
}

#[tokio::test]
async fn one_replica_that_does_not_answer_makes_the_streams_unknown() {
    let root = root();
    let (address, _stop) = anywhere(&root, "mesh-1", ControlPlane::default()).await;
    let replicas = [replica("cp-0", address), replica("cp-1", nobody().await)];
    let observed = observe(&Inspector::default(), &root, &replicas).await;
    assert_eq!(observed.streams, None);
    assert!(observed.unreachable["cp-1"].contains("Connection refused"), "{:?}", observed.unreachable);
    assert_eq!(observed.answered.len(), 1);
}

#[tokio::test]
async fn a_replica_that_does_not_run_has_no_streams_and_nobody_at_all_has_none() {
    let root = root();
    let stopped = Replica { state: State::Stopped, ..replica("cp-0", nobody().await) };
    let observed = observe(&Inspector::default(), &root, &[stopped]).await;
    assert_eq!((observed.streams, observed.unreachable.len()), (Some(Default::default()), 0));
    assert!(observed.stopped.contains("cp-0"));
    assert_eq!(observe(&Inspector::default(), &root, &[]).await.streams, Some(Default::default()));
}

#[tokio::test]
async fn a_replica_must_be_of_the_revision_and_of_the_root() {
    let (root, other) = (root(), self::root());
    let (wrong, _wrong) = anywhere(&root, "mesh-2", ControlPlane::default()).await;
    let (foreign, _foreign) = anywhere(&other, "mesh-1", ControlPlane::default()).await;
    let replicas = [replica("cp-0", wrong), replica("cp-1", foreign)];
    let observed = observe(&Inspector::default(), &root, &replicas).await;
    assert!(observed.unreachable["cp-0"].contains("not spiffe://cluster.local/ns/mesh/sa/mesh-1"));
    assert!(observed.unreachable["cp-1"].contains("certificate"), "{:?}", observed.unreachable);
}

#[tokio::test]
async fn a_connection_that_the_other_side_ended_is_opened_again() {
    let root = root();
    let (address, stop) = anywhere(&root, "mesh-1", ControlPlane::default()).await;
    let inspector = Inspector::default();
    let replicas = [replica("cp-0", address)];
    assert_eq!(observe(&inspector, &root, &replicas).await.answered.len(), 1);
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (_, _stop) = serve(address, &root, "mesh-1", ControlPlane::default()).await;
    assert_eq!(observe(&inspector, &root, &replicas).await.unreachable, Default::default());
}

#[tokio::test]
async fn a_new_root_is_followed() {
    let (old, new) = (root(), root());
    let (address, _stop) = anywhere(&old, "mesh-1", ControlPlane::default()).await;
    let inspector = Inspector::default();
    let replicas = [replica("cp-0", address)];
    assert_eq!(observe(&inspector, &old, &replicas).await.answered.len(), 1);
    let observed = observe(&inspector, &new, &replicas).await;
    assert_eq!(observed.answered.len(), 0, "verified with a root that is not trusted any more");
}

#[tokio::test]
async fn a_replica_that_hangs_is_not_waited_for_and_another_one_renders() {
    let root = root();
    let hangs = ControlPlane { hangs: true, ..ControlPlane::default() };
    let (slow, _slow) = anywhere(&root, "mesh-1", hangs).await;
    let (quick, _quick) = anywhere(&root, "mesh-1", ControlPlane::default()).await;
    let inspector = Inspector::default();
    let replicas = [replica("cp-0", slow), replica("cp-1", quick)];
    let observed = observe(&inspector, &root, &replicas).await;
    let late = "control-plane pod cp-0 did not tell what it observes within 3 s";
    assert_eq!(observed.unreachable["cp-0"], late);
    let rendered = inspector.render(&mesh(&root), "mesh-1", &replicas).await.unwrap();
    assert_eq!(rendered[0].name, "edge");
    let error = inspector.render(&mesh(&root), "mesh-1", &replicas[..1]).await.unwrap_err().to_string();
    let tried = "control-plane pod cp-0 failed to render its configuration: no snapshot yet";
    assert!(error.contains("of revision mesh-1") && error.contains(tried), "{error}");
    let error = inspector.render(&mesh(&root), "mesh-2", &replicas).await.unwrap_err().to_string();
    assert!(error.ends_with("none is ready"), "{error}");
}
