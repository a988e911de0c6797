//! Which revisions there should be, and what is found of each. Pure: (mesh, what is seen, now) -> step.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    MeshRevision, MeshRevisionSpec, UpgradePhase,
    conditions::{DRAINING, Finding, IN_USE, READY, reason},
    names,
};

use super::{dereference::Seen, measure::Measured, nodes, slots, validate::ValidatedMesh, view};
use crate::upgrade::{
    self, Decision,
    machine::{LOOK, Usage},
};

/// How long nothing may refer to a revision before it goes.
const GRACE: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone)]
pub struct Step {
    /// The revision that the spec asks for.
    pub target: String,
    /// It is to be made, and of this.
    pub create: Option<MeshRevisionSpec>,
    /// Where the upgrade is.
    pub decision: Decision,
    /// Revisions whose objects are kept as they should be.
    pub keep: Vec<MeshRevision>,
    /// Revisions to delete.
    pub retire: Vec<MeshRevision>,
    /// Ready, InUse and Draining of each revision.
    pub findings: BTreeMap<String, Vec<Finding>>,
    /// What is wrong with the node proxies, for condition Degraded.
    pub node_proxies: Option<Finding>,
    /// Why the revision that the spec asks for is not made yet.
    pub held: Option<String>,
    /// When to look again.
    pub recheck: Option<Duration>,
}

impl Step {
    /// The revision that is recorded as the active one after this step.
    pub fn active(&self) -> &str {
        &self.decision.active.name
    }
}

/// Decides.
pub fn next(mesh: &ValidatedMesh, seen: &Seen, measured: &Measured, now: Timestamp) -> Step {
    // One whose deletion somebody asked for is held by its finalizer and works on until nothing uses it.
    let live: Vec<&MeshRevision> = seen.revisions.iter().collect();
    let target = target(mesh, &live);
    let status = seen.fresh.status.as_ref();
    let active_before = status.and_then(|s| s.active_revision.clone());
    let decision = upgrade::next(&view::view(mesh, seen, measured, &target, now));
    let position = decision.position.as_ref();
    let has_part = |name: &str| {
        let of_upgrade = position.is_some_and(|p| p.from == name || p.to == name);
        name == decision.active.name || of_upgrade
    };
    let gone = |name: &str| usage(seen, measured, name, now) == Usage::Gone;
    let stray = |name: &str| !has_part(name) && Some(name) != active_before.as_deref() && gone(name);
    let (retire, keep): (Vec<&MeshRevision>, Vec<&MeshRevision>) = live.iter().copied().partition(|r| {
        let name = r.name_any();
        decision.retire.as_deref() == Some(&name) || stray(&name)
    });
    let strays = keep.iter().any(|r| !has_part(&r.name_any()));
    let (node_proxies, later) = node_proxies(seen, &decision, now);
    let recheck = [decision.recheck, strays.then_some(LOOK), later].into_iter().flatten().min();
    let slot = slots::of_release(&mesh.snapshot.version, &seen.revisions, &seen.slots);
    let exists = live.iter().any(|r| r.name_any() == target);
    Step {
        held: slot.clone().err().filter(|_| !exists),
        create: decision
            .create
            .then(|| Some(MeshRevisionSpec { node_slot: slot.ok()?, ..mesh.snapshot.clone() }))
            .flatten()
            .filter(|_| position.is_none_or(|p| p.to == target)),
        keep: keep.into_iter().cloned().collect(),
        retire: retire.into_iter().cloned().collect(),
        findings: findings(mesh.control_plane.min, seen, Some(measured)),
        node_proxies,
        target,
        decision,
        recheck,
    }
}

fn node_proxies(seen: &Seen, decision: &Decision, now: Timestamp) -> (Option<Finding>, Option<Duration>) {
    let wanted = nodes::wanted(&decision.active.name, decision.position.as_ref());
    let namespace = seen.fresh.namespace().unwrap_or_default();
    let sight = nodes::missing::Sight {
        there: &seen.nodes,
        proxies: nodes::Proxies::new(&seen.items),
        revisions: &seen.revisions,
        namespace: &namespace,
        forbidden: seen.pod_security.as_deref(),
    };
    nodes::missing::finding(&sight, nodes::server(&seen.revisions, wanted), now)
}

