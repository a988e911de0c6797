//! The status of the MeshControlPlane: written after every reconcile, also a failed one, and only when it changed.

use kube::{Api, ResourceExt, api::PostParams, runtime::events::EventType};
use meshwright_api::{
    MeshControlPlane, MeshControlPlaneStatus, MeshRevision, UpgradePhase,
    conditions::{self, CERTIFICATES_VALID, DEGRADED, Finding, PROGRESSING, READY, RECONCILED, reason},
};

use super::{CONTROLLER, Error as Failure, Seen, apply::Applied, step::condition, tell, validate};
use crate::{
    apply, apply::Problem, certificates, context::Context, error, reconciler,
    upgrade::machine::is_same_position,
};

mod summary;

/// So many failures in a row are passed over when each lost against a newer write; the next one is no accident.
const PASSING: u32 = 2;

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] apply::Error);

impl Error {
    pub(super) fn class(&self) -> error::Class {
        self.0.class()
    }
}

/// Writes what came of a reconcile.
pub async fn write(
    ctx: &Context,
    cached: &MeshControlPlane,
    seen: Option<&Seen>,
    outcome: &Result<Applied, Failure>,
) -> Result<(), Error> {
    // A write that lost against a newer one says nothing about the mesh, unless it goes on losing.
    let so_far = ctx.failures(&reconciler::key(CONTROLLER, cached));
    if so_far < PASSING && is_passing(outcome) {
        return Ok(());
    }
    let api: Api<MeshControlPlane> =
        Api::namespaced(ctx.client.clone(), &cached.namespace().unwrap_or_default());
    let name = cached.name_any();
    let describe = || format!("MeshControlPlane {name}");
    let Some(mcp) = api.get_opt(&name).await.map_err(apply::Error::request("read", describe()))? else {
        return Ok(());
    };
    let before = mcp.status.clone().unwrap_or_default();
    // What was looked at, not what is there now: the spec may have changed in between, or be another mesh's.
    let looked_at = seen.map_or(cached, |s| &s.fresh);
    if looked_at.uid() != mcp.uid() {
        return Ok(());
    }
    let generation = looked_at.metadata.generation.max(before.observed_generation);
    let after = match outcome {
        Ok(applied) => succeeded(ctx, generation, before.clone(), applied),
        Err(failure) => failed(ctx, generation, before.clone(), failure, seen),
    };
    // Somebody else has moved the upgrade on since: what was seen here is the past.
    let moved = outcome.is_ok() && !is_same_position(&after, &before);
    if moved || (after == before && mcp.status.is_some()) {
        return Ok(());
    }
    announce(ctx, &mcp, &before, &after).await;
    // With the resourceVersion of the read, so that an old leader cannot undo a newer one's record.
    let wanted = MeshControlPlane { status: Some(after), ..mcp };
    ctx.metrics.wrote("MeshControlPlane", "status");
    let written = ctx.write(api.replace_status(&name, &PostParams::default(), &wanted)).await;
    written.map_err(apply::Error::request("write the status of", describe()))?;
    Ok(())
}

fn is_passing(outcome: &Result<Applied, Failure>) -> bool {
    use crate::reconciler::Classified;
    let class = match outcome {
        Ok(applied) => applied.failure.as_ref().map(super::apply::Error::class),
        Err(failure) => Some(failure.class()),
    };
    class == Some(error::Class::Conflict)
}

