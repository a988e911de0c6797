//! What the status says of an upgrade, in words for a person. Pure.

use kube::ResourceExt;
use meshwright_api::{
    NODE_WAVES, RevisionRole, RevisionSummary, UpgradePhase, UpgradeStatus,
    conditions::{APPROVED, Finding, UPGRADE_AVAILABLE, reason},
};

use crate::{mesh_control_plane::apply::Applied, upgrade::Decision};

/// The upgrade in one line.
pub fn of_upgrade(p: &UpgradeStatus) -> String {
    let versions = if p.from_version == p.to_version {
        format!("{}: revision {} to {}", p.to_version, p.from, p.to)
    } else {
        format!("{} to {}", p.from_version, p.to_version)
    };
    if p.phase == UpgradePhase::RolledBack {
        let why = p.rollback.as_ref().map_or_else(String::new, |r| format!(": {}: {}", r.cause, r.message));
        return format!("{} serves; {} went back{why}", p.from_version, p.to_version);
    }
    let share = p.share.as_ref().map_or_else(String::new, |s| format!(" at {} %", s.connections));
    let step = match (p.phase, p.step) {
        (UpgradePhase::Shift, Some(step)) => format!(" step {step} of {}", p.steps.len()),
        (UpgradePhase::ShiftNodes, Some(wave)) => of_nodes(p, wave),
        _ => String::new(),
    };
    let waiting = p.waiting.as_ref().map_or_else(String::new, |w| format!("; waits for {w}"));
    format!("{versions}: {:?}{step}{share}{waiting}", p.phase)
}

fn of_nodes(p: &UpgradeStatus, wave: i32) -> String {
    let nodes = p.nodes.clone().unwrap_or_default();
    let canary = nodes.canary.map_or_else(String::new, |node| format!(", node {node} first"));
    format!(" wave {wave} of {}, {} of {} nodes{canary},", NODE_WAVES.len(), nodes.served, nodes.of)
}

/// Whether a newer release could be installed.
pub fn upgrade_available(applied: &Applied) -> Finding {
    match &applied.releases.newer {
        Some(newer) if applied.releases.held_back => {
            let position = applied.step.decision.position.as_ref();
            let is_shown =
                position.is_some_and(|p| p.phase == UpgradePhase::RolledBack && p.to_version == *newer);
            let remedy = if is_shown { "kubectl mesh retry" } else { "set spec.version to it" };
            let message = format!(
                "version {newer} went back before, so it is not taken by itself again; to try all the same: {remedy}"
            );
            Finding::new(UPGRADE_AVAILABLE, Some(true), reason::NEWER_RELEASE, message)
        }
        Some(newer) => {
            let message = match applied.releases.by_itself {
                true => format!(
                    "version {newer} is taken by itself, in a window of spec.upgrade.windows if there are any; kubectl mesh upgrade plan shows how"
                ),
                false => format!(
                    "version {newer} can be installed; kubectl mesh upgrade plan --to {newer} shows how"
                ),
            };
            Finding::new(UPGRADE_AVAILABLE, Some(true), reason::NEWER_RELEASE, message)
        }
        None => Finding::new(UPGRADE_AVAILABLE, Some(false), reason::NEWEST, "no newer version is known"),
    }
}

/// Whether a person is waited for.
pub fn approved(decision: &Decision) -> Finding {
    match &decision.asks {
        Some(ask) => Finding::new(APPROVED, Some(false), reason::AWAITING_APPROVAL, ask.clone()),
        None => Finding::new(APPROVED, Some(true), reason::NOT_REQUIRED, ""),
    }
}

/// The live revisions and what each does.
pub fn revisions(applied: &Applied) -> Vec<RevisionSummary> {
    let position = applied.step.decision.position.as_ref();
    let one = |r: &meshwright_api::MeshRevision| {
        let name = r.name_any();
        let pods = applied.pods.get(&name);
        RevisionSummary {
            version: r.spec.version.clone(),
            role: role(&name, applied.step.active(), position),
            ready_replicas: pods.map_or(0, |c| c.control_plane_ready),
            ready_proxies: pods.map_or(0, |c| c.proxies_ready),
            name,
        }
    };
    applied.revisions.iter().map(one).collect()
}

fn role(name: &str, active: &str, position: Option<&UpgradeStatus>) -> RevisionRole {
    let Some(p) = position.filter(|p| p.from == name || p.to == name) else {
        return if name == active { RevisionRole::Active } else { RevisionRole::Retiring };
    };
    let new = p.to == name;
    match p.phase {
        UpgradePhase::RollingBack | UpgradePhase::RolledBack if new => RevisionRole::Retiring,
        UpgradePhase::Drain if !new && p.measured_since.is_none() => RevisionRole::Warm,
        UpgradePhase::Drain | UpgradePhase::Retire if !new => RevisionRole::Retiring,
        _ if name == active => RevisionRole::Active,
        _ => RevisionRole::Canary,
    }
}
