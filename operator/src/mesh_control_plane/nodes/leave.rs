//! The end of node proxies, in an order that leaves no pod's connections behind. Without its MeshNode an agent takes its redirection away,
//! and it does so only as long as it runs and its control plane can tell it: so first the MeshNodes go, then the proxies, and the control
//! plane after these.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, api::ListParams, core::ApiResource};
use meshwright_api::{MeshControlPlane, labels};

use super::{apply::delete, read::mesh_nodes};
use crate::{
    apply::{self, Error, prune},
    context::Context,
    mesh_control_plane::{MeshRef, reference},
    pods,
};

/// So long it may take until every agent believes that its node is nobody's: it waits for 10 s before it does, and up to 15 s to connect again.
/// One that is told to end before that takes it for a restart, and leaves everything as it is.
const HEARD: Duration = Duration::from_secs(30);

/// Takes every node away from its proxy. Returns how many there were.
pub async fn unclaim(ctx: &Context, mcp: &MeshControlPlane) -> Result<usize, Error> {
    let nodes = mesh_nodes(ctx, mcp).await?;
    for node in &nodes {
        delete(ctx, node).await?;
    }
    Ok(nodes.len())
}

/// One pass of it; true when nothing is left. A crash after the first part costs the wait, and by the time that another replica leads
/// it is over anyway.
pub async fn leave(ctx: &Context, mcp: &MeshControlPlane) -> Result<bool, Error> {
    if unclaim(ctx, mcp).await? > 0 {
        let _ = ctx.leaving.run_until_cancelled(tokio::time::sleep(HEARD)).await;
        return Ok(false);
    }
    let mesh = reference(mcp);
    let kind = ApiResource::erase::<DaemonSet>(&());
    let deleted = prune(ctx, &kind, Some(&mesh.namespace), &selector(&mesh), |_| false).await?;
    Ok(deleted == 0 && !has_pods(ctx, &mesh).await?)
}

// A pod that should have ended long ago is on a node that does not answer, and is not waited for.
async fn has_pods(ctx: &Context, mesh: &MeshRef) -> Result<bool, Error> {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &mesh.namespace);
    let pods = api.list(&ListParams::default().labels(&selector(mesh))).await;
    let pods = pods.map_err(apply::Error::request("list", "pods of node proxies"))?;
    Ok(pods.items.iter().any(|p| !pods::is_over(p) && !pods::is_overdue(p, ctx.now())))
}

fn selector(mesh: &MeshRef) -> String {
    let ours = crate::mesh_control_plane::apply::selector(mesh);
    format!("{ours},{}={}", labels::COMPONENT, labels::COMPONENT_NODE)
}
