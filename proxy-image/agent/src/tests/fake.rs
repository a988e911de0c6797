//! A control plane in this process: CA and ADS on one TLS port.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use meshwright_pki::{
    Authority, CertificateDer, Identity, SpiffeId, certs_to_pem, new_csr, new_root, peer_identity,
    sign_issuing_ca, sign_leaf,
    tls::{ClientAuth, DynamicIdentity, DynamicRoots, server_config},
};
use meshwright_proto::certificates::{
    SignCertificateRequest, SignCertificateResponse,
    certificate_service_server::{CertificateService, CertificateServiceServer},
};
use meshwright_proto::nodes::{
    NodeOrder, NodeReport, SignIdentityRequest,
    node_service_server::{NodeService, NodeServiceServer},
};
use meshwright_proto::reports::{
    NodeReportRequest, ReportRequest, ReportResponse,
    report_service_server::{ReportService, ReportServiceServer},
};
use meshwright_runtime::CancellationToken;
use meshwright_xds::{DeltaDiscoveryRequest, Event, Snapshot, server};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

use crate::{
    Args, downstream,
    drain::Phase,
    identity,
    identity::Credentials,
    relay::Relay,
    report::{self, Subject},
    stats::Observed,
    upstream,
};

const DAY: Duration = Duration::from_secs(86400);
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn args(pod: &str, control_plane: String, dir: &Path) -> Args {
    let mut args = Args::parse_from([
        "agent",
        "--pod-name",
        pod,
        "--pod-namespace",
        "shop",
        "--service-account",
        "front-meshwright",
        "--gateway-name",
        "front",
        "--gateway-namespace",
        "shop",
        "--revision",
        "default-1a2b3c4d",
        "--trust-domain",
        "cluster.local",
        "--control-plane",
        &control_plane,
        "--control-plane-id",
        "spiffe://cluster.local/ns/mesh/sa/default-1a2b3c4d",
        "--drain-delay",
        "1s",
        "--drain-deadline",
        "20s",
        "--concurrency",
        "1",
    ]);
    args.proxy.run_dir = dir.to_owned();
    args.workload.token_file = dir.join("token");
    args.workload.trust_file = dir.join("ca.crt");
    args
}

/// Everything of the agent but Envoy; what Envoy would have counted is told by the test.
pub struct Agent {
    pub observed: watch::Sender<Observed>,
    pub phase: watch::Sender<Phase>,
    stop: CancellationToken,
}

