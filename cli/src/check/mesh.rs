//! What the MeshControlPlane and its revisions say of themselves.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    MeshControlPlane, MeshRevision, Probe, SUPERSEDED, UpgradeMode, UpgradePhase, UpgradeStatus,
    conditions::{
        APPROVED, CERTIFICATES_VALID, DEGRADED, READY, RECONCILED, UPGRADE_AVAILABLE, reason::ROLLING_OUT,
    },
    gateway::Gateway,
};

use super::{Finding, Level};
use crate::{
    output::{between, span, when},
    upgrade::{self, version::newer},
};

/// What the operator calls soon, too; issuing certificates are renewed two weeks before.
const SOON_SECONDS: i64 = 7 * 86_400;

pub(super) fn conditions(mesh: &MeshControlPlane, logs: &str) -> (String, Vec<Finding>) {
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let Some(status) = &mesh.status else {
        let unseen = Finding::problem(
            format!("MeshControlPlane {namespace}/{name}: no operator has looked at it yet"),
            "nothing is installed",
            logs,
        );
        return (String::new(), vec![unseen]);
    };
    let describe = format!("kubectl -n {namespace} describe mcp {name}");
    let wrong = |c: &&Condition| match c.type_.as_str() {
        RECONCILED | READY => c.status != "True",
        DEGRADED => c.status == "True",
        _ => false,
    };
    let mut findings: Vec<Finding> = Vec::new();
    for condition in status.conditions.iter().filter(wrong) {
        let why = match condition.type_.as_str() {
            RECONCILED => "the mesh is not as the spec says; what runs goes on as it was",
            READY => "no control plane is available; proxies keep what they have",
            _ => "something that worked before does not work now",
        };
        // Ready and Degraded often tell the same.
        if !findings.iter().any(|f| f.problem.ends_with(&condition.message)) {
            let problem = format!("{} is {}: {}", condition.type_, condition.status, condition.message);
            findings.push(Finding::problem(problem, why, &describe));
        }
    }
    if status.observed_generation < mesh.metadata.generation {
        findings.push(Finding::note(
            "the operator has not looked at the newest spec yet",
            "what is shown describes the spec before; it should take seconds",
            logs,
        ));
    }
    if let Some(newer) = upgrade::condition(mesh, UPGRADE_AVAILABLE).filter(|c| c.status == "True") {
        let (how, command) = newer_release(mesh);
        findings.push(Finding::note(&newer.message, format!("fixes and news are in it; {how}"), command));
    }
    (format!("{namespace}/{name}, version {}", status.version.as_deref().unwrap_or("unknown")), findings)
}

/// Whether it is taken by itself, and how to see what it would do.
fn newer_release(mesh: &MeshControlPlane) -> (&'static str, String) {
    let plan = "kubectl mesh upgrade plan".to_owned();
    let status = mesh.status.as_ref();
    let newer = status.and_then(|s| newer(&s.available_versions, s.version.as_deref()?));
    let named = newer.map_or(plan.clone(), |newer| format!("{plan} --to {newer}"));
    match (mesh.spec.upgrade.mode, &mesh.spec.version) {
        (UpgradeMode::Manual, _) => ("nothing changes by itself while upgrade.mode is Manual", named),
        (UpgradeMode::Automatic, Some(_)) => {
            ("nothing changes by itself while spec.version is set, though upgrade.mode is Automatic", named)
        }
        (UpgradeMode::Automatic, None) if newer.is_some_and(|newer| mesh.went_back(newer)) => {
            ("what went back is not taken by itself again", named)
        }
        (UpgradeMode::Automatic, None) if mesh.spec.upgrade.windows.is_empty() => {
            ("it is taken by itself, because upgrade.mode is Automatic", plan)
        }
        (UpgradeMode::Automatic, None) => ("it is taken by itself in a window of upgrade.windows", plan),
    }
}

pub(super) fn revisions(revisions: &[MeshRevision]) -> (String, Vec<Finding>) {
    let find = |r: &MeshRevision| {
        let conditions = r.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c.type_ == READY).filter(|c| c.status != "True")?;
        let (namespace, name) = (r.namespace().unwrap_or_default(), r.name_any());
        // One that comes up for the first time is no problem yet.
        let level = if ready.reason == ROLLING_OUT { Level::Note } else { Level::Problem };
        Some(Finding::new(
            level,
            format!("MeshRevision {namespace}/{name} is not ready: {}", ready.message),
            "its control plane serves no proxy; an upgrade to it waits, or goes back",
            format!("kubectl -n {namespace} describe mrev {name}"),
        ))
    };
    (format!("{} found", revisions.len()), revisions.iter().filter_map(find).collect())
}

