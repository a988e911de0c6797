//! What an operator that was removed in the middle of things left behind: objects outside a mesh's namespace whose mesh
//! is gone. Looked for once, when a replica begins to lead.

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::{Api, ResourceExt, api::ListParams, core::ApiResource};
use meshwright_api::{MeshControlPlane, gateway::GatewayClass, labels};

use crate::{
    apply::{Error, prune},
    context::Context,
    error, gateway_api,
    mesh_control_plane::of_gateways,
};

/// Sweeps. A failure is only logged: nothing depends on it, and the next leader tries again.
pub async fn sweep(ctx: &Context) {
    if let Err(error) = orphans(ctx).await {
        tracing::warn!(error = %error::chain(&error), "could not remove what earlier meshes left");
    }
}

async fn orphans(ctx: &Context) -> Result<(), Error> {
    // Metadata, so that a mesh whose spec does not decode is not taken for one that is gone.
    let meshes: Api<MeshControlPlane> = Api::all(ctx.client.clone());
    let meshes =
        meshes.list_metadata(&ListParams::default()).await.map_err(Error::request("list", "meshes"))?;
    let mut kinds = Vec::from(of_gateways());
    kinds.extend([ApiResource::erase::<ClusterRoleBinding>(&()), ApiResource::erase::<RoleBinding>(&())]);
    if gateway_api::is_served(ctx).await.unwrap_or(false) {
        kinds.push(ApiResource::erase::<GatewayClass>(&()));
    }
    let selector = format!("{}={},{}", labels::MANAGED_BY, labels::MANAGER, labels::MESH_NAMESPACE);
    for kind in &kinds {
        prune(ctx, kind, None, &selector, |object| {
            let label = |name: &str| object.labels().get(name).cloned();
            meshes.items.iter().any(|m| {
                Some(m.name_any()) == label(labels::MESH_NAME)
                    && m.namespace() == label(labels::MESH_NAMESPACE)
            })
        })
        .await?;
    }
    Ok(())
}
