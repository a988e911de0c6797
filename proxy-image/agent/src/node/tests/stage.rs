//! A node of a test: its directories, its control plane, an Envoy and an agent.

mod resources;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use meshwright_cni::{Reply, Request, ask};
use meshwright_core::mesh::Mesh;
use meshwright_pki::{
    SpiffeId,
    tls::{DynamicIdentity, DynamicRoots, client_config},
};
use meshwright_proto::{
    nodes::{Member, NodeOrder, NodeReport},
    reports::NodeReportRequest,
};
use meshwright_runtime::Shutdown;
use meshwright_xds::{
    Event, Snapshot, TypeUrl,
    mesh::{Ports, Shared},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    task::JoinHandle,
};

use crate::{
    node::{
        args::{Args, EnvoyArgs},
        envoy, lab,
        lab::Lab,
        rules::PORT,
        serve_until,
        sockets::Sockets,
        store::{self, AllRedirected},
    },
    tests::{
        envoy::{envoy_binary, envoy_pid, free_address, mutual_tls_as},
        fake::{ControlPlane, DEADLINE},
    },
};
use resources::{answering, cluster, listener, to_cluster};

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge"}]}"#;

#[derive(Parser)]
struct Node {
    #[command(flatten)]
    args: Args,
}

#[derive(Parser)]
struct Proxy {
    #[command(flatten)]
    args: EnvoyArgs,
}

/// One revision's proxy on a node.
pub struct Stage {
    folder: Arc<tempfile::TempDir>,
    control_plane: ControlPlane,
    metrics: Mutex<Option<SocketAddr>>,
    revision: &'static str,
    slot: &'static str,
    /// Whether answers say which revision's proxy they are from.
    signs: bool,
    pods: Mutex<BTreeSet<String>>,
}

impl Stage {
    /// None where there is nothing to test with.
    pub async fn new(revision: &'static str, slot: &'static str) -> Option<Self> {
        lab::nft()?;
        if envoy_binary().is_none() {
            eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
            return None;
        }
        let folder = Arc::new(tempfile::tempdir().unwrap());
        for name in ["node", "conf", "bin", "cache/results"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("conf/10-pods.conflist"), LIST).unwrap();
        std::fs::write(folder.path().join("plugin"), "plugin").unwrap();
        Some(Self::in_folder(folder, revision, slot, false).await)
    }

    /// Another revision's on the same node.
    pub async fn beside(&self, revision: &'static str, slot: &'static str) -> Self {
        Self::in_folder(self.folder.clone(), revision, slot, true).await
    }

    async fn in_folder(
        folder: Arc<tempfile::TempDir>,
        revision: &'static str,
        slot: &'static str,
        signs: bool,
    ) -> Self {
        let own = folder.path().join(revision);
        std::fs::create_dir_all(&own).unwrap();
        let id = format!("spiffe://cluster.local/ns/mesh/sa/{revision}-node/node/n1");
        let control_plane = ControlPlane::start_for(&own, &id).await;
        control_plane.order(|order| {
            order.namespaces = [("shop".to_owned(), true), ("plain".to_owned(), false)].into()
        });
        let (metrics, pods) = (Mutex::default(), Mutex::default());
        Self { folder, control_plane, metrics, revision, slot, signs, pods }
    }

    fn own(&self) -> PathBuf {
        self.folder.path().join(self.revision)
    }

    fn ports(&self) -> [u16; 2] {
        if self.slot == "A" { [15101, 15108] } else { [15201, 15208] }
    }

    /// Starts the container of Envoy.
    pub fn envoy(&self) -> Running {
        let own = self.own();
        let mut arguments = self.common("envoy");
        let binary = envoy_binary().unwrap().display().to_string();
        arguments.extend(["--envoy".to_owned(), binary, "--concurrency".to_owned(), "1".to_owned()]);
        arguments.extend([
            "--run-dir".to_owned(),
            own.display().to_string(),
            "--drain-deadline".to_owned(),
            "20s".to_owned(),
        ]);
        let Proxy { args } = Proxy::parse_from(arguments);
        let shutdown = Shutdown::default();
        Running::start(shutdown.clone(), envoy::run_until(args, shutdown))
    }

    fn common(&self, name: &str) -> Vec<String> {
        let text = "--pod-name node-0 --pod-namespace mesh --node-name n1";
        let all = [name].into_iter().chain(text.split(' ')).chain([
            "--revision",
            self.revision,
            "--slot",
            self.slot,
        ]);
        all.map(str::to_owned).collect()
    }

