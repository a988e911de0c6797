//! What the operator tells a control plane: environment variables, see docs/ARCHITECTURE.md.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use meshwright_core::mesh::Rules;
use meshwright_index::MeshSetup;
use meshwright_pki::SpiffeId;
use meshwright_runtime::{admin, telemetry};
use meshwright_xds::mesh::{Telemetry, Tracing};

use crate::nodes::Agents;

/// Where the cluster's own parts are.
const KUBE_SYSTEM: &str = "kube-system";

/// The control plane of one revision of a mesh.
#[derive(Debug, Clone, clap::Parser)]
#[command(version)]
pub struct Args {
    /// Name of this pod; its identity as a candidate for the status Lease
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Namespace of this pod and of the mesh
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,
    /// Address of this pod
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<String>,
    /// Name of the MeshControlPlane
    #[arg(long, env = "MESH_NAME")]
    pub mesh_name: String,
    /// Name of the MeshRevision
    #[arg(long, env = "MESHWRIGHT_REVISION")]
    pub revision: String,
    /// SPIFFE trust domain
    #[arg(long, env = "TRUST_DOMAIN", default_value = "cluster.local")]
    pub trust_domain: String,
    /// Life of a workload certificate
    #[arg(long, env = "WORKLOAD_TTL", default_value = "24h", value_parser = duration)]
    pub workload_ttl: Duration,
    /// ServiceAccount of this pod; the revision's name where it is not given
    #[arg(long, env = "SERVICE_ACCOUNT")]
    pub service_account: Option<String>,
    /// Where the issuing CA is mounted: tls.crt, tls.key and the trust anchors ca.crt
    #[arg(long, env = "MESHWRIGHT_ISSUING_CA_DIR", default_value = "/etc/meshwright/issuing-ca")]
    pub issuing_ca_dir: PathBuf,
    /// Address for agents: certificates and ADS
    #[arg(long, env = "MESHWRIGHT_XDS_ADDR", default_value = "0.0.0.0:15012")]
    pub xds_addr: SocketAddr,
    /// SPIFFE id of the operator, the only one that may inspect this control plane; nobody may where it is not given
    #[arg(long, env = "OPERATOR_ID")]
    pub operator_id: Option<SpiffeId>,
    /// Namespace of the operator, whose pods never join the mesh; where it is not given there are gateways only, and no pod joins
    #[arg(long, env = "OPERATOR_NAMESPACE")]
    pub operator_namespace: Option<String>,
    /// Where the proxies of nodes send traces by OTLP over gRPC, host:port; they trace nothing where it is not given
    #[arg(long, env = "PROXY_TRACING_ENDPOINT", value_parser = endpoint)]
    pub proxy_tracing_endpoint: Option<(String, u16)>,
    /// How many requests begin a trace, such as 1%
    #[arg(long, env = "PROXY_TRACING_SAMPLING", default_value = "1%", value_parser = millionths)]
    pub proxy_tracing_sampling: u32,
    /// Whether the proxies of nodes write a line for each request and connection
    #[arg(long, env = "PROXY_ACCESS_LOG", default_value_t = false, action = clap::ArgAction::Set)]
    pub proxy_access_log: bool,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
    /// Admin endpoints.
    #[command(flatten)]
    pub admin: admin::Args,
}

impl Args {
    /// The names in the serving certificate.
    pub fn dns_names(&self) -> Vec<String> {
        let service = format!("{}.{}.svc", self.revision, self.pod_namespace);
        vec![format!("{service}.cluster.local"), service]
    }

    /// The ServiceAccount in our own identity.
    pub fn account(&self) -> &str {
        self.service_account.as_deref().unwrap_or(&self.revision)
    }

    /// The agents of the nodes of our revision.
    pub fn agents(&self) -> Agents {
        Agents {
            trust_domain: self.trust_domain.clone(),
            namespace: self.pod_namespace.clone(),
            revision: self.revision.clone(),
        }
    }

    /// What the proxies of nodes tell of single requests.
    pub fn proxy_telemetry(&self) -> Telemetry {
        let tracing = self.proxy_tracing_endpoint.clone().map(|(host, port)| Tracing {
            host,
            port,
            sampling: self.proxy_tracing_sampling,
        });
        Telemetry { tracing, access_log: self.proxy_access_log }
    }

    /// The mesh that we serve, if pods are to join it. Operators before 0.3 give no right to read MeshNodes. What it needs in order to work must not depend on it, so the pods of three namespaces never join.
    pub fn mesh(&self) -> Option<MeshSetup> {
        let closed = [&self.pod_namespace, self.operator_namespace.as_ref()?, KUBE_SYSTEM];
        Some(MeshSetup {
            namespace: self.pod_namespace.clone(),
            trust_domain: self.trust_domain.clone(),
            rules: Rules {
                closed: closed.into_iter().map(str::to_owned).collect(),
                root: self.pod_namespace.clone(),
            },
        })
    }
}

fn endpoint(text: &str) -> Result<(String, u16), String> {
    let found = meshwright_core::telemetry::endpoint(text).map(|(host, port)| (host.to_owned(), port));
    found.ok_or_else(|| format!("{text:?} is not host:port"))
}

fn millionths(text: &str) -> Result<u32, String> {
    let found = meshwright_core::telemetry::millionths(text);
    found.ok_or_else(|| format!("{text:?} is not a percentage such as 0.5%"))
}

fn duration(text: &str) -> Result<Duration, String> {
    meshwright_core::duration::parse(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text:?} is not a duration such as 24h or 90m"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn pods_of_the_mesh_itself_the_operator_and_the_cluster_never_join() {
        let args = "cp --pod-name p --pod-namespace mesh-ns --mesh-name mesh --revision mesh-1 --operator-namespace ops";
        let args = Args::parse_from(args.split(' '));
        let closed = args.mesh().unwrap().rules.closed;
        assert_eq!(closed.iter().collect::<Vec<_>>(), ["kube-system", "mesh-ns", "ops"]);
    }

    #[test]
    fn proxies_tell_what_the_operator_says_and_nothing_else() {
        let of = |more: &str| {
            let args =
                format!("cp --pod-name p --pod-namespace mesh-ns --mesh-name mesh --revision mesh-1 {more}");
            Args::try_parse_from(args.split_whitespace()).map(|args| args.proxy_telemetry())
        };
        assert_eq!(of("").unwrap(), Telemetry::default());
        let all = of(
            "--proxy-tracing-endpoint otel.obs:4317 --proxy-tracing-sampling 0.5% --proxy-access-log true",
        );
        let tracing = Tracing { host: "otel.obs".to_owned(), port: 4317, sampling: 5000 };
        assert_eq!(all.unwrap(), Telemetry { tracing: Some(tracing), access_log: true });
        assert!(of("--proxy-tracing-endpoint otel").is_err() && of("--proxy-tracing-sampling 2").is_err());
    }
}
