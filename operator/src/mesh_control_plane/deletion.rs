//! The end of a mesh. What its namespace's garbage collector does not reach is removed here: objects in other
//! namespaces, cluster-scoped ones, the root key. Users' Gateways, routes and the Gateway API's definitions stay.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::ApiResource,
    runtime::{controller::Action, events::EventType},
};
use meshwright_api::{MeshControlPlane, gateway::GatewayClass, labels};
use serde_json::json;

use super::{
    dereference,
    nodes::leave,
    tell,
    validate::{MeshRef, reference},
};
use crate::{
    apply::{self, prune},
    certificates::{self, root::secret_name},
    context::Context,
    error::Class,
    gateway_api, mesh_revision, reconciler,
};

/// Holds the MeshControlPlane until what belongs to it is removed.
pub const FINALIZER: &str = "meshwright.io/cleanup";

/// Between two passes of the cleaning up.
const AGAIN: Duration = Duration::from_secs(1);

/// The cleaning up failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request.
    #[error(transparent)]
    Request(#[from] apply::Error),
    /// The definitions could not be looked at.
    #[error(transparent)]
    GatewayApi(#[from] gateway_api::Error),
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            // A right that is already taken away comes back with nobody; do not wait for it for long.
            Self::Request(e) => e.class(),
            Self::GatewayApi(e) => e.class(),
        }
    }
}

/// Removes what belongs to the mesh, then lets it go.
pub async fn finish(ctx: &Context, mcp: &MeshControlPlane) -> Result<Action, Error> {
    if !mcp.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(Action::await_change());
    }
    // While there is a control plane that can tell their agents.
    if !leave::leave(ctx, mcp).await? {
        return Ok(Action::requeue(AGAIN));
    }
    let mesh = reference(mcp);
    // What another controller wrote while this pass went on would be left behind for good: only a pass that finds
    // nothing any more is the last one.
    if clean(ctx, &mesh).await? > 0 {
        return Ok(Action::requeue(AGAIN));
    }
    delete_root(ctx, &mesh).await?;
    certificates::publish(ctx, &[]);
    for revision in dereference::revisions(ctx, mcp).await? {
        mesh_revision::release(ctx, &revision).await?;
    }
    let note = "what belongs to the mesh is removed; Gateways and routes stay and are served by nobody";
    tell(ctx, mcp, EventType::Normal, "MeshRemoved", note.to_owned()).await;
    release(ctx, mcp).await?;
    Ok(Action::await_change())
}

/// One pass of it, whatever holds the mesh.
pub async fn clear(ctx: &Context, mcp: &MeshControlPlane) -> Result<(), Error> {
    let mesh = reference(mcp);
    leave::unclaim(ctx, mcp).await?;
    clean(ctx, &mesh).await?;
    delete_root(ctx, &mesh).await
}

/// Kinds that are made for Gateways. Scaling comes off before pods, the address late: connections end by the proxies'
/// own drain.
pub fn of_gateways() -> [ApiResource; 6] {
    [
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
    ]
}

// How many objects there were to delete.
async fn clean(ctx: &Context, mesh: &MeshRef) -> Result<usize, Error> {
    let mut deleted = 0;
    let ours = super::apply::selector(mesh);
    let gateways = format!("{ours},{}={}", labels::COMPONENT, labels::COMPONENT_GATEWAY);
    for kind in &of_gateways() {
        deleted += prune(ctx, kind, None, &gateways, |_| false).await?;
    }
    if gateway_api::is_served(ctx).await? {
        deleted += prune(ctx, &ApiResource::erase::<GatewayClass>(&()), None, &ours, |_| false).await?;
    }
    // In other namespaces; those of the mesh's own go with their owners.
    let binding = ApiResource::erase::<RoleBinding>(&());
    deleted +=
        prune(ctx, &binding, None, &ours, |o| o.namespace().as_deref() == Some(&mesh.namespace)).await?;
    deleted += prune(ctx, &ApiResource::erase::<ClusterRoleBinding>(&()), None, &ours, |_| false).await?;
    Ok(deleted)
}

async fn delete_root(ctx: &Context, mesh: &MeshRef) -> Result<(), Error> {
    let name = secret_name(&mesh.namespace, &mesh.name);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let root = api.get_metadata_opt(&name).await;
    let root = root.map_err(apply::Error::request("read", format!("Secret {name}")))?;
    if let Some(root) = root.filter(|r| r.metadata.deletion_timestamp.is_none()) {
        apply::delete(ctx, &ApiResource::erase::<Secret>(&()), &root).await?;
    }
    Ok(())
}

/// Takes the finalizer off.
pub async fn release(ctx: &Context, mcp: &MeshControlPlane) -> Result<(), apply::Error> {
    let api: Api<MeshControlPlane> =
        Api::namespaced(ctx.client.clone(), &mcp.namespace().unwrap_or_default());
    let left: Vec<&String> = mcp.finalizers().iter().filter(|f| *f != FINALIZER).collect();
    if left.len() == mcp.finalizers().len() {
        return Ok(());
    }
    let body = json!({"metadata": {"resourceVersion": mcp.resource_version(), "finalizers": left}});
    ctx.metrics.wrote("MeshControlPlane", "apply");
    let name = mcp.name_any();
    match ctx.write(api.patch(&name, &PatchParams::default(), &Patch::Merge(&body))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(apply::Error::request(
            "take the finalizer off",
            format!("MeshControlPlane {}", mcp.name_any()),
        )(error)),
    }
}

/// Every mesh with our finalizer, for an operator that is itself being removed. One that does not decode must not hold up
/// the others.
pub async fn held(ctx: &Context) -> Result<Vec<MeshControlPlane>, apply::Error> {
    let list =
        reconciler::list::<MeshControlPlane>(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let list = list.map_err(apply::Error::request("list", "meshes"))?;
    Ok(list.into_iter().filter(|m| m.finalizers().iter().any(|f| f == FINALIZER)).collect())
}
