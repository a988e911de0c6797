//! What is kept of an upgrade: its phases while it goes on, a record when it is over.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use meshwright_api::{
    Blocker, DonePhase, MeshControlPlaneStatus, NodeShift, UpgradeRecord, UpgradeResult, UpgradeStatus, names,
};

/// Upgrades that the status remembers.
pub const HISTORY: usize = 10;

/// Hash of both revisions and of what stands in the way: another obstacle needs another acknowledgement.
pub fn plan_hash(from: &str, to: &str, blockers: &[Blocker]) -> String {
    let mut text = format!("{from}\n{to}\n");
    for blocker in blockers {
        text.push_str(&format!("{}\n{}\n", blocker.reason, blocker.message));
    }
    names::short_hash(text.as_bytes())
}

/// Whether two statuses have the same on record: what has to be written before anything is done. The rest is for people, and goes
/// with the conditions.
pub fn is_same_position(one: &MeshControlPlaneStatus, other: &MeshControlPlaneStatus) -> bool {
    let recorded = |status: &MeshControlPlaneStatus| {
        status.upgrade.as_ref().map(|p| UpgradeStatus {
            share: None,
            verdict: None,
            waiting: None,
            awaits_approval: None,
            deadline: None,
            comparison: None,
            nodes: p.nodes.as_ref().map(|n| NodeShift {
                served: 0,
                of: 0,
                passed_over: Vec::new(),
                ..n.clone()
            }),
            ..p.clone()
        })
    };
    one.active_revision == other.active_revision
        && one.version == other.version
        && one.history.first() == other.history.first()
        && recorded(one) == recorded(other)
}

/// Notes that the phase, or its step, is over.
pub(super) fn close_phase(position: &mut UpgradeStatus, now: Timestamp) {
    position.done.push(DonePhase {
        phase: position.phase,
        step: position.step,
        seconds: now.duration_since(position.since.0).as_secs(),
        verdict: position.verdict.clone(),
    });
}

/// The record of an upgrade that is over.
pub(super) fn record(
    position: &UpgradeStatus,
    result: UpgradeResult,
    reason: String,
    now: Timestamp,
) -> UpgradeRecord {
    let p = position.clone();
    UpgradeRecord {
        from: p.from,
        from_version: p.from_version,
        to: p.to,
        to_version: p.to_version,
        strategy: p.strategy,
        result,
        reason,
        started: p.started,
        ended: Time(now),
        phases: p.done,
        approvals: p.approvals,
        accepted: p.accepted,
    }
}
