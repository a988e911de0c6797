//! Pods and their place in the mesh, by the same rules as the control plane has. Pure but for [`gather`].

use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod},
    networking::v1::NetworkPolicy,
};
use kube::ResourceExt;
use meshwright_api::{AuthorizationPolicy, MeshNode, MeshPod, MeshTLSPolicy, names};
use meshwright_core::{
    ObjectKey,
    mesh::{self, Outside, Rules, membership},
    model,
};

use crate::gather::Looked;
pub use policies::Policies;

pub mod gather;
mod policies;
#[cfg(test)]
mod tests;

/// What has to do with the pods of the mesh.
#[derive(Debug, Clone)]
pub struct Members {
    /// Namespace of the mesh.
    pub namespace: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Who never joins.
    pub rules: Rules,
    /// All nodes.
    pub nodes: Looked<Vec<Node>>,
    /// Who serves them.
    pub mesh_nodes: Looked<Vec<MeshNode>>,
    /// All pods.
    pub pods: Looked<Vec<Pod>>,
    /// All namespaces.
    pub namespaces: Looked<Vec<Namespace>>,
    /// All NetworkPolicies.
    pub policies: Looked<Vec<NetworkPolicy>>,
    /// All AuthorizationPolicies.
    pub authorization: Looked<Vec<AuthorizationPolicy>>,
    /// All MeshTLSPolicies.
    pub tls: Looked<Vec<MeshTLSPolicy>>,
    /// Settings of Cilium, where that is installed.
    pub cilium: Looked<Option<ConfigMap>>,
}

/// Where a pod that is to be in the mesh stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stands {
    /// Others send it mutual TLS.
    Listed(MeshPod),
    /// Not yet, in the agent's words.
    Awaited(String),
    /// Nobody says anything of it.
    Unheard,
}

impl Members {
    /// Whether a pod is to be in the mesh, and why not.
    pub fn membership(&self, pod: &Pod) -> Result<(), Outside> {
        let key = ObjectKey::new(pod.namespace().unwrap_or_default(), pod.name_any());
        let of_pod = |n: &&Namespace| n.name_any() == key.namespace;
        let around = self.namespaces.as_ref().ok().and_then(|all| all.iter().find(of_pod));
        let around = around.map(|n| model::Namespace { labels: n.labels().clone() });
        membership(&modelled(pod), &key, around.as_ref(), &self.rules)
    }

    /// SPIFFE id that it has there.
    pub fn identity(&self, pod: &Pod) -> String {
        let account = modelled(pod).service_account;
        let namespace = pod.namespace().unwrap_or_default();
        format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain)
    }

    /// Who serves the node of this name.
    pub fn mesh_node(&self, node: &str) -> Option<&MeshNode> {
        self.mesh_nodes.as_ref().ok()?.iter().find(|m| m.name_any() == node)
    }

    /// Where a member stands.
    pub fn stands(&self, pod: &Pod) -> Stands {
        let uid = pod.uid().unwrap_or_default();
        let status = self.mesh_node(&node_of(pod)).and_then(|m| m.status.as_ref());
        let listed = status.and_then(|s| s.pods.iter().find(|p| p.uid == uid));
        let awaited = status.and_then(|s| s.awaiting.iter().find(|p| p.uid == uid));
        match (listed, awaited) {
            (Some(listed), _) => Stands::Listed(listed.clone()),
            (_, Some(awaited)) => Stands::Awaited(awaited.reason.clone()),
            _ => Stands::Unheard,
        }
    }

    /// Pods that are to be in the mesh.
    pub fn all(&self) -> Vec<&Pod> {
        let pods = self.pods.as_ref().map(Vec::as_slice).unwrap_or_default();
        pods.iter().filter(|pod| is_there(pod) && self.membership(pod).is_ok()).collect()
    }
}

/// The node that a pod is on; empty before it has one.
pub fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()
}

/// It has a node and has not ended.
pub fn is_there(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !node_of(pod).is_empty() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Namespace and name.
pub fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// What decides about membership.
fn modelled(pod: &Pod) -> model::Pod {
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec.init_containers.unwrap_or_default().into_iter().chain(spec.containers);
    let addresses = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten()).map(|a| a.ip.clone());
    model::Pod {
        uid: pod.uid().unwrap_or_default(),
        node: spec.node_name.unwrap_or_default(),
        labels: pod.labels().clone(),
        service_account: spec.service_account_name.unwrap_or_default(),
        // What it is a replica of decides nothing.
        workload: String::new(),
        host_network: spec.host_network.unwrap_or_default(),
        addresses: addresses.collect(),
        // Whose an address is does not matter here.
        since: 0,
        sidecar: containers.map(|c| c.name).find(|name| mesh::is_foreign_sidecar(name)),
        ..model::Pod::default()
    }
}

/// How to look at the node proxies of a revision.
pub fn describe_proxies(namespace: &str, revision: &str) -> String {
    format!("kubectl -n {namespace} describe daemonset {}", names::node_resources(revision))
}