pub(super) fn certificates(mesh: &MeshControlPlane, now: Timestamp, logs: &str) -> (String, Vec<Finding>) {
    let Some(certificates) = mesh.status.as_ref().and_then(|s| s.certificates.as_ref()) else {
        return ("none was issued yet".to_owned(), Vec::new());
    };
    let why = "when it expires, proxies and control planes do not trust each other any more";
    let expires = certificates.earliest_not_after.0;
    let summary = format!("{} expires first: {}", certificates.earliest, when(expires, now));
    // By the clock, not by the condition: an operator that is down renews nothing and writes no condition.
    let left = between(now, expires);
    if left < SOON_SECONDS {
        let how = if left < 0 { "has expired" } else { "expires soon" };
        let problem = format!("certificate {} {how}: {}", certificates.earliest, when(expires, now));
        return (summary, vec![Finding::problem(problem, why, logs)]);
    }
    let condition = upgrade::condition(mesh, CERTIFICATES_VALID).filter(|c| c.status == "False");
    (summary, condition.map(|c| Finding::problem(&c.message, why, logs)).into_iter().collect())
}

pub(super) fn upgrade(mesh: &MeshControlPlane, now: Timestamp) -> (String, Vec<Finding>) {
    let Some(upgrade) = upgrade::recorded(mesh) else {
        return ("none is under way".to_owned(), Vec::new());
    };
    let what = format!("upgrade {} -> {}", upgrade.from_version, upgrade.to_version);
    let summary = format!("{what}: {}", upgrade::place(upgrade));
    let waiting = upgrade.waiting.as_deref().unwrap_or("it says not what for");
    let since = span(between(upgrade.since.0, now));
    let approved = upgrade::condition(mesh, APPROVED).is_none_or(|c| c.status != "False");
    let finding = if let Some(finding) = way_back(upgrade, &what, waiting, &since) {
        finding
    } else if upgrade::is_blocked(mesh, upgrade) {
        let reasons: Vec<&str> = upgrade.blockers.iter().map(|b| b.reason.as_str()).collect();
        Finding::problem(
            format!("{what} is blocked by {}, for {since}", reasons.join(", ")),
            match &upgrade.deadline {
                Some(deadline) => {
                    format!(
                        "unless that is mended or accepted it goes back by itself, {}",
                        when(deadline.0, now)
                    )
                }
                None => "it stays where it is until that is mended or accepted".to_owned(),
            },
            "kubectl mesh upgrade status",
        )
    } else if let Some(step) = upgrade.awaits_approval.as_ref().filter(|_| !approved) {
        Finding::problem(
            format!("{what} waits for a person, for {since}: {waiting}"),
            "it stays where it is until somebody approves or rolls back",
            format!("kubectl mesh approve {step}"),
        )
    } else if !approved {
        let (namespace, from) = (mesh.namespace().unwrap_or_default(), &upgrade.from);
        Finding::problem(
            format!("{what} waits for {waiting}, for {since}"),
            "by itself it does not go on; the condition InUse of the old revision names what is left",
            format!("kubectl -n {namespace} describe mrev {from}"),
        )
    } else if mesh.spec.upgrade.paused {
        Finding::note(
            format!("{what} is paused at {}", upgrade::place(upgrade)),
            "it stays where it is; two revisions need the room of two",
            "kubectl mesh resume",
        )
    } else {
        return (summary, Vec::new());
    };
    (summary, vec![finding])
}

fn way_back(upgrade: &UpgradeStatus, what: &str, waiting: &str, since: &str) -> Option<Finding> {
    let back = upgrade.rollback.as_ref()?;
    let why = format!("in phase {:?}: {}: {}", back.phase, back.cause, back.message);
    let status = "kubectl mesh upgrade status";
    Some(match upgrade.phase {
        UpgradePhase::RollingBack if back.traffic_back.is_none() => Finding::problem(
            format!("{what} is going back, for {since}, {why}; waits for {waiting}"),
            "new connections may still go to the new revision",
            status,
        ),
        _ if back.cause == SUPERSEDED => Finding::note(
            format!("{what} goes back because the spec asks for something else"),
            "the old revision serves; what the spec asks for now begins when the new one is gone",
            status,
        ),
        _ => Finding::problem(
            format!("{what} went back {why}"),
            "the old revision serves; the new one is not tried again until the spec changes or you ask for it",
            status,
        ),
    })
}

/// Probes that no Gateway gets.
pub(super) fn probes(mesh: &MeshControlPlane, gateways: &[Gateway]) -> Vec<Finding> {
    let is_of = |probe: &Probe, g: &&Gateway| {
        g.namespace().as_deref() == Some(&probe.namespace) && g.name_any() == probe.gateway
    };
    let lost = mesh.spec.upgrade.analysis.probes.iter().filter_map(|probe| {
        let (namespace, name, port) = (&probe.namespace, &probe.gateway, probe.port);
        let why = match gateways.iter().find(|g| is_of(probe, g)) {
            None => "there is no such Gateway of the mesh",
            Some(g) if !g.spec.listeners.iter().any(|l| l.protocol == "HTTP" && l.port == port) => {
                "it has no plain HTTP listener there"
            }
            Some(_) => return None,
        };
        Some(Finding::note(
            format!(
                "the probe of {}{} through Gateway {namespace}/{name}, port {port}, does nothing: {why}",
                probe.host, probe.path
            ),
            "an upgrade has fewer requests to be measured by than its spec says",
            format!("kubectl -n {} edit mcp {}", mesh.namespace().unwrap_or_default(), mesh.name_any()),
        ))
    });
    lost.collect()
}
