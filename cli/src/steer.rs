//! What a person may ask of an upgrade: the patch it takes, or why it is refused. Pure.

use anyhow::{bail, ensure};
use kube::ResourceExt;
use meshwright_api::{MeshControlPlane, UpgradePhase, UpgradeStatus, labels};
use serde_json::{Value, json};

use crate::{
    output::Page,
    upgrade::{describe_step, is_blocked, not_reconciled, place, recorded, running},
};

#[cfg(test)]
mod tests;

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Let the upgrade take the step that it waits with.
    Approve {
        /// The step that the person means.
        step: Option<String>,
    },
    /// Hold.
    Pause,
    /// Go on.
    Resume,
    /// Go back.
    Rollback,
    /// Go on in spite of blockers.
    Acknowledge {
        /// The plan that the person has seen.
        plan: Option<String>,
    },
    /// Try again what went back.
    Retry,
    /// Let the old revision go.
    EndKeepWarm,
}

/// What is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// A merge patch of the fields concerned and no others.
    pub patch: Value,
    /// What was done.
    pub done: String,
    /// What happens next.
    pub next: String,
    /// What one may want to run then.
    pub command: &'static str,
}

const FOLLOW: &str = "kubectl mesh upgrade status --watch";

impl Change {
    /// For people.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        for line in self.done.lines().chain([self.next.as_str()]) {
            page.hang(if line.starts_with("  - ") { "  - " } else { "" }, line.trim_start_matches("  - "));
        }
        page.raw(format!("  {}", self.command));
        page.done()
    }
}

/// Decides. `user` is the person as the API server knows them.
pub fn decide(mesh: &MeshControlPlane, wish: &Wish, user: &str) -> anyhow::Result<Change> {
    match wish {
        Wish::Approve { step } => approve(mesh, step.as_deref(), user),
        Wish::Pause => pause(mesh),
        Wish::Resume => resume(mesh),
        Wish::Rollback => rollback(mesh),
        Wish::Acknowledge { plan } => acknowledge(mesh, plan.as_deref(), user),
        Wish::Retry => retry(mesh),
        Wish::EndKeepWarm => end_keep_warm(mesh),
    }
}

fn annotate(annotation: &str, value: &str, done: String, next: impl Into<String>) -> Change {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    Change { patch, done, next: next.into(), command: FOLLOW }
}

fn under_way<'a>(mesh: &'a MeshControlPlane, to: &str) -> anyhow::Result<&'a UpgradeStatus> {
    match running(mesh) {
        Some(upgrade) => Ok(upgrade),
        None => bail!("no upgrade of mesh {} is under way, so there is nothing to {to}", mesh.name_any()),
    }
}

fn approve(mesh: &MeshControlPlane, asked: Option<&str>, user: &str) -> anyhow::Result<Change> {
    let upgrade = under_way(mesh, "approve")?;
    let (to, at) = (&upgrade.to_version, place(upgrade));
    if is_blocked(mesh, upgrade) {
        bail!(
            "the upgrade to {to} is blocked, which an approval does not change; see `kubectl mesh upgrade status`"
        );
    }
    let Some(step) = &upgrade.awaits_approval else {
        let waiting = upgrade.waiting.as_ref().map(|w| format!(" and waits for: {w}")).unwrap_or_default();
        bail!("the upgrade to {to} waits for no approval; it is at {at}{waiting}");
    };
    let what = describe_step(step, &upgrade.steps);
    ensure!(
        asked.is_none_or(|asked| asked == step.as_str()),
        "the upgrade to {to} waits for approval of {what}, not of {}; see `kubectl mesh upgrade status`",
        asked.unwrap_or_default()
    );
    Ok(annotate(
        labels::APPROVE,
        &format!("{}/{step}/{user}", upgrade.to),
        format!("Approved {what} of the upgrade to {to} (revision {}), as {user}.", upgrade.to),
        goes_on(mesh, upgrade),
    ))
}

/// What keeps the upgrade from going on, whatever a person agrees to.
fn held(mesh: &MeshControlPlane) -> Option<String> {
    let refused = not_reconciled(mesh).map(|c| format!("its spec is refused: {}", c.message));
    refused.or_else(|| {
        mesh.spec.upgrade.paused.then(|| "it is paused, go on with `kubectl mesh resume`".to_owned())
    })
}

fn goes_on(mesh: &MeshControlPlane, upgrade: &UpgradeStatus) -> String {
    let window =
        upgrade.waiting.as_ref().filter(|w| upgrade.phase <= UpgradePhase::Preflight && w.contains("window"));
    match held(mesh).or_else(|| window.map(|w| format!("it waits for {w}"))) {
        None => "It goes on within seconds.".to_owned(),
        Some(held) => format!("It does not go on yet: {held}."),
    }
}

fn pause(mesh: &MeshControlPlane) -> anyhow::Result<Change> {
    ensure!(!mesh.spec.upgrade.paused, "it is paused already; go on with `kubectl mesh resume`");
    let done = match running(mesh) {
        Some(upgrade) => format!("Paused the upgrade to {} at {}.", upgrade.to_version, place(upgrade)),
        None => "Paused: the next upgrade waits before it begins.".to_owned(),
    };
    let next = match running(mesh).map(|u| (u.phase, u.measured_since.is_some())) {
        Some((UpgradePhase::RollingBack, _)) => {
            "It goes back all the same; the pause holds what comes after it. To go on then:"
        }
        Some((UpgradePhase::Promote | UpgradePhase::Retire, _) | (UpgradePhase::Drain, true)) => {
            "It is completed all the same; the pause holds the next one. To go on then:"
        }
        _ => {
            "What has begun is completed, nothing further begins; a bad revision goes back all the same. To go on:"
        }
    };
    let next = next.to_owned();
    Ok(Change { patch: paused(true), done, next, command: "kubectl mesh resume" })
}

