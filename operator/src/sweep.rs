//! What an operator that was removed in the middle of things left behind: objects outside a mesh's namespace whose mesh
//! is gone. Looked for when a replica begins to lead.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
    core::{ApiResource, PartialObjectMeta},
};
use meshwright_api::{MeshControlPlane, gateway::GatewayClass, labels};

use crate::{
    apply::{Error, delete, find},
    context::Context,
    error, gateway_api,
    mesh_control_plane::of_gateways,
};

/// Between two attempts, and the longest time for one.
const AGAIN: Duration = Duration::from_secs(60);

/// Sweeps until an attempt succeeds. Nothing waits for it.
pub async fn sweep(ctx: &Context) {
    loop {
        match tokio::time::timeout(AGAIN, orphans(ctx)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::warn!(error = %error::chain(&error), "could not remove what earlier meshes left");
                tokio::time::sleep(AGAIN).await;
            }
            Err(_) => tracing::warn!("could not remove what earlier meshes left: no answer"),
        }
    }
}

async fn orphans(ctx: &Context) -> Result<(), Error> {
    let mut kinds = Vec::from(of_gateways());
    kinds.extend([ApiResource::erase::<ClusterRoleBinding>(&()), ApiResource::erase::<RoleBinding>(&())]);
    if gateway_api::is_served(ctx).await.unwrap_or(false) {
        kinds.push(ApiResource::erase::<GatewayClass>(&()));
    }
    let selector = format!("{}={},{}", labels::MANAGED_BY, labels::MANAGER, labels::MESH_NAMESPACE);
    let mut objects = Vec::new();
    for kind in &kinds {
        objects.extend(find(ctx, kind, None, &selector).await?.into_iter().map(|object| (kind, object)));
    }
    // After the objects, so that none is of a mesh that was made in between; metadata, so that a mesh whose spec does not
    // decode is not taken for one that is gone.
    let meshes: Api<MeshControlPlane> = Api::all(ctx.client.clone());
    let meshes =
        meshes.list_metadata(&ListParams::default()).await.map_err(Error::request("list", "meshes"))?;
    let has_mesh = |object: &PartialObjectMeta<DynamicObject>| {
        let label = |name: &str| object.labels().get(name).cloned();
        meshes.items.iter().any(|m| {
            Some(m.name_any()) == label(labels::MESH_NAME) && m.namespace() == label(labels::MESH_NAMESPACE)
        })
    };
    for (kind, object) in objects.iter().filter(|(_, object)| !has_mesh(object)) {
        delete(ctx, kind, object).await?;
    }
    Ok(())
}