pub(super) fn succeeded(
    ctx: &Context,
    generation: Option<i64>,
    before: MeshControlPlaneStatus,
    applied: &Applied,
) -> MeshControlPlaneStatus {
    let ledger = certificates::ledger(Some(&applied.root), &applied.revisions);
    certificates::publish(ctx, &ledger);
    let share = applied.step.decision.position.as_ref().and_then(|p| p.share.as_ref());
    ctx.metrics.canary_share.set(share.map_or(0, |s| i64::from(s.connections)));
    let (gateway_api, usable) = &applied.gateway_api;
    let reconciled = reconciled(applied.failure.as_ref(), &applied.problems, usable);
    let ready = ready(applied);
    let progressing = progressing(applied);
    let summary = if reconciled.status == Some(false) {
        reconciled.message.clone()
    } else if let Some(position) =
        applied.step.decision.position.as_ref().filter(|_| ready.status == Some(true))
    {
        summary::of_upgrade(position)
    } else if progressing.status == Some(true) {
        progressing.message.clone()
    } else {
        // It serves all the same, or Ready says more.
        let nodes = applied.step.node_proxies.as_ref().filter(|_| ready.status == Some(true));
        nodes.unwrap_or(&ready).message.clone()
    };
    let nodes = applied.step.node_proxies.clone();
    let degraded = degraded(&before, &ready, &reconciled, short(applied), nodes);
    let findings = [
        reconciled,
        ready,
        progressing,
        degraded,
        certificates::finding(&ledger, ctx.now()),
        summary::upgrade_available(applied),
        summary::approved(&applied.step.decision),
    ];
    let mut status = MeshControlPlaneStatus {
        summary: Some(summary),
        revisions: summary::revisions(applied),
        available_versions: applied.releases.available.clone(),
        upgrade: applied.step.decision.position.clone(),
        certificates: certificates::status(Some(&applied.root), &ledger),
        gateway_api: gateway_api.clone(),
        observed_generation: generation,
        ..before
    };
    for finding in findings {
        conditions::set(&mut status.conditions, finding, generation, ctx.now());
    }
    status
}

fn reconciled(
    failure: Option<&super::apply::Error>,
    problems: &[Problem],
    usable: &Result<(), crate::gateway_api::Unusable>,
) -> Finding {
    use crate::gateway_api::Unusable;
    let no = |reason, message| Finding::new(RECONCILED, Some(false), reason, message);
    if let Some(failure) = failure {
        return no(reason::API_REQUEST_FAILED, error::chain(failure));
    }
    match (problems.first(), usable) {
        (Some(Problem::NotOurs { object, owner }), _) => no(
            reason::OBJECT_NOT_OURS,
            format!("{object} belongs to {owner} and is left alone; delete or rename it to go on"),
        ),
        (Some(Problem::Held { object, manager }), _) => no(
            reason::OBJECT_NOT_OURS,
            format!(
                "{object} has fields of field manager {manager} and is left alone; let go of them there to go on"
            ),
        ),
        (Some(Problem::Contested { object, field, manager }), _) => no(
            reason::FIELD_CONTESTED,
            format!(
                "{object}: {field} is changed back again and again by {manager}; stop it, or it stays as it is"
            ),
        ),
        // A moment after the installation, no finding.
        (None, Ok(()) | Err(Unusable::NotEstablished { .. })) => {
            Finding::new(RECONCILED, Some(true), reason::AS_SPECIFIED, "all objects are as specified")
        }
        (None, Err(unusable)) => no(reason::GATEWAY_API_UNUSABLE, unusable.to_string()),
    }
}

fn recorded<'a>(applied: &'a Applied, name: &str) -> Option<&'a MeshRevision> {
    applied.revisions.iter().find(|r| r.name_any() == name)
}

fn ready(applied: &Applied) -> Finding {
    let active = recorded(applied, applied.step.active());
    match active.and_then(|r| condition(r, READY)) {
        Some(found) if found.status == "True" => {
            let proxies = applied.pods.get(applied.step.active()).map_or(0, |c| c.proxies_ready);
            let message =
                format!("version {} serves; {proxies} gateway proxies are ready", active_version(applied));
            Finding::new(READY, Some(true), reason::AVAILABLE, message)
        }
        found => {
            let why = found.map_or("it was created a moment ago", |c| c.message.as_str());
            let message = format!("revision {} is not ready: {why}", applied.step.active());
            Finding::new(READY, Some(false), reason::CONTROL_PLANE_UNAVAILABLE, message)
        }
    }
}

fn active_version(applied: &Applied) -> &str {
    recorded(applied, applied.step.active()).map_or("", |r| r.spec.version.as_str())
}

fn progressing(applied: &Applied) -> Finding {
    let step = &applied.step;
    let yes = |message| Finding::new(PROGRESSING, Some(true), reason::ROLLING_OUT, message);
    let is_ready = |name: &str| {
        recorded(applied, name).and_then(|r| condition(r, READY)).is_some_and(|c| c.status == "True")
    };
    match &step.decision.position {
        Some(p) if p.phase == UpgradePhase::RolledBack => {
            Finding::new(PROGRESSING, Some(false), reason::ROLLED_BACK, summary::of_upgrade(p))
        }
        Some(p) => Finding::new(PROGRESSING, Some(true), reason::UPGRADING, summary::of_upgrade(p)),
        None if !is_ready(step.active()) => {
            let held = step.held.as_ref().map_or_else(String::new, |why| format!("; waits for {why}"));
            yes(format!("installing revision {}{held}", step.active()))
        }
        None => match applied.revisions.iter().find(|r| r.name_any() != step.active()) {
            Some(old) => {
                let left = applied.pods.get(&old.name_any()).map_or(0, |c| c.proxies);
                yes(format!("revision {} is retiring; {left} gateway proxies use it", old.name_any()))
            }
            None => Finding::new(PROGRESSING, Some(false), reason::SETTLED, "nothing is being rolled out"),
        },
    }
}