/// Ready, InUse and Draining of each revision. Without measurements none is called unused.
pub fn findings(min: i32, seen: &Seen, measured: Option<&Measured>) -> BTreeMap<String, Vec<Finding>> {
    let of = |r: &MeshRevision| {
        let name = r.name_any();
        let wanted = is_wanted(seen, &name);
        let in_use = match measured {
            Some(measured) => in_use(seen, measured, r, wanted),
            None => in_use(seen, &Measured::default(), r, true),
        };
        (name, vec![readiness(min, seen, r), in_use, draining(seen, r, wanted)])
    };
    seen.revisions.iter().map(of).collect()
}

// The active one, and those of an upgrade that may still be needed.
fn is_wanted(seen: &Seen, name: &str) -> bool {
    let Some(status) = &seen.fresh.status else { return true };
    let of_upgrade = status.upgrade.as_ref().is_some_and(|p| match p.phase {
        UpgradePhase::RollingBack | UpgradePhase::RolledBack => p.from == name,
        UpgradePhase::Drain if p.measured_since.is_some() => p.to == name,
        UpgradePhase::Retire => p.to == name,
        _ => p.from == name || p.to == name,
    });
    // While it goes back the record may still name the one that is left.
    let leaves =
        status.upgrade.as_ref().is_some_and(|p| p.phase == UpgradePhase::RollingBack && p.to == name);
    of_upgrade || (status.active_revision.as_deref() == Some(name) && !leaves)
}

// A snapshot that exists is found by what it says: its name was made by whatever operator made it.
fn target(mesh: &ValidatedMesh, live: &[&MeshRevision]) -> String {
    let same = live.iter().find(|r| slots::is_same(&r.spec, &mesh.snapshot)).map(|r| r.name_any());
    let name = || {
        let snapshot = serde_json::to_vec(&mesh.snapshot).unwrap_or_default();
        names::revision(&mesh.mesh.name, &snapshot)
    };
    same.unwrap_or_else(name)
}

/// Every replica is up to date and the fewest that there should be are available.
pub fn is_ready(min: i32, seen: &Seen, revision: &str) -> bool {
    seen.deployments.get(revision).is_some_and(|d| is_available(d, min))
}

fn is_available(deployment: &Deployment, wanted: i32) -> bool {
    let Some(status) = &deployment.status else { return false };
    status.observed_generation >= deployment.metadata.generation
        && status.available_replicas.unwrap_or(0) >= wanted
        && status.updated_replicas.unwrap_or(0) >= wanted
}

/// Since when a Deployment has fewer available pods than it should have.
pub fn short_since(deployment: &Deployment) -> Option<Timestamp> {
    let conditions = deployment.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let is = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
    let mut short = conditions.filter(|c| is(&c.type_, "Available") && is(&c.status, "False"));
    short.find_map(|c| c.last_transition_time.as_ref()).map(|t| t.0)
}

// The reason tells a revision that never came up from one that broke: only the first may be replaced by one that is
// not ready either.
fn readiness(wanted: i32, seen: &Seen, revision: &MeshRevision) -> Finding {
    let name = revision.name_any();
    let status = seen.deployments.get(&name).and_then(|d| d.status.as_ref());
    let available = status.and_then(|s| s.available_replicas).unwrap_or(0);
    if is_ready(wanted, seen, &name) {
        let message = format!("{available} control plane pods are available");
        return Finding::new(READY, Some(true), reason::AVAILABLE, message);
    }
    let why = status.map(blocked_by).unwrap_or_default();
    let message = format!("{available} of {wanted} control plane pods are available{why}");
    let before = condition(revision, READY);
    if before.is_some_and(|c| c.status == "True" || c.reason == reason::CONTROL_PLANE_UNAVAILABLE) {
        // It serves as long as one pod does, and a rollout that keeps enough of them is no shortage.
        if available >= wanted {
            let message = format!("{available} control plane pods are available; not all are up to date");
            return Finding::new(READY, Some(true), reason::AVAILABLE, message);
        }
        return Finding::new(READY, Some(available > 0), reason::CONTROL_PLANE_UNAVAILABLE, message);
    }
    Finding::new(READY, Some(false), reason::ROLLING_OUT, message)
}

