//! MeshRevisions: their status, and the finalizer that holds a deletion while something uses them.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::controller::Action,
};
use meshwright_api::{
    MeshControlPlane, MeshRevision, MeshRevisionStatus,
    conditions::{self, Finding},
};
use serde_json::json;

use crate::{
    apply::Error,
    context::Context,
    error::{self, Class},
};

/// Holds a deletion while the revision is in use.
pub const FINALIZER: &str = "meshwright.io/in-use";
/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "mesh-revision";

/// Writes the status, if it changed and nobody wrote in between.
pub async fn record(
    ctx: &Context,
    revision: MeshRevision,
    findings: Vec<Finding>,
    ready_replicas: i32,
) -> Result<MeshRevision, Error> {
    let before = revision.status.clone().unwrap_or_default();
    let after = status(&revision, findings, ready_replicas, ctx.now());
    if after == before && revision.status.is_some() {
        return Ok(revision);
    }
    let name = revision.name_any();
    let api: Api<MeshRevision> = api(ctx, &revision);
    let wanted = MeshRevision { status: Some(after), ..revision };
    ctx.metrics.wrote("MeshRevision", "status");
    let written = ctx.write(api.replace_status(&name, &PostParams::default(), &wanted)).await;
    written.map_err(Error::request("write the status of", format!("MeshRevision {name}")))
}

fn status(
    revision: &MeshRevision,
    findings: Vec<Finding>,
    ready_replicas: i32,
    now: Timestamp,
) -> MeshRevisionStatus {
    let generation = revision.metadata.generation;
    let mut status = revision.status.clone().unwrap_or_default();
    for finding in findings {
        conditions::set(&mut status.conditions, finding, generation, now);
    }
    MeshRevisionStatus { observed_generation: generation, ready_replicas, ..status }
}

/// Takes the finalizer off this very object.
pub async fn release(ctx: &Context, revision: &MeshRevision) -> Result<MeshRevision, Error> {
    if !revision.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(revision.clone());
    }
    let name = revision.name_any();
    let left: Vec<&String> = revision.finalizers().iter().filter(|f| *f != FINALIZER).collect();
    let body = json!({"metadata": {"resourceVersion": revision.resource_version(), "finalizers": left}});
    ctx.metrics.wrote("MeshRevision", "apply");
    let api = api(ctx, revision);
    match ctx.write(api.patch(&name, &PatchParams::default(), &Patch::Merge(&body))).await {
        Ok(released) => Ok(released),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(revision.clone()),
        Err(error) => Err(Error::request("take the finalizer off", format!("MeshRevision {name}"))(error)),
    }
}

/// A revision whose mesh is gone, or going, is held by nothing. All else is the MeshControlPlane's reconcile.
pub async fn reconcile(revision: Arc<MeshRevision>, ctx: Arc<Context>) -> Result<Action, Error> {
    if revision.metadata.deletion_timestamp.is_none() {
        return Ok(error::settled(None));
    }
    let namespace = revision.namespace().unwrap_or_default();
    let meshes: Api<MeshControlPlane> = Api::namespaced(ctx.client.clone(), &namespace);
    let mesh = meshes.get_opt(&revision.spec.mesh).await;
    let mesh =
        mesh.map_err(Error::request("read", format!("MeshControlPlane {namespace}/{}", revision.spec.mesh)))?;
    let owned = |mesh: &MeshControlPlane| {
        revision.owner_references().iter().any(|o| Some(&o.uid) == mesh.meta().uid.as_ref())
    };
    let held = mesh.is_some_and(|m| owned(&m) && m.metadata.deletion_timestamp.is_none());
    if !held {
        release(&ctx, &revision).await?;
    }
    Ok(error::settled(None))
}

impl crate::reconciler::Classified for Error {
    fn class(&self) -> Class {
        Self::class(self)
    }
}

fn api(ctx: &Context, revision: &MeshRevision) -> Api<MeshRevision> {
    Api::namespaced(ctx.client.clone(), &revision.namespace().unwrap_or_default())
}
