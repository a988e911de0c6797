//! Writes MeshNodes: their specs only, by compare-and-swap, so that an old leader gives no node away.

use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    core::ApiResource,
};
use meshwright_api::{MeshNode, MeshNodeSpec};
use serde_json::json;

use super::Change;
use crate::{
    apply::{self, Error, MANAGER},
    context::Context,
    mesh_control_plane::{MeshRef, build::shared},
};

/// Makes the changes; what fails for one node stops no other. The first failure is returned.
pub async fn apply(ctx: &Context, mesh: &MeshRef, changes: Vec<Change>) -> Result<(), Error> {
    let mut failed = None;
    for change in changes {
        let done = match change {
            Change::Create(node, spec) => create(ctx, mesh, node, spec).await,
            Change::Give(node, spec) => give(ctx, mesh, node, spec).await,
            Change::Delete(node) => delete(ctx, &node).await,
        };
        failed = failed.or(done.err());
    }
    failed.map_or(Ok(()), Err)
}

/// Deletes one.
pub async fn delete(ctx: &Context, node: &MeshNode) -> Result<(), Error> {
    apply::delete(ctx, &ApiResource::erase::<MeshNode>(&()), node).await.map(drop)
}

async fn create(ctx: &Context, mesh: &MeshRef, name: String, spec: MeshNodeSpec) -> Result<(), Error> {
    let node = MeshNode {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(mesh.namespace.clone()),
            labels: Some(shared::labels(&mesh.name, &mesh.namespace, &[])),
            owner_references: mesh.owner.clone().map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let object = format!("MeshNode {name}");
    ctx.metrics.wrote("MeshNode", "create");
    match ctx.begin(api(ctx, mesh).create(&params, &node)).await {
        Ok(_) => Ok(()),
        // Ours were read a moment ago, and it is none of them: an earlier mesh's, about to be collected.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Err(Error::Leaving { object }),
        Err(error) => Err(Error::request("create", object)(error)),
    }
}

async fn give(ctx: &Context, mesh: &MeshRef, node: MeshNode, spec: MeshNodeSpec) -> Result<(), Error> {
    let name = node.name_any();
    let body = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": spec});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    ctx.metrics.wrote("MeshNode", "apply");
    let given = ctx.write(api(ctx, mesh).patch(&name, &params, &Patch::Merge(&body))).await;
    given.map_err(Error::request("give away", format!("MeshNode {name}")))?;
    tracing::info!(
        node = name,
        from = node.spec.revision,
        to = spec.revision,
        epoch = spec.epoch,
        "node given"
    );
    Ok(())
}

fn api(ctx: &Context, mesh: &MeshRef) -> Api<MeshNode> {
    Api::namespaced(ctx.client.clone(), &mesh.namespace)
}