fn resume(mesh: &MeshControlPlane) -> anyhow::Result<Change> {
    ensure!(mesh.spec.upgrade.paused, "it is not paused; see `kubectl mesh upgrade status`");
    let next = match running(mesh) {
        Some(upgrade) => format!("The upgrade to {} goes on at {}.", upgrade.to_version, place(upgrade)),
        None => "No upgrade is under way.".to_owned(),
    };
    let next = not_reconciled(mesh)
        .map_or(next.clone(), |c| format!("{next} But its spec is refused: {}", c.message));
    Ok(Change { patch: paused(false), done: "Resumed.".to_owned(), next, command: FOLLOW })
}

fn paused(paused: bool) -> Value {
    json!({ "spec": { "upgrade": { "paused": paused } } })
}

fn rollback(mesh: &MeshControlPlane) -> anyhow::Result<Change> {
    let Some(upgrade) = recorded(mesh) else {
        bail!(
            "no upgrade of mesh {} is under way and no old revision is left to go back to; \
             set spec.version to the old release instead, which is an upgrade too",
            mesh.name_any()
        );
    };
    let UpgradeStatus { from, from_version, to, to_version, phase, measured_since, .. } = upgrade;
    match phase {
        UpgradePhase::RollingBack => bail!("the upgrade to {to_version} is going back already"),
        UpgradePhase::RolledBack => {
            bail!("the upgrade to {to_version} went back already; {from_version} serves")
        }
        UpgradePhase::Retire => bail!(
            "revision {from} is being removed and cannot be gone back to; set spec.version to {from_version} instead"
        ),
        _ => {}
    }
    ensure!(
        !upgrade.without_baseline,
        "revision {from} ({from_version}) was never ready, so there is nothing to go back to; set spec.version or mend the spec instead"
    );
    let when = match (phase, measured_since) {
        (UpgradePhase::Drain, Some(_)) => {
            "The old pods are ending: others of the old revision start first, and new connections go to them as soon \
             as they are ready"
        }
        _ => "New connections go to the old revision within seconds",
    };
    Ok(annotate(
        labels::ROLLBACK,
        to,
        format!("Asked to go back from {to_version} (revision {to}) to {from_version} (revision {from})."),
        format!(
            "{when}; the new one is removed and not tried again until the spec changes or somebody asks for it by \
             `kubectl mesh retry`."
        ),
    ))
}

fn acknowledge(mesh: &MeshControlPlane, seen: Option<&str>, user: &str) -> anyhow::Result<Change> {
    let upgrade = under_way(mesh, "acknowledge")?;
    let (to, plan) = (&upgrade.to_version, &upgrade.plan);
    ensure!(is_blocked(mesh, upgrade), "nothing blocks the upgrade to {to}; it is at {}", place(upgrade));
    ensure!(
        seen.is_none_or(|seen| seen == plan),
        "the plan is {plan} now, not {}: what blocks it has changed; see `kubectl mesh upgrade status`",
        seen.unwrap_or_default()
    );
    let accepted: Vec<String> =
        upgrade.blockers.iter().map(|b| format!("  - {}: {}", b.reason, b.message)).collect();
    Ok(annotate(
        labels::ACKNOWLEDGE,
        &format!("{plan}/{user}"),
        format!(
            "Accepted what blocks the upgrade to {to} (plan {plan}), as {user}:\n{}",
            accepted.join("\n")
        ),
        goes_on(mesh, upgrade) + " When something else comes in the way it stops again.",
    ))
}

fn retry(mesh: &MeshControlPlane) -> anyhow::Result<Change> {
    let upgrade = recorded(mesh);
    let Some(upgrade) = upgrade.filter(|u| u.phase == UpgradePhase::RolledBack) else {
        let now = upgrade.map(|u| format!("; the upgrade to {} is at {}", u.to_version, place(u)));
        bail!("no upgrade has gone back, so there is nothing to try again{}", now.unwrap_or_default());
    };
    Ok(annotate(
        labels::RETRY,
        &upgrade.attempt(),
        format!("Asked to try {} (revision {}) again.", upgrade.to_version, upgrade.to),
        "It begins anew with Preflight, unless something holds it: kubectl mesh upgrade status --watch"
            .to_owned(),
    ))
}

fn end_keep_warm(mesh: &MeshControlPlane) -> anyhow::Result<Change> {
    let upgrade = under_way(mesh, "end")?;
    ensure!(
        matches!(upgrade.phase, UpgradePhase::Promote | UpgradePhase::Drain),
        "no old revision is kept warm: the upgrade to {} is at {}",
        upgrade.to_version,
        place(upgrade)
    );
    Ok(annotate(
        labels::END_KEEP_WARM,
        &upgrade.from,
        format!("Revision {} ({}) is not kept warm any longer.", upgrade.from, upgrade.from_version),
        match held(mesh) {
            None => {
                "Its last connections end, then it is removed; after that there is no way back.".to_owned()
            }
            Some(held) => format!("Nothing ends yet: {held}."),
        },
    ))
}
