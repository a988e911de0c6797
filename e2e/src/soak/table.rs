//! The rows: what is repeated, how often, with which seed, and which files a result depends on.

use super::analysis;
use crate::outside;

/// One row.
#[derive(Debug)]
pub struct Row {
    /// As in `ROW=name`.
    pub name: &'static str,
    pub what: What,
    /// Repetitions that make it complete.
    pub needed: u32,
    pub seed: u64,
    files: &'static [&'static [&'static str]],
}

/// What a repetition does, with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The operator is killed after up to this many of its writes, in turn in an install, an edit and a deletion.
    OperatorKilled {
        writes: u64,
    },
    /// Two replicas believe that they lead: the Lease is overwritten, or the leader is stopped for longer than it lives.
    TwoLeaders,
    /// The leader is killed while there is something to mend.
    LeaderLost,
    /// Something harmless under load of at least this many seconds: no request may fail.
    UnderLoad {
        action: Action,
        seconds: u32,
    },
    /// SIGKILL of one gateway pod under load.
    GatewayKilled {
        seconds: u32,
    },
    /// A node loses its power under load; then as long a load again without it.
    NodeLost {
        seconds: u32,
    },
    Deleted(Target),
    /// Nothing changes, so nothing is written.
    Idle {
        seconds: u64,
    },
    /// An upgrade, back by hand, and again, under load and with streams, with every drain to its very end: no request fails and no stream is
    /// cut. Or there only, with a person who agrees to each step.
    Upgrade {
        asking: bool,
    },
    /// From one release to the other, which is as good: it does not go back.
    EqualUpgrade,
    /// Operators, control planes and nodes come and go in every phase.
    DisturbedUpgrade,
    /// Each of the bad versions in turn.
    BadVersion,
    /// Node proxies of another revision serve pods that are called, and those before again; streams through gateways too where it goes back
    /// by hand.
    NodeHandover,
    /// Pods that run join the mesh and leave it.
    JoinLeave {
        times: u32,
    },
    /// SIGKILL of the agent, of Envoy and of all of the proxy of one node.
    NodeProxiesKilled,
    /// No control plane while pods come and go, and an Envoy ends.
    ControlPlaneAway {
        minutes: u64,
    },
    /// So many pods come and go.
    PodChurn {
        pods: u32,
    },
    /// So many pods at once on one node.
    CniBurst {
        pods: u32,
    },
    /// The mesh comes and goes under pods that run on.
    InstallUninstall,
    /// Simulated upgrades, with seeds from this one on: one case of traffic in each repetition.
    Analysis {
        upgrades: u32,
        first_seed: u64,
    },
}

/// What nobody may notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Drain,
    RollingRestart,
    /// To each of these in turn.
    Autoscale {
        replicas: &'static [u8],
    },
    ControlPlaneKilled,
    RouteFlips {
        flips: u32,
    },
}

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Mesh,
    MeshNamespace,
    OperatorNamespace,
    BothNamespaces,
    InstallFile,
}

const EVERYTHING: &[&str] = &["Cargo.lock", "Cargo.toml", "crds", "e2e/src/testing", "e2e/src/soak/mesh.rs"];
const OPERATOR: &[&str] = &["operator", "control-plane/k8s", "control-plane/pki", "control-plane/runtime"];
const CONTROL_PLANE: &[&str] = &["control-plane"];
const PROXY: &[&str] = &["proxy-image"];
/// What shapes gateway pods; the rest of the operator does not reach a request under way.
const GATEWAY_PODS: &[&str] = &[
    "operator/src/gateway",
    "operator/src/availability",
    "operator/src/mesh_control_plane/build",
    "operator/src/upgrade/routing.rs",
    "operator/src/upgrade/shares.rs",
];
const KILLS: &[&str] = &["e2e/src/soak/kill.rs", "e2e/src/soak/leaders.rs"];
const INVARIANTS: &[&str] = &["e2e/src/soak/invariants.rs", "e2e/src/soak/observe.rs"];
const OPERATOR_ROWS: &[&str] = &["e2e/src/soak/operator.rs"];
const LOAD_ROWS: &[&str] = &["e2e/src/soak/under_load.rs"];
const LOSS_ROWS: &[&str] = &["e2e/src/soak/loss.rs"];
const DELETION_ROWS: &[&str] = &["e2e/src/soak/deletion.rs"];
const IDLE_ROWS: &[&str] = &["e2e/src/soak/idle.rs"];
const UPGRADE_ROWS: &[&str] = &["e2e/src/soak/upgrade.rs", "e2e/src/soak/under_load.rs"];
const STREAM_ROWS: &[&str] = &["e2e/src/soak/rollout.rs", "e2e/bookinfo/src/streams.rs"];
const DISTURBED_ROWS: &[&str] = &["e2e/src/soak/disturbed.rs", "e2e/src/soak/under_load.rs"];
const BAD_ROWS: &[&str] =
    &["e2e/src/soak/bad_versions.rs", "e2e/src/soak/untouched.rs", "e2e/src/product/faults.rs"];
