//! The position of multi-step work, written first and by compare-and-swap.

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::events::EventType,
};
use meshwright_api::{
    MeshControlPlane, MeshControlPlaneStatus, UpgradePhase, UpgradeRecord, UpgradeResult, UpgradeStatus,
    labels,
};
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
        let patched = ctx.begin(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await;
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
        shorten(&mut status.history);
    }
    status
}

// The oldest goes, but not what keeps a bad release from being taken by itself while there is anything else.
fn shorten(history: &mut Vec<UpgradeRecord>) {
    while history.len() > HISTORY {
        let is_newest = |i: usize, r: &UpgradeRecord| !history[..i].iter().any(|n| n.judges(&r.to_version));
        let keeps = |i: usize, r: &UpgradeRecord| r.result == UpgradeResult::RolledBack && is_newest(i, r);
        let last = history.iter().enumerate().rev().find(|(i, r)| !keeps(*i, r)).map(|(i, _)| i);
        history.remove(last.unwrap_or(history.len() - 1));
    }
}

// What was wished for another upgrade, even one to the same revision, counts for nothing in this one.
async fn forget_wishes(
    ctx: &Context,
    api: &Api<MeshControlPlane>,
    mcp: MeshControlPlane,
    step: &Step,
) -> Result<MeshControlPlane, Error> {
    let begins = mcp.status.as_ref().is_none_or(|s| s.upgrade.is_none()) && step.decision.position.is_some();
    let stale: serde_json::Map<_, _> = WISHES
        .iter()
        .filter(|w| {
            is_stale(w, begins, step.decision.position.as_ref()) && mcp.annotations().contains_key(**w)
        })
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

fn is_stale(wish: &str, begins: bool, position: Option<&UpgradeStatus>) -> bool {
    let phase = position.map(|p| p.phase);
    match wish {
        // It holds until something is made for it: another plan may take the place of this one.
        labels::RETRY => matches!(phase, Some(UpgradePhase::InstallCanary | UpgradePhase::RollingBack)),
        // Nothing is warm yet.
        labels::END_KEEP_WARM => begins || phase.is_some_and(|p| p < UpgradePhase::Promote),
        _ => begins,
    }
}

fn describe(mesh: &ValidatedMesh) -> String {
    format!("MeshControlPlane {}/{}", mesh.mesh.namespace, mesh.mesh.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(version: &str, result: &str) -> UpgradeRecord {
        serde_json::from_value(json!({
            "from": "mesh-1", "fromVersion": "0.1.0", "to": "mesh-2", "toVersion": version, "strategy": "Canary",
            "result": result, "reason": "", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:10:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn that_a_release_went_back_is_forgotten_last() {
        let mut history = vec![record("0.2.0", "RolledBack"), record("0.2.0", "RolledBack")];
        for _ in 0..20 {
            history.insert(0, record("0.1.0", "Succeeded"));
            shorten(&mut history);
        }
        let bad: Vec<_> = history.iter().filter(|r| r.result == UpgradeResult::RolledBack).collect();
        assert_eq!((history.len(), bad.len()), (HISTORY, 1));
        history.insert(0, record("0.2.0", "Superseded"));
        for _ in 0..20 {
            history.insert(0, record("0.1.0", "Succeeded"));
            shorten(&mut history);
        }
        assert!(history.iter().any(|r| r.result == UpgradeResult::RolledBack), "it was taken back, not good");
        for number in 0..20 {
            history.insert(0, record(&format!("0.2.{number}"), "RolledBack"));
            shorten(&mut history);
        }
        assert_eq!(history.len(), HISTORY);
        assert_eq!(history[0].to_version, "0.2.19");
    }

    #[test]
    fn only_what_is_warm_can_be_let_go_and_a_rollback_is_kept_to_its_upgrade() {
        let at = |phase: &str| -> UpgradeStatus {
            serde_json::from_value(
                json!({"from": "mesh-1", "fromVersion": "0.1.0", "to": "mesh-2", "toVersion": "0.2.0",
                "strategy": "Canary", "phase": phase, "plan": "1", "started": "2026-01-01T00:00:00Z",
                "since": "2026-01-01T00:00:00Z"}),
            )
            .unwrap()
        };
        let stale = |wish, begins, phase| is_stale(wish, begins, Some(&at(phase)));
        assert!(stale(labels::END_KEEP_WARM, false, "Bake") && !stale(labels::END_KEEP_WARM, false, "Drain"));
        assert!(stale(labels::ROLLBACK, true, "Planned") && !stale(labels::ROLLBACK, false, "Planned"));
        assert!(stale(labels::RETRY, false, "InstallCanary") && !stale(labels::RETRY, true, "Planned"));
    }
}
