//! Which revisions there should be. Pure: (mesh, what is seen, now) -> step.
//!
//! Until upgrades are measured (canary), a new revision is installed beside the old one, takes the gateways over as
//! soon as it is ready, and the old one goes when no pod of it is left.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    MeshRevision, MeshRevisionSpec,
    conditions::{Finding, IN_USE, READY, reason},
    names,
};

use super::{dereference::Seen, validate::ValidatedMesh};

/// How long nothing may refer to a revision before it goes.
const GRACE: Duration = Duration::from_secs(60);
/// Ending pods are not reported by any watch of ours, so look again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What to do now.
#[derive(Debug, Clone)]
pub struct Step {
    /// The revision that the spec asks for.
    pub target: String,
    /// It does not exist yet.
    pub create: Option<MeshRevisionSpec>,
    /// The revision that carries the traffic after this step.
    pub active: String,
    /// The active one changes, from this.
    pub promote: Option<Option<String>>,
    /// Revisions whose objects are kept as they should be.
    pub keep: Vec<MeshRevision>,
    /// Revisions to delete.
    pub retire: Vec<MeshRevision>,
    /// Ready and InUse of each revision.
    pub findings: BTreeMap<String, Vec<Finding>>,
    /// When to look again.
    pub recheck: Option<Duration>,
}

/// Decides.
pub fn next(mesh: &ValidatedMesh, seen: &Seen, now: Timestamp) -> Step {
    // One whose deletion somebody asked for is held by its finalizer and works on until nothing uses it.
    let live: Vec<&MeshRevision> = seen.revisions.iter().collect();
    let (target, create) = target(mesh, &live);
    let recorded = seen.fresh.status.as_ref().and_then(|s| s.active_revision.clone());
    let old = recorded.filter(|name| live.iter().any(|r| r.name_any() == *name));
    let takes_over = match &old {
        None => true,
        Some(old) if *old == target => false,
        Some(old) => {
            create.is_none()
                && (is_ready(mesh.control_plane.min, seen, &target) || !was_ever_ready(&live, old))
        }
    };
    let active = if takes_over { target.clone() } else { old.clone().unwrap_or_else(|| target.clone()) };
    let wanted = |name: &str| name == target || name == active;
    let findings = findings(mesh.control_plane.min, seen, wanted);
    let (retire, keep): (Vec<&MeshRevision>, Vec<&MeshRevision>) = live
        .iter()
        .copied()
        .partition(|r| !takes_over && !wanted(&r.name_any()) && unused_for_grace(r, &findings, now));
    let waiting = live.iter().any(|r| !wanted(&r.name_any()));
    Step {
        target,
        create,
        active,
        promote: takes_over.then_some(old),
        keep: keep.into_iter().cloned().collect(),
        retire: retire.into_iter().cloned().collect(),
        findings,
        recheck: waiting.then_some(LOOK_AGAIN),
    }
}

/// Ready and InUse of each revision.
pub fn findings(min: i32, seen: &Seen, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<Finding>> {
    let of = |r: &MeshRevision| {
        let name = r.name_any();
        let found = vec![readiness(min, seen, r), in_use(seen, r, wanted(&name))];
        (name, found)
    };
    seen.revisions.iter().map(of).collect()
}

// A snapshot that exists is found by what it says: its name was made by whatever operator made it.
fn target(mesh: &ValidatedMesh, live: &[&MeshRevision]) -> (String, Option<MeshRevisionSpec>) {
    if let Some(same) = live.iter().find(|r| r.spec == mesh.snapshot) {
        return (same.name_any(), None);
    }
    let snapshot = serde_json::to_vec(&mesh.snapshot).unwrap_or_default();
    (names::revision(&mesh.mesh.name, &snapshot), Some(mesh.snapshot.clone()))
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

fn was_ever_ready(live: &[&MeshRevision], name: &str) -> bool {
    let revision = live.iter().find(|r| r.name_any() == name);
    revision
        .and_then(|r| condition(r, READY))
        .is_some_and(|c| c.status == "True" || c.reason == reason::CONTROL_PLANE_UNAVAILABLE)
}

fn in_use(seen: &Seen, revision: &MeshRevision, wanted: bool) -> Finding {
    let proxies = seen.pods.get(&revision.name_any()).map_or(0, |c| c.proxies);
    if wanted {
        let message = format!("the mesh is to use it; {proxies} gateway proxies do");
        Finding::new(IN_USE, Some(true), reason::AS_SPECIFIED, message)
    } else if proxies > 0 {
        Finding::new(IN_USE, Some(true), reason::PODS_EXIST, format!("{proxies} gateway proxies are left"))
    } else {
        Finding::new(IN_USE, Some(false), reason::NOT_REFERENCED, "no gateway proxy uses it")
    }
}

fn unused_for_grace(
    revision: &MeshRevision,
    findings: &BTreeMap<String, Vec<Finding>>,
    now: Timestamp,
) -> bool {
    let found = findings.get(&revision.name_any());
    let unused_now = found.is_some_and(|f| f.iter().any(|f| f.type_ == IN_USE && f.status == Some(false)));
    // What was recorded: since when nothing was seen to refer to it.
    let since = condition(revision, IN_USE).filter(|c| c.status == "False").map(|c| c.last_transition_time.0);
    let unused_for = since.and_then(|s| Duration::try_from(now.duration_since(s)).ok());
    unused_now && unused_for.is_some_and(|d| d >= GRACE)
}

/// A condition of a revision.
pub fn condition<'a>(revision: &'a MeshRevision, type_: &str) -> Option<&'a Condition> {
    revision.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)
}