// Quota and Pod Security refusals are seen nowhere else.
fn blocked_by(status: &k8s_openapi::api::apps::v1::DeploymentStatus) -> String {
    let conditions = status.conditions.iter().flatten();
    let failure = conditions
        .into_iter()
        .find(|c| c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True"));
    failure.and_then(|c| c.message.as_ref()).map(|m| format!(": {m}")).unwrap_or_default()
}

fn in_use(seen: &Seen, measured: &Measured, revision: &MeshRevision, wanted: bool) -> Finding {
    let name = revision.name_any();
    let proxies = seen.pods.get(&name).map_or(0, |c| c.proxies);
    let say = |status, reason, message: String| Finding::new(IN_USE, status, reason, message);
    if wanted {
        let message = format!("the mesh is to use it; {proxies} gateway proxies do");
        return say(Some(true), reason::AS_SPECIFIED, message);
    }
    if proxies > 0 {
        return say(Some(true), reason::PODS_EXIST, format!("{proxies} gateway proxies are left"));
    }
    // Somebody who deletes it by hand has looked.
    let dismissed = revision.metadata.deletion_timestamp.is_some();
    let (served, silent) = nodes::using(&seen.nodes, &name);
    if !served.is_empty() {
        let message = format!("its proxies serve nodes: {}", nodes::list(&served));
        return say(Some(true), reason::NODES_SERVED, message);
    }
    if !silent.is_empty() && !dismissed {
        let message = format!(
            "its proxies served nodes that do not answer: {}; if they are gone, delete them",
            nodes::list(&silent)
        );
        return say(None, reason::USAGE_UNKNOWN, message);
    }
    if let Some(lost) = seen.pods.get(&name).and_then(|c| c.lost.first()).filter(|_| !dismissed) {
        let message = format!(
            "gateway proxy {lost} should have ended and nobody says whether it has; if its node is gone, delete the node"
        );
        return say(None, reason::USAGE_UNKNOWN, message);
    }
    match measured.streams.get(&name) {
        Some(Some(0)) => say(Some(false), reason::NOT_REFERENCED, "no gateway proxy uses it".to_owned()),
        Some(Some(streams)) => say(Some(true), reason::PODS_EXIST, format!("{streams} xDS streams are open")),
        _ if dismissed => say(
            Some(false),
            reason::NOT_REFERENCED,
            "no gateway proxy exists, and its deletion is asked for".to_owned(),
        ),
        _ => say(
            None,
            reason::USAGE_UNKNOWN,
            "its control plane does not say which streams are open".to_owned(),
        ),
    }
}

fn draining(seen: &Seen, revision: &MeshRevision, wanted: bool) -> Finding {
    let proxies = seen.pods.get(&revision.name_any()).map_or(0, |c| c.proxies);
    if wanted || proxies == 0 {
        return Finding::new(DRAINING, Some(false), reason::AS_SPECIFIED, "");
    }
    let message = format!("{proxies} gateway proxies end their connections");
    Finding::new(DRAINING, Some(true), reason::PODS_EXIST, message)
}

/// Whether anything refers to a revision, and for how long nothing has.
pub fn usage(seen: &Seen, measured: &Measured, name: &str, now: Timestamp) -> Usage {
    let Some(revision) = seen.revisions.iter().find(|r| r.name_any() == name) else { return Usage::Gone };
    match in_use(seen, measured, revision, is_wanted(seen, name)).status {
        Some(true) => Usage::Used,
        None => Usage::Unknown,
        Some(false) if unused_for_grace(revision, now) => Usage::Gone,
        Some(false) => Usage::Unused,
    }
}

// What was recorded: since when nothing was seen to refer to it.
fn unused_for_grace(revision: &MeshRevision, now: Timestamp) -> bool {
    let since = condition(revision, IN_USE).filter(|c| c.status == "False").map(|c| c.last_transition_time.0);
    let unused_for = since.and_then(|s| Duration::try_from(now.duration_since(s)).ok());
    unused_for.is_some_and(|d| d >= GRACE)
}

/// A condition of a revision.
pub fn condition<'a>(revision: &'a MeshRevision, type_: &str) -> Option<&'a Condition> {
    revision.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)
}
