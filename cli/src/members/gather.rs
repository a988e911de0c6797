//! Every read of it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};
use meshwright_api::{MeshControlPlane, MeshRevision};
use meshwright_core::mesh::Rules;

use super::Members;
use crate::{
    client,
    gather::{Looked, OPERATOR_NAMESPACE, list},
};

const KUBE_SYSTEM: &str = "kube-system";
/// Where Cilium keeps its settings.
const CILIUM: &str = "cilium-config";

/// Looks at all pods and what is around them; nothing where no revision of the mesh has node proxies.
pub async fn members(
    client: &Client,
    mesh: &MeshControlPlane,
    revisions: &[MeshRevision],
    operator: Option<String>,
) -> Option<Members> {
    let status = mesh.status.as_ref()?;
    let active = status.active_revision.as_ref()?;
    let with_proxies = |r: &&MeshRevision| r.spec.node_slot.is_some();
    let revision = revisions.iter().filter(with_proxies).find(|r| r.name_any() == *active)?;
    let namespace = mesh.namespace().unwrap_or_default();
    let operator = operator.unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
    let closed = [namespace.as_str(), &operator, KUBE_SYSTEM].map(str::to_owned).into();
    let (nodes, mesh_nodes, pods, namespaces, policies, authorization, tls, cilium) = tokio::join!(
        list(client, "kubernetes.io/os=linux"),
        list(client, ""),
        list(client, ""),
        list(client, ""),
        list(client, ""),
        list(client, ""),
        list(client, ""),
        cilium(client),
    );
    let ours = |all: Vec<meshwright_api::MeshNode>| {
        all.into_iter().filter(|m| m.namespace().as_deref() == Some(&namespace)).collect()
    };
    Some(Members {
        trust_domain: revision.spec.trust_domain.clone(),
        rules: Rules { closed, root: namespace.clone() },
        nodes,
        mesh_nodes: mesh_nodes.map(ours),
        pods,
        namespaces,
        policies,
        authorization,
        tls,
        cilium,
        namespace,
    })
}

async fn cilium(client: &Client) -> Looked<Option<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), KUBE_SYSTEM);
    api.get_opt(CILIUM).await.map_err(|e| client::reason(&e))
}