    /// Starts the container of the agent.
    pub async fn agent(&self) -> Running {
        let mut arguments = self.common("node");
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let own = |name: &str| self.own().join(name).display().to_string();
        let [outbound, inbound] = self.ports();
        let metrics = free_address().await;
        self.metrics.lock().unwrap().replace(metrics);
        for (name, value) in [
            ("service-account", format!("{}-node", self.revision)),
            ("trust-domain", "cluster.local".to_owned()),
            ("control-plane", self.control_plane.address.clone()),
            ("control-plane-id", "spiffe://cluster.local/ns/mesh/sa/default-1a2b3c4d".to_owned()),
            ("token-file", own("token")),
            ("trust-file", own("ca.crt")),
            ("run-dir", own("")),
            ("node-dir", at("node")),
            ("cni-cache-dir", at("cache")),
            ("cni-conf-dir", at("conf")),
            ("cni-bin-dir", at("bin")),
            ("plugin", at("plugin")),
            ("outbound-port", outbound.to_string()),
            ("inbound-port", inbound.to_string()),
            ("drain-deadline", "20s".to_owned()),
            ("metrics-addr", metrics.to_string()),
            ("health-addr", free_address().await.to_string()),
        ] {
            add(name, value);
        }
        let Node { args } = Node::parse_from(arguments);
        meshwright_runtime::install_crypto();
        let shutdown = Shutdown::default();
        Running::start(shutdown.clone(), serve_until(args, shutdown))
    }

