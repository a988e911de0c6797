//! The mesh as a repetition needs it, and the cluster as it was before something broke.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};

use super::observe::settled;
use crate::product::{self, workspace};
use crate::testing::{
    DEADLINE, Env, IN_PLACE, MESH, MESH_YAML, apply_yaml, eventually, exists, mesh_yaml, rolled_out, status,
    uncordon, wish,
};
use crate::{Cluster, addons};

/// Namespace of the operator in the install file.
pub const OPERATOR_NAMESPACE: &str = "meshwright-system";
/// Its Deployment, and its Lease.
pub const OPERATOR: &str = "meshwright-operator";
/// Its pods.
pub const OPERATOR_PODS: &str = "app.kubernetes.io/name=meshwright-operator";
/// Pods of the control plane in the mesh's namespace.
pub const CONTROL_PLANE_PODS: &str = "meshwright.io/component=control-plane";

/// The one kind of object that users make.
pub fn meshes(env: &Env) -> Api<DynamicObject> {
    env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH)
}

/// Namespaces, which live in none.
pub fn namespaces(env: &Env) -> Api<k8s_openapi::api::core::v1::Namespace> {
    Api::all(env.client.clone())
}

/// Makes sure that there is a mesh, as it is where there is one, and that it has settled.
///
/// # Errors
/// After the deadline, with what is wrong.
pub async fn present(env: &Env) -> Result<()> {
    if meshes(env).get_opt(MESH).await?.is_none() {
        apply(env).await?;
    }
    settled(env, true).await
}

/// Applies the mesh of all tests.
///
/// # Errors
/// After the deadline, with the API server's words.
pub async fn apply(env: &Env) -> Result<()> {
    applied(env, MESH_YAML).await
}

/// A namespace that is going, or a definition that is new, may refuse it for a moment.
async fn applied(env: &Env, yaml: &str) -> Result<()> {
    eventually("the MeshControlPlane to be accepted", DEADLINE, || async {
        apply_yaml(&env.client, yaml, MESH).await.map_err(|e| format!("{e:#}"))
    })
    .await
}

/// Makes sure that there is a mesh of this version, with nothing under way: where there is another, it is installed anew, which is
/// quicker than the way back of an upgrade.
///
/// # Errors
/// After the deadline, with what is wrong.
pub async fn at(env: &Env, version: &str) -> Result<()> {
    if meshes(env).get_opt(MESH).await?.is_some() {
        let now = status(env).await?;
        let settled = now.upgrade.is_none() && now.version.as_deref() == Some(version);
        if !settled {
            absent(env).await?;
        }
    }
    applied(env, &mesh_yaml(Some(version), IN_PLACE)).await?;
    wish(env, None).await?;
    settled(env, true).await
}

/// Makes sure that there is no mesh and nothing of one.
///
/// # Errors
/// After the deadline, with what is left.
pub async fn absent(env: &Env) -> Result<()> {
    delete(env).await?;
    settled(env, false).await
}

/// Asks for the mesh's deletion.
///
/// # Errors
/// When the API server refuses it.
pub async fn delete(env: &Env) -> Result<()> {
    match meshes(env).delete(MESH, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).context("delete the MeshControlPlane"),
    }
}

/// Installs the operator anew where it is not whole, and waits for it.
///
/// # Errors
/// Names the step that failed.
pub async fn operator(env: &Env) -> Result<()> {
    env.not_going(OPERATOR_NAMESPACE).await?;
    let cluster: Cluster = env.cluster.clone();
    let dist = workspace().join("target/dist");
    tokio::task::spawn_blocking(move || product::apply_files(&cluster, &dist)).await??;
    installed(env).await
}

/// Waits until the operator is whole, whichever install file it comes from.
///
/// # Errors
/// After the deadline.
pub async fn installed(env: &Env) -> Result<()> {
    rolled_out(env, OPERATOR_NAMESPACE, OPERATOR).await
}

/// Undoes what a repetition that broke, or that a person interrupted, has left.
///
/// # Errors
/// Names what cannot be undone.
pub async fn recover(env: &Env) -> Result<()> {
    let nodes: Api<Node> = Api::all(env.client.clone());
    let names = env.cluster.node_names().await?;
    for node in nodes.list(&ListParams::default()).await.context("list nodes")? {
        let name = node.metadata.name.clone().unwrap_or_default();
        uncordon(env, &name).await?;
        let number = names.iter().position(|n| *n == name);
        if let (false, Some(number)) = (addons::is_ready(&node), number) {
            let number = u8::try_from(number + 1).context("number of a node")?;
            env.cluster.start_node(number).await.with_context(|| format!("start {name}"))?;
        }
    }
    operator(env).await?;
    let mesh = meshes(env).get_opt(MESH).await?;
    if mesh.as_ref().is_some_and(|m| m.metadata.deletion_timestamp.is_some()) {
        exists(&meshes(env), MESH, false, DEADLINE).await?;
    } else if mesh.is_some() {
        restored(env).await?;
    }
    present(env).await
}

/// Asks for what other rows begin with: no other version, and nothing by annotations.
///
/// # Errors
/// When the API server refuses it.
pub async fn restored(env: &Env) -> Result<()> {
    apply(env).await?;
    wish(env, None).await
}
