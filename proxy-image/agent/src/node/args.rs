//! What the DaemonSet tells the two containers of a node's proxy.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use envoy_types::pb::envoy::config::core::v3::Node;
use meshwright_pki::SpiffeId;

use crate::{
    args::{Proxy, Workload, duration},
    upstream,
};

/// Settings of a node's agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Who this pod is
    #[command(flatten)]
    pub workload: Workload,
    /// Where it runs
    #[command(flatten)]
    pub place: Place,
    /// What it finds on the node
    #[command(flatten)]
    pub paths: Paths,
    /// In each pod's network: the port to which what its processes send is redirected
    #[arg(long, env = "OUTBOUND_PORT")]
    pub outbound_port: u16,
    /// In each pod's network: the port that takes mutual TLS
    #[arg(long, env = "INBOUND_PORT")]
    pub inbound_port: u16,
    /// Directory that is shared with the Envoy of this pod, and has its sockets
    #[arg(long, env = "RUN_DIR", default_value = "/run/proxy")]
    pub run_dir: PathBuf,
    /// How long to wait for connections to end after SIGTERM, where the proxy goes for good
    #[arg(long, env = "DRAIN_DEADLINE", default_value = "300s", value_parser = duration)]
    pub drain_deadline: Duration,
    /// Address of /metrics
    #[arg(long, env = "METRICS_ADDR")]
    pub metrics_addr: SocketAddr,
    /// Address of /readyz and /livez
    #[arg(long, env = "HEALTH_ADDR")]
    pub health_addr: SocketAddr,
    /// How to log
    #[command(flatten)]
    pub telemetry: meshwright_runtime::telemetry::Args,
}

/// Settings of the container that runs Envoy.
#[derive(Clone, Debug, clap::Args)]
pub struct EnvoyArgs {
    /// Name of this pod
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Namespace of this pod
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Revision this proxy belongs to
    #[arg(long, env = "MESHWRIGHT_REVISION")]
    pub revision: String,
    /// Where it runs
    #[command(flatten)]
    pub place: Place,
    /// Its Envoy
    #[command(flatten)]
    pub proxy: Proxy,
    /// How to log
    #[command(flatten)]
    pub telemetry: meshwright_runtime::telemetry::Args,
}

/// A node, and one of the two places for proxies on it.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Place {
    /// Name of the Node
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Whose ports are used, A or B
    #[arg(long, env = "SLOT", value_parser = ["A", "B"])]
    pub slot: String,
}

/// Programs and directories. What is of the node has the same path here and there.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Paths {
    /// Directory of the node for all agents on it: who serves it, and the network plugin's socket
    #[arg(long, env = "NODE_DIR", default_value = "/run/meshwright")]
    pub node_dir: PathBuf,
    /// Directory of pods' network namespaces
    #[arg(long, env = "NETNS_DIR", default_value = "/run/netns")]
    pub netns_dir: PathBuf,
    /// Where the container runtime keeps the results of network plugins
    #[arg(long, env = "CNI_CACHE_DIR", default_value = "/var/lib/cni")]
    pub cni_cache_dir: PathBuf,
    /// Where the node's list of network plugins is
    #[arg(long, env = "CNI_CONF_DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Where network plugins are
    #[arg(long, env = "CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Our network plugin, to be installed
    #[arg(long, env = "PLUGIN", default_value = "/usr/local/bin/meshwright-cni")]
    pub plugin: PathBuf,
    /// The nft program
    #[arg(long, env = "NFT", default_value = "/usr/sbin/nft")]
    pub nft: PathBuf,
}

impl Args {
    /// The identity of the agent on this node.
    ///
    /// # Errors
    /// When a part of it could not be in an identity.
    pub fn id(&self) -> Result<SpiffeId, meshwright_pki::Error> {
        format!("{}/node/{}", self.workload.id()?, self.place.node_name).parse()
    }

    /// What the control plane is told on the configuration stream; Envoy's bootstrap has the same.
    pub fn node(&self) -> Node {
        let Workload { pod_name, pod_namespace, revision, .. } = &self.workload;
        upstream::node(
            &self.workload,
            revision.clone(),
            metadata(pod_name, pod_namespace, revision, &self.place),
        )
    }
}

/// Metadata of a node's proxy.
pub fn metadata<'a>(
    pod: &'a str,
    namespace: &'a str,
    revision: &'a str,
    place: &'a Place,
) -> [(&'static str, &'a str); 5] {
    [
        ("NODE_NAME", &place.node_name),
        ("SLOT", &place.slot),
        ("REVISION", revision),
        ("POD_NAME", pod),
        ("POD_NAMESPACE", namespace),
    ]
}
