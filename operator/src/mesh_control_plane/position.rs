//! The position of multi-step work, written first and by compare-and-swap.

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::events::EventType,
};
use meshwright_api::{MeshControlPlane, MeshControlPlaneStatus, UpgradePhase, UpgradeStatus, labels};
use serde_json::json;

use super::{Seen, ValidatedMesh, apply::Error, deletion::FINALIZER, step::Step, tell};
use crate::{
    apply,
    context::Context,
    metrics::UpgradeLabels,
    upgrade::{machine::HISTORY, machine::is_same_position, trace},
};

/// Annotations by which a person takes part in an upgrade.
const WISHES: [&str; 5] =
    [labels::APPROVE, labels::ACKNOWLEDGE, labels::ROLLBACK, labels::RETRY, labels::END_KEEP_WARM];

/// First of all: the finalizer, before anything exists that only it removes, and which revision is the active one.
pub(super) async fn position(
    ctx: &Context,
    seen: &Seen,
    mesh: &ValidatedMesh,
    step: &Step,
) -> Result<MeshControlPlane, Error> {
    let api: Api<MeshControlPlane> = Api::namespaced(ctx.client.clone(), &mesh.mesh.namespace);
    let name = &mesh.mesh.name;
    let mut mcp = seen.fresh.clone();
    if !mcp.finalizers().iter().any(|f| f == FINALIZER) {
        mcp.finalizers_mut().push(FINALIZER.to_owned());
        let body = json!({"metadata": {
            "resourceVersion": mcp.resource_version(), "finalizers": mcp.finalizers(),
        }});
        ctx.metrics.wrote("MeshControlPlane", "apply");
        let patched = ctx.write(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await;
        mcp = patched.map_err(apply::Error::request("add the finalizer of", describe(mesh)))?;
    }
    let mcp = forget_wishes(ctx, &api, mcp, step).await?;
    let before = mcp.status.clone().unwrap_or_default();
    let after = recorded(&before, step);
    if is_same_position(&after, &before) {
        return Ok(mcp);
    }
    let written = MeshControlPlane { status: Some(after), ..mcp };
    ctx.metrics.wrote("MeshControlPlane", "status");
    let written = ctx.write(api.replace_status(name, &PostParams::default(), &written)).await;
    let mcp = written.map_err(apply::Error::request("record the upgrade of", describe(mesh)))?;
    if let Some(ended) = &step.decision.ended {
        trace::export(ended);
        let result = format!("{:?}", ended.result);
        ctx.metrics.upgrades.get_or_create(&UpgradeLabels { result }).inc();
        let seconds = ended.ended.0.duration_since(ended.started.0).as_secs_f64();
        ctx.metrics.upgrade_duration.observe(seconds);
    }
    for (reason, note) in &step.decision.told {
        let type_ = if *reason == "RollingBack" { EventType::Warning } else { EventType::Normal };
        tell(ctx, &mcp, type_, reason, note.clone()).await;
    }
    Ok(mcp)
}

/// The status with the position of the upgrade, which revision is the active one, and what ended.
fn recorded(before: &MeshControlPlaneStatus, step: &Step) -> MeshControlPlaneStatus {
    let mut status = before.clone();
    let decision = &step.decision;
    status.active_revision = Some(decision.active.name.clone());
    status.version = Some(decision.active.version.clone());
    status.upgrade.clone_from(&decision.position);
    if let Some(ended) = &decision.ended {
        status.history.insert(0, ended.clone());
        status.history.truncate(HISTORY);
    }
    status
}

// What was wished for another upgrade, even one to the same revision, counts for nothing in this one.
async fn forget_wishes(
    ctx: &Context,
    api: &Api<MeshControlPlane>,
    mcp: MeshControlPlane,
    step: &Step,
) -> Result<MeshControlPlane, Error> {
    let begins = mcp.status.as_ref().is_none_or(|s| s.upgrade.is_none()) && step.decision.position.is_some();
    // That it be tried again holds until something is made for it: another plan may take the place of this one.
    let at = |p: &UpgradeStatus| matches!(p.phase, UpgradePhase::InstallCanary | UpgradePhase::RollingBack);
    let made = step.decision.position.as_ref().is_some_and(at);
    let is_stale = |wish: &str| if wish == labels::RETRY { made } else { begins };
    let stale: serde_json::Map<_, _> = WISHES
        .iter()
        .filter(|w| is_stale(w) && mcp.annotations().contains_key(**w))
        .map(|w| ((*w).to_owned(), serde_json::Value::Null))
        .collect();
    if stale.is_empty() {
        return Ok(mcp);
    }
    let name = mcp.name_any();
    let body = json!({"metadata": {"resourceVersion": mcp.resource_version(), "annotations": stale}});
    ctx.metrics.wrote("MeshControlPlane", "apply");
    let patched = ctx.write(api.patch(&name, &PatchParams::default(), &Patch::Merge(&body))).await;
    let object = format!("MeshControlPlane {name}");
    Ok(patched.map_err(apply::Error::request("forget the annotations of an earlier upgrade on", object))?)
}

fn describe(mesh: &ValidatedMesh) -> String {
    format!("MeshControlPlane {}/{}", mesh.mesh.namespace, mesh.mesh.name)
}
