//! When there is nothing more to follow, and how it ended. Pure.

use std::process::ExitCode;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meshwright_api::{MeshControlPlane, SUPERSEDED, UpgradePhase, UpgradeResult, conditions::reason};

use crate::upgrade::{is_observed, not_reconciled, recorded};

/// An upgrade is under way. One that something else is asked for instead of is over only when its revision is gone: then
/// the other may begin.
pub fn goes_on(mesh: &MeshControlPlane) -> bool {
    let Some(upgrade) = recorded(mesh) else { return false };
    let is_superseded = upgrade.rollback.as_ref().is_some_and(|r| r.cause == SUPERSEDED);
    upgrade.phase != UpgradePhase::RolledBack || is_superseded
}

/// The exit code, once nothing more is to be expected. `since`: when the upgrade that was under way before had begun; what ended earlier
/// is another one.
pub fn end(mesh: &MeshControlPlane, since: Option<&Time>) -> Option<ExitCode> {
    if goes_on(mesh) {
        return None;
    }
    let last = mesh.status.as_ref().and_then(|s| s.history.first());
    let (result, started) = match recorded(mesh) {
        Some(upgrade) => (Some(UpgradeResult::RolledBack), Some(&upgrade.started)),
        None => (last.map(|l| l.result), last.map(|l| &l.started)),
    };
    match result.filter(|_| since.is_some() && started >= since) {
        Some(UpgradeResult::Succeeded) => Some(ExitCode::SUCCESS),
        Some(UpgradeResult::RolledBack) => Some(ExitCode::FAILURE),
        Some(UpgradeResult::Superseded) if is_set_back(mesh) => Some(ExitCode::SUCCESS),
        Some(UpgradeResult::Superseded) | None => is_refused(mesh).then_some(ExitCode::FAILURE),
    }
}

/// The exit code where it stays like this: the operator has looked at the spec, and begins nothing.
pub fn at_rest(mesh: &MeshControlPlane) -> Option<ExitCode> {
    if goes_on(mesh) || !is_observed(mesh) || not_reconciled(mesh).is_some() {
        return None;
    }
    Some(if recorded(mesh).is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

// The spec asks for what serves, so no other upgrade begins. The reason of a superseded one names the revision that was
// asked for instead; a version would not tell, because a setting makes a revision too.
fn is_set_back(mesh: &MeshControlPlane) -> bool {
    let Some(status) = &mesh.status else { return false };
    let instead = status.history.first().map_or("", |last| last.reason.as_str());
    let names = |active: &String| instead.split_whitespace().any(|word| word == active);
    is_observed(mesh) && status.active_revision.as_ref().is_some_and(names)
}

// What failed for the moment only is tried again.
fn is_refused(mesh: &MeshControlPlane) -> bool {
    not_reconciled(mesh).is_some_and(|c| c.reason != reason::API_REQUEST_FAILED)
}
