//! What the pod template tells the agent.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use meshwright_pki::SpiffeId;

/// Settings of a gateway's agent, normally from the environment.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "agent", about = "Runs and configures the Envoy of a Meshwright proxy")]
pub struct Args {
    /// Who this pod is
    #[command(flatten)]
    pub workload: Workload,
    /// Its Envoy
    #[command(flatten)]
    pub proxy: Proxy,
    /// Address of this pod
    #[arg(long, env = "POD_IP", default_value = "")]
    pub pod_ip: String,
    /// Gateway this proxy belongs to
    #[arg(long, env = "GATEWAY_NAME")]
    pub gateway_name: String,
    /// Namespace of that Gateway
    #[arg(long, env = "GATEWAY_NAMESPACE")]
    pub gateway_namespace: String,
    /// How long to go on accepting connections after SIGTERM, until everybody knows that this pod leaves
    #[arg(long, env = "DRAIN_DELAY", default_value = "10s", value_parser = duration)]
    pub drain_delay: Duration,
    /// Address of /metrics
    #[arg(long, env = "METRICS_ADDR", default_value = "0.0.0.0:15020")]
    pub metrics_addr: SocketAddr,
    /// Address of /readyz, /livez and /healthz/lb
    #[arg(long, env = "HEALTH_ADDR", default_value = "0.0.0.0:15021")]
    pub health_addr: SocketAddr,
    /// How to log
    #[command(flatten)]
    pub telemetry: meshwright_runtime::telemetry::Args,
}

/// Who a pod is, and whom it asks for its certificate and its configuration.
#[derive(Clone, Debug, clap::Args)]
// Without its group, so that it can be flattened beside others.
#[group(skip)]
pub struct Workload {
    /// Name of this pod
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Namespace of this pod
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Service account of this pod; the certificate must name it
    #[arg(long, env = "SERVICE_ACCOUNT")]
    pub service_account: String,
    /// Revision this proxy belongs to
    #[arg(long, env = "MESHWRIGHT_REVISION")]
    pub revision: String,
    /// Trust domain of the mesh
    #[arg(long, env = "TRUST_DOMAIN")]
    pub trust_domain: String,
    /// Host and port of the control plane
    #[arg(long, env = "CONTROL_PLANE")]
    pub control_plane: String,
    /// SPIFFE id the control plane must prove
    #[arg(long, env = "CONTROL_PLANE_ID")]
    pub control_plane_id: SpiffeId,
    /// Service account token with our audience; read again for each request, because the kubelet renews it
    #[arg(long, env = "TOKEN_FILE", default_value = "/var/run/secrets/meshwright/token")]
    pub token_file: PathBuf,
    /// Trust anchors for the first connection
    #[arg(long, env = "TRUST_FILE", default_value = "/etc/meshwright/trust/ca.crt")]
    pub trust_file: PathBuf,
}

impl Workload {
    /// The identity of its service account.
    ///
    /// # Errors
    /// When a part of it could not be in an identity.
    pub fn id(&self) -> Result<SpiffeId, meshwright_pki::Error> {
        SpiffeId::workload(&self.trust_domain, &self.pod_namespace, &self.service_account)
    }
}

/// An Envoy, and the directory that it shares with its agent.
#[derive(Clone, Debug, clap::Args)]
// Without its group, so that it can be flattened beside others.
#[group(skip)]
pub struct Proxy {
    /// Directory of the sockets and of the bootstrap file
    #[arg(long, env = "RUN_DIR", default_value = "/run/meshwright")]
    pub run_dir: PathBuf,
    /// The Envoy binary
    #[arg(long, env = "ENVOY", default_value = "/usr/local/bin/envoy")]
    pub envoy: PathBuf,
    /// Envoy's log level
    #[arg(long, env = "ENVOY_LOG_LEVEL", default_value = "warning")]
    pub envoy_log_level: String,
    /// Envoy's worker threads; without it the CPU limit decides
    #[arg(long, env = "CONCURRENCY")]
    pub concurrency: Option<usize>,
    /// Connections Envoy accepts at most, all listeners together
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 50_000)]
    pub max_connections: u32,
    /// How long to wait for connections to end after SIGTERM
    #[arg(long, env = "DRAIN_DEADLINE", default_value = "300s", value_parser = duration)]
    pub drain_deadline: Duration,
}

/// Envoy's admin socket in the directory that it shares with its agent.
pub fn admin_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("admin.sock")
}

/// The socket in it on which Envoy finds the agent.
pub fn xds_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("xds.sock")
}

impl Proxy {
    /// Envoy's admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        admin_socket(&self.run_dir)
    }

    /// The socket on which Envoy finds us.
    pub fn xds_socket(&self) -> PathBuf {
        xds_socket(&self.run_dir)
    }

    /// Envoy's worker threads: what was asked for, else the CPU limit, else two.
    pub fn workers(&self) -> usize {
        let limit = || cpu_limit(&std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?);
        self.concurrency.or_else(limit).unwrap_or(2).max(1)
    }
}

/// The bytes that this container may use; none if that is not limited, or not known.
pub fn memory_limit() -> Option<u64> {
    bytes(&std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?)
}

// "max" means no limit.
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

// "200000 100000" means two CPUs, "max 100000" no limit. Rounded up: a thread too many costs little, half the
// allowance unused costs half the throughput.
fn cpu_limit(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

/// Reads `10s`, `5m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|e| format!("{e}"))?;
    span.try_into().map_err(|e| format!("{e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_limits_and_durations() {
        assert_eq!(cpu_limit("200000 100000\n"), Some(2));
        assert_eq!(cpu_limit("150000 100000\n"), Some(2));
        assert_eq!(cpu_limit("max 100000\n"), None);
        assert_eq!((bytes("1073741824\n"), bytes("max\n")), (Some(1 << 30), None));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("-1s").is_err());
    }
}
