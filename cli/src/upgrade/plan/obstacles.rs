//! What is in the way of an upgrade, as far as it can be seen before it begins.

use kube::ResourceExt;
use meshwright_api::{
    MeshControlPlane, MeshRevision, SUPERSEDED, UpgradePhase, UpgradeStatus,
    conditions::{CERTIFICATES_VALID, READY, RECONCILED, reason},
    labels,
};
use serde::Serialize;

use super::changes::{candidate, differences};
use crate::upgrade::{condition, is_blocked, is_observed, recorded, running, version::is_one_step};

/// Something that is, or may be, in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// Nothing begins, or goes on, with it.
    pub blocks: bool,
    /// What it is, and the way out.
    pub message: String,
}

/// The spec as it is is not carried out. `to` is a release that it is to name instead.
pub fn refusal(mesh: &MeshControlPlane, to: Option<&str>) -> Option<Obstacle> {
    let c = condition(mesh, RECONCILED).filter(|c| c.status == "False")?;
    let blocks = match c.reason.as_str() {
        reason::CONFLICT | reason::INVALID_SPEC | reason::NOT_ISSUED => true,
        reason::UNKNOWN_VERSION | reason::STEP_TOO_LARGE => {
            to.is_none_or(|to| mesh.spec.version.as_deref() == Some(to))
        }
        // One object, or a moment's failure: the rest goes on.
        _ => false,
    };
    Some(Obstacle { blocks, message: format!("the spec is not carried out: {}", c.message) })
}

/// Looks for what else is.
pub fn obstacles(mesh: &MeshControlPlane, revisions: &[MeshRevision], to: &str) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut say = |blocks, message: String| found.push(Obstacle { blocks, message });
    let status = mesh.status.clone().unwrap_or_default();
    let known = &status.available_versions;
    if !known.is_empty() && !known.iter().any(|v| v == to) {
        say(
            true,
            format!("the operator does not know {to}; it knows {}: update the operator", known.join(", ")),
        );
    }
    if let Some(from) = status.version.as_deref().filter(|from| !is_one_step(from, to)) {
        say(true, format!("{from} -> {to} is more than one minor release; go by the releases between"));
    }
    match (recorded(mesh), running(mesh)) {
        (Some(old), None) if old.to_version == to && is_held(mesh, revisions, old) => {
            let why = old.rollback.as_ref().map_or("", |r| r.message.as_str());
            say(
                true,
                format!(
                    "an upgrade to {to} went back: {why}; the same is tried again only by `kubectl mesh retry`"
                ),
            );
        }
        (Some(other), Some(_)) if other.to_version != to && other.phase < UpgradePhase::Promote => {
            say(
                false,
                format!("an upgrade to {} is under way; that one would go back first", other.to_version),
            );
        }
        (Some(other), Some(_)) if other.to_version != to => {
            let wait = "this one waits for its end, or for `kubectl mesh end-keep-warm`";
            say(true, format!("an upgrade to {} is being completed; {wait}", other.to_version));
        }
        (Some(this), Some(_)) if is_blocked(mesh, this) => {
            say(true, "it is blocked now; `kubectl mesh upgrade status` shows by what".to_owned());
        }
        _ => {}
    }
    if mesh.spec.upgrade.paused {
        say(true, "spec.upgrade.paused holds it; go on with `kubectl mesh resume`".to_owned());
    }
    let failing = |type_| condition(mesh, type_).filter(|c| c.status == "False");
    if let Some(c) = failing(READY) {
        say(false, format!("what serves is not available, which somebody must acknowledge: {}", c.message));
    }
    if let Some(c) = failing(CERTIFICATES_VALID) {
        say(false, format!("a certificate that expires within a day stops it: {}", c.message));
    }
    found
}

// What went back is not tried again, but another revision of the same version is: that of a setting which was changed.
fn is_held(mesh: &MeshControlPlane, revisions: &[MeshRevision], old: &UpgradeStatus) -> bool {
    let superseded = old.rollback.as_ref().is_some_and(|r| r.cause == SUPERSEDED);
    if superseded || mesh.annotations().get(labels::RETRY) == Some(&old.attempt()) {
        return false;
    }
    match revisions.iter().find(|r| r.name_any() == old.to) {
        Some(r) => differences(&r.spec, &candidate(&r.spec, &mesh.spec, &old.to_version)).is_empty(),
        // Once it is removed the operator forgets it for any other that the spec asks for.
        None => is_observed(mesh),
    }
}