impl Agent {
    pub fn without_envoy(args: &Args) -> Self {
        meshwright_runtime::install_crypto();
        let stop = CancellationToken::new();
        let relay = Relay::default();
        let credentials = Credentials::new(&args.workload, identity::Metrics::default()).unwrap();
        let credentials = credentials.with_least_wait(Duration::from_secs(1));
        let (a, c, r, s) = (args.clone(), credentials.clone(), relay.clone(), stop.clone());
        tokio::spawn(async move { identity::run(&a.workload, &c, &r, s).await.unwrap() });
        let (observed, phase) = (watch::Sender::default(), watch::Sender::default());
        let connection = watch::Sender::new(None);
        let subject = Subject::new(args, phase.subscribe(), relay.clone());
        tokio::spawn(report::run(subject, observed.subscribe(), connection.subscribe(), stop.clone()));
        let (a, r, s) = (args.clone(), relay.clone(), stop.clone());
        tokio::spawn(async move {
            upstream::run(&a.workload, &upstream::gateway(&a), &credentials, &r, &connection, s).await
        });
        let (socket, s) = (args.proxy.xds_socket(), stop.clone());
        tokio::spawn(async move { downstream::serve(&socket, relay, s).await });
        Self { observed, phase, stop }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub struct ControlPlane {
    pub address: String,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub events: Arc<Mutex<Vec<Event>>>,
    shared: Shared,
    stop: CancellationToken,
}

#[derive(Clone)]
struct Shared {
    root: Authority,
    /// May have those of before `rotate` too.
    roots: Vec<CertificateDer<'static>>,
    issuing: Authority,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    events: Arc<Mutex<Vec<Event>>>,
    signed: Arc<AtomicUsize>,
    reports: Arc<Mutex<Vec<ReportRequest>>>,
    /// Versions before reports were known.
    is_old: Arc<AtomicBool>,
    report_calls: Arc<AtomicUsize>,
    drain: CancellationToken,
    /// Whom it talks to.
    client: SpiffeId,
    orders: watch::Sender<NodeOrder>,
    node_reports: Arc<Mutex<Vec<NodeReport>>>,
    traffic: Arc<Mutex<Vec<NodeReportRequest>>>,
}

impl ControlPlane {
    /// Of a gateway. Also writes the trust and token files of an agent.
    pub async fn start(dir: &Path) -> Self {
        Self::start_for(dir, "spiffe://cluster.local/ns/shop/sa/front-meshwright").await
    }

    /// Of whoever shows this identity.
    pub async fn start_for(dir: &Path, client: &str) -> Self {
        let (root, issuing) = authorities(dir);
        std::fs::write(dir.join("token"), "test-token\n").unwrap();
        let snapshots = watch::Sender::new(Arc::new(Snapshot::default()));
        let events = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let shared = Shared {
            roots: vec![root.cert().clone()],
            root,
            issuing,
            snapshots: snapshots.subscribe(),
            events: events.clone(),
            signed: Arc::default(),
            reports: Arc::default(),
            is_old: Arc::default(),
            report_calls: Arc::default(),
            drain: stop.clone(),
            client: client.parse().unwrap(),
            orders: watch::Sender::default(),
            node_reports: Arc::default(),
            traffic: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        serve(shared.clone(), listener);
        Self { address, snapshots, events, shared, stop }
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// What it says about the node.
    pub fn order(&self, change: impl FnOnce(&mut NodeOrder)) {
        self.shared.orders.send_modify(change);
    }

    /// What it was told about the node.
    pub fn traffic(&self) -> Vec<NodeReportRequest> {
        self.shared.traffic.lock().unwrap().clone()
    }

    pub fn node_reports(&self) -> Vec<NodeReport> {
        self.shared.node_reports.lock().unwrap().clone()
    }

    /// After `stop`: another replica at the same address, which knows nothing of the streams before.
    pub async fn restart(&mut self) {
        self.stop = CancellationToken::new();
        self.shared.drain = self.stop.clone();
        let listener = loop {
            match TcpListener::bind(&self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        serve(self.shared.clone(), listener);
    }

    /// Between `stop` and `restart`: a new root, which the trust file has and the agent has not.
    pub fn rotate(&mut self, dir: &Path, keep_old: bool) {
        (self.shared.root, self.shared.issuing) = authorities(dir);
        if !keep_old {
            self.shared.roots.clear();
        }
        self.shared.roots.push(self.shared.root.cert().clone());
    }

    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshots.send_replace(Arc::new(snapshot));
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.shared.root.cert().clone()
    }

    pub fn identity(&self, namespace: &str, account: &str) -> Identity {
        self.identity_from(namespace, account, Timestamp::now(), DAY)
    }

    pub fn expired_identity(&self, namespace: &str, account: &str) -> Identity {
        let from = Timestamp::now() - Duration::from_secs(10);
        self.identity_from(namespace, account, from, Duration::from_secs(1))
    }

    fn identity_from(&self, namespace: &str, account: &str, from: Timestamp, life: Duration) -> Identity {
        let (key, csr) = new_csr().unwrap();
        let id = SpiffeId::workload("cluster.local", namespace, account).unwrap();
        let leaf = sign_leaf(&self.shared.issuing, &csr, &id, &[], from, life).unwrap();
        Identity { chain: vec![leaf, self.shared.issuing.cert().clone()], key }
    }

    pub fn signed(&self) -> usize {
        self.shared.signed.load(Ordering::SeqCst)
    }

    pub fn reports(&self) -> Vec<ReportRequest> {
        self.shared.reports.lock().unwrap().clone()
    }

    pub fn report_calls(&self) -> usize {
        self.shared.report_calls.load(Ordering::SeqCst)
    }

    pub fn knows_no_reports(&self) {
        self.shared.is_old.store(true, Ordering::SeqCst);
    }

    pub fn saw(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(what)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A root, also in the trust file, and an issuing CA.
fn authorities(dir: &Path) -> (Authority, Authority) {
    let now = Timestamp::now();
    let root = new_root("cluster.local", now, DAY * 3650).unwrap();
    let issuing = sign_issuing_ca(&root, "default-1a2b3c4d", now, DAY * 30).unwrap();
    std::fs::write(dir.join("ca.crt"), certs_to_pem(&[root.cert().clone()])).unwrap();
    (root, issuing)
}

fn serve(shared: Shared, listener: TcpListener) {
    meshwright_runtime::install_crypto();
    let (key, csr) = new_csr().unwrap();
    let id = SpiffeId::workload("cluster.local", "mesh", "default-1a2b3c4d").unwrap();
    let leaf = sign_leaf(&shared.issuing, &csr, &id, &[], Timestamp::now(), DAY).unwrap();
    let identity = DynamicIdentity::default();
    identity.set(&Identity { chain: vec![leaf, shared.issuing.cert().clone()], key }).unwrap();
    let roots = DynamicRoots::new(&shared.roots).unwrap();
    let config = server_config(identity, roots, ClientAuth::Optional).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let incoming = TcpListenerStream::new(listener)
        .then(move |stream| {
            let acceptor = acceptor.clone();
            async move { acceptor.accept(stream?).await }
        })
        .filter(|accepted| futures::future::ready(accepted.is_ok()));
    let stop = shared.drain.clone();
    let router = tonic::transport::Server::builder()
        .add_service(CertificateServiceServer::new(shared.clone()))
        .add_service(ReportServiceServer::new(shared.clone()))
        .add_service(NodeServiceServer::new(shared.clone()))
        .add_service(AggregatedDiscoveryServiceServer::new(shared));
    tokio::spawn(async move {
        tokio::select! {
            _ = router.serve_with_incoming(Box::pin(incoming)) => {}
            () = stop.cancelled() => {}
        }
    });
}

#[tonic::async_trait]
impl CertificateService for Shared {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        if request.metadata().get("authorization").is_none_or(|token| token != "Bearer test-token") {
            return Err(Status::unauthenticated("token"));
        }
        self.signed.fetch_add(1, Ordering::SeqCst);
        Ok(self.sign(&request.get_ref().csr_der, &self.client))
    }
}

impl Shared {
    fn sign(&self, csr: &[u8], id: &SpiffeId) -> Response<SignCertificateResponse> {
        let leaf = sign_leaf(&self.issuing, csr, id, &[], Timestamp::now(), DAY).unwrap();
        Response::new(SignCertificateResponse {
            chain_der: vec![leaf.to_vec(), self.issuing.cert().to_vec()],
            roots_der: self.roots.iter().map(|root| root.to_vec()).collect(),
        })
    }
}

#[tonic::async_trait]
impl NodeService for Shared {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<NodeOrder, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        authenticate(&request, &self.client)?;
        let (mut reports, told, drain) =
            (request.into_inner(), self.node_reports.clone(), self.drain.clone());
        tokio::spawn(drain.run_until_cancelled_owned(async move {
            while let Ok(Some(report)) = reports.message().await {
                told.lock().unwrap().push(report);
            }
        }));
        let orders = tokio_stream::wrappers::WatchStream::new(self.orders.subscribe());
        let orders = orders.map(Ok).take_until(self.drain.clone().cancelled_owned());
        Ok(Response::new(Box::pin(orders)))
    }

    async fn sign_identity(
        &self,
        request: Request<SignIdentityRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        authenticate(&request, &self.client)?;
        let SignIdentityRequest { csr_der, identity } = request.into_inner();
        let known = self.orders.borrow().members.values().any(|member| member.identity == identity);
        if !known {
            return Err(Status::permission_denied("no pod of this node has that identity"));
        }
        Ok(self.sign(&csr_der, &identity.parse().unwrap()))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Shared {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = server::Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<server::Responses>, Status> {
        authenticate(&request, &self.client)?;
        let mut inbound = request.into_inner();
        let first = server::first_request(&mut inbound).await?;
        if first
            .node
            .as_ref()
            .is_none_or(|node| !["gateway-0.shop", "node-0.mesh"].contains(&node.id.as_str()))
        {
            return Err(Status::invalid_argument("node"));
        }
        let events = self.events.clone();
        Ok(Response::new(server::serve_after(
            first,
            inbound,
            self.snapshots.clone(),
            server::Options::default(),
            move |event| events.lock().unwrap().push(event),
            self.drain.clone(),
        )))
    }
}

#[tonic::async_trait]
impl ReportService for Shared {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.report_calls.fetch_add(1, Ordering::SeqCst);
        if self.is_old.load(Ordering::SeqCst) {
            return Err(Status::unimplemented("reports"));
        }
        authenticate(&request, &self.client)?;
        self.reports.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ReportResponse {}))
    }

    async fn report_node(
        &self,
        request: Request<NodeReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        authenticate(&request, &self.client)?;
        self.traffic.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ReportResponse {}))
    }
}

fn authenticate<T>(request: &Request<T>, client: &SpiffeId) -> Result<(), Status> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certs = info.and_then(TlsConnectInfo::peer_certs);
    let id = certs.as_deref().and_then(|all| peer_identity(all.first()?).ok());
    match id {
        Some(id) if id == *client => Ok(()),
        _ => Err(Status::unauthenticated("client certificate")),
    }
}

/// Polls until true.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !check().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
