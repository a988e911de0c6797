//! What the operator tells a control plane: environment variables, see docs/ARCHITECTURE.md.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use meshwright_core::mesh::Rules;
use meshwright_index::MeshSetup;
use meshwright_pki::SpiffeId;
use meshwright_runtime::{admin, telemetry};

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
}