/// What shapes node proxies; the rest of the operator reaches no pod.
const NODE_PODS: &[&str] = &["operator/src/mesh_control_plane/build", "e2e/bookinfo"];
const NODE_ROWS: &[&str] =
    &["e2e/src/soak/node_proxies.rs", "e2e/src/soak/with_members.rs", "e2e/src/soak/under_load.rs"];
const AWAY_ROWS: &[&str] = &["e2e/src/soak/away.rs"];
const CHURN_ROWS: &[&str] = &["e2e/src/soak/churn.rs"];
const UNINSTALL_ROWS: &[&str] = &["e2e/src/soak/uninstall.rs"];
const ANALYSIS_ROWS: &[&str] = &["operator/decisions", "e2e/src/soak/analysis.rs"];

const OF_OPERATOR: &[&[&str]] = &[EVERYTHING, OPERATOR, KILLS, INVARIANTS, OPERATOR_ROWS];
const OF_LOAD: &[&[&str]] = &[EVERYTHING, CONTROL_PLANE, PROXY, GATEWAY_PODS, LOAD_ROWS];
const OF_LOSS: &[&[&str]] = &[EVERYTHING, CONTROL_PLANE, PROXY, GATEWAY_PODS, KILLS, LOSS_ROWS];
const OF_DELETION: &[&[&str]] = &[EVERYTHING, OPERATOR, INVARIANTS, DELETION_ROWS];
const OF_UPGRADE: &[&[&str]] =
    &[EVERYTHING, OPERATOR, CONTROL_PLANE, PROXY, INVARIANTS, UPGRADE_ROWS, STREAM_ROWS];
const OF_NODES: &[&[&str]] = &[EVERYTHING, CONTROL_PLANE, PROXY, NODE_PODS, INVARIANTS, NODE_ROWS];
const OF_CHURN: &[&[&str]] = &[EVERYTHING, CONTROL_PLANE, PROXY, NODE_PODS, INVARIANTS, CHURN_ROWS];

