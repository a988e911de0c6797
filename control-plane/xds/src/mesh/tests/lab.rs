//! Real Envoys in network namespaces of the test's own: one for each node, with the redirection of pods as on a real node. Runs where
//! `ENVOY_BIN` names an Envoy, as root, with `ip` and `nft`.

mod ads;
mod application;
mod authorization;
mod balancing;
mod client;
mod connections;
mod crowd;
mod demand;
mod envoy;
mod gateway;
mod generated;
mod limits;
mod measure;
mod mirrors;
mod network;
mod paths;
mod refusals;
mod requests;
mod routing;
mod scale;
mod separation;
mod signals;
mod suite;
mod while_changing;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use self::ads::{Authority, Node};
use self::envoy::Envoy;
use self::network::{Namespace, Network};
use super::*;

/// Two Envoys at a time are enough for the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
static NEXT: AtomicU32 = AtomicU32::new(0);
const DEADLINE: Duration = Duration::from_secs(60);

/// Pods by account: the node, and the last part of the addresses 10.77.0.x and fd77::x. `outside` is no member.
const PODS: [(&str, &str, u8); 4] =
    [("front", "n1", 11), ("cart", "n1", 12), ("back", "n2", 21), ("outside", "", 99)];

/// Everything that runs.
struct Lab {
    network: Network,
    nodes: Vec<(Node, Envoy)>,
    cluster: Cluster,
    shared: Shared,
    authority: Authority,
    directory: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// Why nothing can be tried; None if it can.
fn obstacle() -> Option<&'static str> {
    let is_there = |program| std::process::Command::new(program).arg("-V").output().is_ok();
    if std::env::var_os("ENVOY_BIN").is_none() {
        Some("ENVOY_BIN is not set")
    } else if !rustix::process::geteuid().is_root() {
        Some("only root makes network namespaces")
    } else if !Path::new("/run/netns").is_dir() && std::fs::create_dir_all("/run/netns").is_err() {
        Some("/run/netns is not there")
    } else if !is_there("ip") || !is_there("nft") {
        Some("ip or nft is missing")
    } else {
        None
    }
}

/// A lab with this mesh; `edit` may break what is sent. None where nothing can be tried, which it says.
async fn lab(cluster: Cluster, edit: fn(&mut Snapshot)) -> Option<Lab> {
    lab_with(cluster, Telemetry::default(), None, edit).await
}

/// The same, whose proxies tell more, and forget statistics that nothing was counted in for so long.
async fn lab_with(
    cluster: Cluster,
    telemetry: Telemetry,
    forget: Option<Duration>,
    edit: fn(&mut Snapshot),
) -> Option<Lab> {
    if let Some(obstacle) = obstacle() {
        eprintln!("{obstacle}: nothing was tried in network namespaces");
        return None;
    }
    let alone = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let id = format!("mwlab-x{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let network = Network::new(&id);
    let authority = Authority::new();
    let shared = Shared::new(TRUST_DOMAIN).with_telemetry(telemetry).next(&cluster.mesh);
    let mut nodes = Vec::new();
    for name in ["n1", "n2"] {
        let node = Node::start(name, directory.path(), &authority, &network, edit);
        node.publish(&shared, &cluster.mesh);
        let envoy = Envoy::start_with(&network.node(name), directory.path(), &node, forget);
        nodes.push((node, envoy));
    }
    let lab = Lab { network, nodes, cluster, shared, authority, directory, _alone: alone };
    lab.is_captured().await;
    Some(lab)
}

/// The mesh that most tests use.
fn mesh() -> Cluster {
    let back = |port| [("10.77.0.21", port)];
    Cluster::default()
        .pod("n1", "front", &["10.77.0.11", "fd77::11"])
        .pod("n1", "cart", &["10.77.0.12", "fd77::12"])
        .pod("n2", "back", &["10.77.0.21", "fd77::21"])
        .service("web", &["10.88.0.1"], 80, Protocol::Http, &back(8080))
        .service("six", &["fd88::1"], 80, Protocol::Http, &[("fd77::21", 8080)])
        .service("db", &["10.88.0.2"], 3306, Protocol::Tcp, &back(3306))
        .service("any", &["10.88.0.3"], 8000, Protocol::Detect, &back(8080))
        .service("odd", &["10.88.0.4"], 8000, Protocol::Detect, &back(3306))
        .service("self", &["10.88.0.5"], 80, Protocol::Http, &[("10.77.0.11", 8080)])
        .service("both", &["10.88.0.6"], 80, Protocol::Http, &[("10.77.0.21", 8080), ("10.77.0.99", 8080)])
}

impl Lab {
    fn pod(&self, account: &str) -> &Namespace {
        self.network.pod(account)
    }

    /// Waits until pods' listeners are open: they are when their certificates are there.
    async fn is_captured(&self) {
        for (account, ..) in PODS.iter().filter(|(_, node, _)| !node.is_empty()) {
            for port in [PORTS.outbound, PORTS.inbound] {
                let address = format!("127.0.0.1:{port}");
                until(&format!("{account} listens at {port}"), async || {
                    self.pod(account).connect(&address).await.ok().map(drop)
                })
                .await;
            }
        }
        // Their first connection is worth nothing as long as the listener behind them is not there.
        for (_, envoy) in &self.nodes {
            envoy.is_ready().await;
        }
    }

    /// Sends another mesh.
    fn publish(&mut self, cluster: Cluster) {
        self.shared = self.shared.next(&cluster.mesh);
        self.cluster = cluster;
        self.nodes.iter().for_each(|(node, _)| node.publish(&self.shared, &self.cluster.mesh));
    }

    /// What the proxy of a pod has seen of a caller, as `identity of the caller|SNI|identity of the pod`.
    async fn callers(&self, account: &str, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let log = log(self.directory.path(), &format!("uid-{account}"));
        until(&format!("callers of {account}"), async || {
            let lines: Vec<_> = std::fs::read_to_string(&log).ok()?.lines().map(str::to_owned).collect();
            enough(&lines).then_some(lines)
        })
        .await
    }
}

/// Where the callers of a pod are written down.
fn log(directory: &Path, uid: &str) -> PathBuf {
    directory.join(format!("{uid}.log"))
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