    pub fn kill_envoy(&self) {
        let pid = rustix::process::Pid::from_raw(envoy_pid(&self.own()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    pub fn order(&self, change: impl FnOnce(&mut NodeOrder)) {
        self.control_plane.order(change);
    }

    /// A pod is to be in the mesh.
    pub fn member(&self, uid: &str, addresses: &[IpAddr]) {
        self.pods.lock().unwrap().insert(uid.to_owned());
        self.publish();
        let member = Member {
            namespace: "shop".to_owned(),
            name: format!("pod-{uid}"),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{uid}"),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        self.order(|order| _ = order.members.insert(uid.to_owned(), member));
    }

    /// It is not any more: the configuration forgets it first.
    pub fn no_member(&self, uid: &str) {
        self.pods.lock().unwrap().remove(uid);
        self.publish();
        self.order(|order| _ = order.members.remove(uid));
    }

    fn publish(&self) {
        let pods = self.pods.lock().unwrap();
        let by = if self.signs || self.folder.path().join("new").is_dir() {
            format!(" by {}", self.revision)
        } else {
            String::new()
        };
        let [outbound, inbound] = self.ports();
        let listeners = pods.iter().flat_map(|uid| {
            let identity = format!("spiffe://cluster.local/ns/shop/sa/{uid}");
            [
                listener(uid, "outbound", outbound, &by, None),
                listener(uid, "inbound", inbound, &by, Some(mutual_tls_as(&identity))),
            ]
        });
        self.control_plane
            .publish(Snapshot::default().with(TypeUrl::Cluster, []).with(TypeUrl::Listener, listeners));
    }

    /// What a control plane makes of this mesh.
    pub fn publish_mesh(&self, mesh: &Mesh) {
        self.control_plane.publish(self.snapshot(mesh));
    }

    /// The same, without sending it.
    pub fn snapshot(&self, mesh: &Mesh) -> Snapshot {
        let [outbound, inbound] = self.ports();
        let shared = Shared::new("cluster.local").next(mesh);
        meshwright_xds::mesh::node(&shared, mesh, "n1", Ports { outbound, inbound })
    }

    /// The control plane goes away.
    pub fn stop_control_plane(&self) {
        self.control_plane.stop();
    }

    /// Whether something like this happened on a stream of the control plane.
    pub fn saw(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.control_plane.saw(what)
    }

    /// Listeners on the node itself, each with a cluster that is the node's own, or not.
    pub fn publish_host(&self, all: &[(&str, SocketAddr, u16, bool)]) {
        let clusters = all.iter().map(|(name, _, port, is_own)| cluster(name, *port, *is_own));
        let listeners = all
            .iter()
            .map(|(name, at, _, _)| answering(name, "127.0.0.1", at.port(), "", to_cluster(name), None));
        let snapshot =
            Snapshot::default().with(TypeUrl::Cluster, clusters).with(TypeUrl::Listener, listeners);
        self.control_plane.publish(snapshot);
    }

    /// What a container runtime writes down.
    pub fn wrote_down(&self, uid: &str, pod: &Lab) {
        let netns = pod.path().display().to_string();
        let text = serde_json::json!({
            "kind": "cniCacheV1", "netns": netns,
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", format!("pod-{uid}")], ["K8S_POD_UID", uid]],
        });
        std::fs::write(self.folder.path().join("cache/results").join(uid), text.to_string()).unwrap();
    }

    /// What the control plane was told of the traffic.
    pub fn traffic(&self) -> Vec<NodeReportRequest> {
        self.control_plane.traffic()
    }

    /// What Prometheus gets.
    pub async fn metrics(&self) -> Option<String> {
        let address = (*self.metrics.lock().unwrap())?;
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    pub fn reports(&self) -> Vec<NodeReport> {
        self.control_plane.node_reports()
    }

    /// Pods of the last report, if that was for this epoch.
    pub fn captured(&self, epoch: i64) -> Option<BTreeSet<String>> {
        let last = self.reports().pop().filter(|report| report.serving_epoch == epoch)?;
        Some(last.captured.into_iter().map(|pod| pod.uid).collect())
    }

    /// The node's list of network plugins.
    pub fn list(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("conf/10-pods.conflist")).unwrap()
    }

    pub fn redirected(&self) -> AllRedirected {
        store::read_json(&self.folder.path().join("node/redirected.json"))
    }

    /// Our ports on which somebody listens in the pod.
    pub fn listens(&self, pod: &Lab) -> Vec<u16> {
        let sockets = Sockets::of(&pod.netns).unwrap();
        self.ports().into_iter().filter(|port| sockets.listen_on(&[*port])).collect()
    }

    /// Whether the pod has no rules of ours.
    pub fn is_untouched(&self, pod: &Lab) -> bool {
        let list = || Ok(std::process::Command::new("nft").args(["list", "ruleset"]).output()?);
        pod.netns.within(list).unwrap().stdout.is_empty()
    }

    /// What the network plugin is told about a pod.
    pub async fn asks(&self, uid: &str, namespace: &str, pod: &Lab) -> Reply {
        let request = Request {
            namespace: namespace.to_owned(),
            name: format!("pod-{uid}"),
            uid: uid.to_owned(),
            netns: pod.path().display().to_string(),
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        };
        let socket = self.folder.path().join("node/cni.sock");
        tokio::task::spawn_blocking(move || ask(&socket, &request, DEADLINE)).await.unwrap()
    }

    /// Asks the pod over mutual TLS, in the name of somebody else of the mesh; it must be who is expected.
    pub async fn mutual_tls(&self, from: &Lab, to: IpAddr, account: &str) -> std::io::Result<String> {
        let expected = SpiffeId::workload("cluster.local", "shop", account).unwrap();
        let (client, roots) =
            (DynamicIdentity::default(), DynamicRoots::new(&[self.control_plane.root()]).unwrap());
        client.set(&self.control_plane.identity("shop", "cart")).unwrap();
        let connector =
            tokio_rustls::TlsConnector::from(Arc::new(client_config(client, roots, expected).unwrap()));
        let stream = connected(from, to, PORT)?;
        let exchange = async {
            let mut stream = connector.connect("x".try_into().unwrap(), stream).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
        };
        tokio::time::timeout(Duration::from_secs(2), exchange).await?
    }
}

/// A container. Its tasks end with it, as with a process.
pub struct Running {
    runtime: Option<Runtime>,
    task: JoinHandle<anyhow::Result<()>>,
    shutdown: Shutdown,
}

impl Running {
    fn start(
        shutdown: Shutdown,
        container: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let task = runtime.spawn(container);
        Self { runtime: Some(runtime), task, shutdown }
    }

    /// SIGTERM, and what follows.
    pub async fn end(mut self) {
        self.shutdown.drain().cancel();
        tokio::time::timeout(2 * DEADLINE, &mut self.task).await.unwrap().unwrap().unwrap();
    }

    /// SIGKILL.
    pub fn kill(self) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

pub fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// Who answers an HTTP request.
pub async fn says(from: &Lab, to: IpAddr, port: u16) -> String {
    match Http::try_open(from, to, port) {
        Ok(mut http) => http.get().await.unwrap_or_else(|e| e.to_string()),
        Err(e) => e.to_string(),
    }
}

/// A connection that is kept.
pub struct Http(TcpStream);

impl Http {
    pub async fn open(from: &Lab, to: IpAddr, port: u16) -> Self {
        Self::try_open(from, to, port).unwrap()
    }

    fn try_open(from: &Lab, to: IpAddr, port: u16) -> std::io::Result<Self> {
        connected(from, to, port).map(Self)
    }

    pub async fn get(&mut self) -> std::io::Result<String> {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let (mut answer, mut buffer) = (String::new(), vec![0; 4096]);
        // It may come in pieces.
        while !is_whole(&answer) {
            let count = tokio::time::timeout(Duration::from_secs(2), self.0.read(&mut buffer)).await??;
            if count == 0 {
                break;
            }
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }
}

/// With as long a body as its head says, if it says so.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let lengths = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().is_none_or(|(_, length)| body.len() >= length.trim().parse().unwrap())
}

fn connected(from: &Lab, to: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let target = SocketAddr::from((to, port));
    let stream = from
        .netns
        .within(|| Ok(std::net::TcpStream::connect_timeout(&target, Duration::from_secs(1))))
        .unwrap()?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}