const fn under_load(
    name: &'static str,
    needed: u32,
    seed: u64,
    action: Action,
    seconds: u32,
    files: &'static [&'static [&'static str]],
) -> Row {
    Row { name, what: What::UnderLoad { action, seconds }, needed, seed, files }
}

const fn deleted(name: &'static str, seed: u64, target: Target) -> Row {
    Row { name, what: What::Deleted(target), needed: 3, seed, files: OF_DELETION }
}

/// Every row; those that take the mesh away come last.
pub const ROWS: &[Row] = &[
    under_load("route-flips", 5, 11, Action::RouteFlips { flips: 200 }, 60, OF_LOAD),
    under_load("rolling-restart", 5, 12, Action::RollingRestart, 90, OF_LOAD),
    // Scaling down waits for the autoscaler's window of five minutes.
    under_load("autoscale", 2, 13, Action::Autoscale { replicas: &[5, 3] }, 120, OF_LOAD),
    // Each node twice.
    under_load("drain", 6, 14, Action::Drain, 90, OF_LOAD),
    under_load(
        "control-plane-killed",
        5,
        15,
        Action::ControlPlaneKilled,
        90,
        &[EVERYTHING, CONTROL_PLANE, PROXY, GATEWAY_PODS, OPERATOR, KILLS, LOAD_ROWS],
    ),
    Row {
        name: "gateway-killed",
        what: What::GatewayKilled { seconds: 45 },
        needed: 5,
        seed: 16,
        files: OF_LOSS,
    },
    Row { name: "node-lost", what: What::NodeLost { seconds: 60 }, needed: 3, seed: 17, files: OF_LOSS },
    Row {
        name: "idle",
        what: What::Idle { seconds: 300 },
        needed: 2,
        seed: 18,
        files: &[EVERYTHING, OPERATOR, CONTROL_PLANE, IDLE_ROWS],
    },
    Row { name: "leader-lost", what: What::LeaderLost, needed: 20, seed: 19, files: OF_OPERATOR },
    Row { name: "two-leaders", what: What::TwoLeaders, needed: 10, seed: 20, files: OF_OPERATOR },
    Row {
        name: "operator-killed",
        what: What::OperatorKilled { writes: 40 },
        needed: 50,
        seed: 21,
        files: OF_OPERATOR,
    },
    // One repetition for each case of traffic.
    Row {
        name: "analysis",
        what: What::Analysis { upgrades: 10_000, first_seed: 1_000_000 },
        needed: analysis::ALL,
        seed: 31,
        files: &[ANALYSIS_ROWS],
    },
    Row { name: "upgrade", what: What::Upgrade { asking: false }, needed: 5, seed: 27, files: OF_UPGRADE },
    Row { name: "equal-upgrades", what: What::EqualUpgrade, needed: 20, seed: 28, files: OF_UPGRADE },
    Row {
        name: "disturbed-upgrade",
        what: What::DisturbedUpgrade,
        needed: 5,
        seed: 29,
        files: &[EVERYTHING, OPERATOR, CONTROL_PLANE, PROXY, INVARIANTS, KILLS, DISTURBED_ROWS],
    },
    Row {
        name: "bad-versions",
        what: What::BadVersion,
        needed: 10,
        seed: 30,
        files: &[EVERYTHING, OPERATOR, CONTROL_PLANE, PROXY, INVARIANTS, KILLS, BAD_ROWS],
    },
    Row { name: "join-leave", what: What::JoinLeave { times: 3 }, needed: 5, seed: 32, files: OF_NODES },
    // In place, and with all steps.
    Row {
        name: "node-handover",
        what: What::NodeHandover,
        needed: 4,
        seed: 33,
        files: &[EVERYTHING, OPERATOR, CONTROL_PLANE, PROXY, NODE_PODS, INVARIANTS, NODE_ROWS, STREAM_ROWS],
    },
    // Each node twice.
    Row {
        name: "node-proxies-killed",
        what: What::NodeProxiesKilled,
        needed: 6,
        seed: 34,
        files: &[EVERYTHING, CONTROL_PLANE, PROXY, NODE_PODS, INVARIANTS, KILLS, NODE_ROWS],
    },
    Row {
        name: "control-plane-away",
        what: What::ControlPlaneAway { minutes: 10 },
        needed: 2,
        seed: 35,
        files: &[EVERYTHING, CONTROL_PLANE, PROXY, NODE_PODS, INVARIANTS, KILLS, NODE_ROWS, AWAY_ROWS],
    },
    // 500 pods.
    Row { name: "pod-churn", what: What::PodChurn { pods: 25 }, needed: 20, seed: 36, files: OF_CHURN },
    // Each node twice.
    Row { name: "cni-burst", what: What::CniBurst { pods: 30 }, needed: 6, seed: 37, files: OF_CHURN },
    Row {
        name: "mesh-install-uninstall",
        what: What::InstallUninstall,
        needed: 20,
        seed: 38,
        files: &[EVERYTHING, OPERATOR, CONTROL_PLANE, PROXY, INVARIANTS, UNINSTALL_ROWS],
    },
    deleted("delete-mesh", 22, Target::Mesh),
    deleted("delete-mesh-namespace", 23, Target::MeshNamespace),
    deleted("delete-operator-namespace", 24, Target::OperatorNamespace),
    deleted("delete-both-namespaces", 25, Target::BothNamespaces),
    deleted("delete-install-file", 26, Target::InstallFile),
];

impl What {
    /// Why it can be tried on a cluster on this machine only.
    pub fn local_because(&self) -> Option<&'static str> {
        match self {
            Self::OperatorKilled { .. }
            | Self::TwoLeaders
            | Self::LeaderLost
            | Self::GatewayKilled { .. }
            | Self::DisturbedUpgrade
            | Self::NodeProxiesKilled
            | Self::ControlPlaneAway { .. }
            | Self::UnderLoad { action: Action::ControlPlaneKilled, .. } => Some(outside::SIGNALS),
            Self::NodeLost { .. } => Some(outside::POWER),
            Self::Idle { .. } | Self::BadVersion => Some(outside::AUDIT_LOG),
            Self::PodChurn { .. } | Self::InstallUninstall => Some(outside::NETWORKS),
            Self::UnderLoad { .. } | Self::Deleted(_) => None,
            Self::NodeHandover | Self::JoinLeave { .. } | Self::CniBurst { .. } => None,
            Self::Upgrade { .. } | Self::EqualUpgrade | Self::Analysis { .. } => None,
        }
    }

    /// Whether it needs a cluster at all.
    pub fn needs_cluster(&self) -> bool {
        !matches!(self, Self::Analysis { .. })
    }
}

impl Row {
    /// Parameters, for people.
    pub fn parameters(&self) -> String {
        format!("{:?}", self.what)
    }

    /// Changes when what the row does changes; more repetitions only add to it.
    pub fn definition(&self) -> String {
        format!("{} {:?} {}\n", self.name, self.what, self.seed)
    }

    /// Files and folders of the checkout.
    pub fn depends_on(&self) -> impl Iterator<Item = &'static str> {
        self.files.iter().flat_map(|set| set.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn names_and_seeds_are_the_rows_own() {
        let names: BTreeSet<_> = ROWS.iter().map(|r| r.name).collect();
        let seeds: BTreeSet<_> = ROWS.iter().map(|r| r.seed).collect();
        assert_eq!((names.len(), seeds.len()), (ROWS.len(), ROWS.len()));
        assert!(ROWS.iter().all(|r| r.needed > 0));
    }

    #[test]
    fn what_rows_depend_on_is_there() {
        let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("..");
        for path in ROWS.iter().flat_map(Row::depends_on) {
            assert!(root.join(path).exists(), "{path}");
        }
    }

    #[test]
    fn documents_do_not_make_a_result_old_and_the_data_path_does_not_depend_on_certificates_of_the_operator()
    {
        let row = |name: &str| ROWS.iter().find(|r| r.name == name).unwrap();
        assert!(ROWS.iter().flat_map(Row::depends_on).all(|path| !path.starts_with("docs")));
        assert!(row("route-flips").depends_on().all(|path| path != "operator"));
        assert!(row("operator-killed").depends_on().all(|path| path != "proxy-image"));
        assert!(
            row("analysis").depends_on().all(|path| path.contains("decisions") || path.contains("analysis"))
        );
    }
}