// The active revision serves with fewer pods than there should be.
fn short(applied: &Applied) -> Option<String> {
    let found = recorded(applied, applied.step.active()).and_then(|r| condition(r, READY))?;
    (found.status == "True" && found.reason == reason::CONTROL_PLANE_UNAVAILABLE)
        .then(|| format!("revision {}: {}", applied.step.active(), found.message))
}

// Worked before and does not now, or not as it should: what a person must look at. A first installation is not degraded.
fn degraded(
    before: &MeshControlPlaneStatus,
    ready: &Finding,
    reconciled: &Finding,
    short: Option<String>,
    nodes: Option<Finding>,
) -> Finding {
    let was = |type_: &str| before.conditions.iter().find(|c| c.type_ == type_);
    let served =
        was(READY).is_some_and(|c| c.status == "True") || was(DEGRADED).is_some_and(|c| c.status == "True");
    if served && ready.status != Some(true) {
        Finding::new(DEGRADED, Some(true), ready.reason, ready.message.clone())
    } else if let Some(short) = short {
        Finding::new(DEGRADED, Some(true), reason::CONTROL_PLANE_UNAVAILABLE, short)
    } else if reconciled.reason == reason::FIELD_CONTESTED {
        Finding::new(DEGRADED, Some(true), reconciled.reason, reconciled.message.clone())
    } else {
        nodes.unwrap_or_else(|| Finding::new(DEGRADED, Some(false), reason::AS_SPECIFIED, ""))
    }
}

// What was known stays; what is running is not called broken because the spec is.
pub(super) fn failed(
    ctx: &Context,
    generation: Option<i64>,
    before: MeshControlPlaneStatus,
    failure: &Failure,
    seen: Option<&Seen>,
) -> MeshControlPlaneStatus {
    let now = ctx.now();
    let installed = before.active_revision.is_some();
    let message = error::chain(failure);
    let reason = match failure {
        Failure::Validate(invalid) | Failure::Held { invalid, .. } | Failure::Meanwhile { invalid } => {
            invalid.reason()
        }
        _ => reason::API_REQUEST_FAILED,
    };
    let mut status =
        MeshControlPlaneStatus { summary: Some(message.clone()), observed_generation: generation, ..before };
    let mut say = |finding| conditions::set(&mut status.conditions, finding, generation, now);
    if let Failure::Validate(validate::Error::Root(_))
    | Failure::Held { invalid: validate::Error::Root(_), .. } = failure
    {
        say(Finding::new(CERTIFICATES_VALID, Some(false), reason, message.clone()));
    } else if let Some(seen) = seen.filter(|_| installed) {
        // Time goes on for certificates, whatever failed.
        let ledger = certificates::ledger(seen.root.as_ref(), &seen.revisions);
        certificates::publish(ctx, &ledger);
        say(certificates::finding(&ledger, now));
    }
    say(Finding::new(RECONCILED, Some(false), reason, message));
    if !installed {
        say(Finding::new(READY, Some(false), reason, "nothing is installed"));
        say(Finding::new(PROGRESSING, Some(false), reason, ""));
    }
    status
}

// One event for each condition that turned.
async fn announce(
    ctx: &Context,
    mcp: &MeshControlPlane,
    before: &MeshControlPlaneStatus,
    after: &MeshControlPlaneStatus,
) {
    for type_ in [RECONCILED, READY] {
        let find = |s: &MeshControlPlaneStatus| s.conditions.iter().find(|c| c.type_ == type_).cloned();
        let Some(new) = find(after) else { continue };
        let turned = find(before).is_none_or(|old| (&old.status, &old.reason) != (&new.status, &new.reason));
        if turned {
            let type_ = if new.status == "True" { EventType::Normal } else { EventType::Warning };
            tell(ctx, mcp, type_, &new.reason, new.message.clone()).await;
        }
    }
}
