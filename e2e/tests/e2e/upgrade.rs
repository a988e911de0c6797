//! Upgrades: measured, taken back, stopped and agreed to; bad ones go back, and what cannot be done changes nothing.
//! Names decide the order: the mesh that one test leaves is the one that the next needs, and need not be installed anew.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use meshwright_api::{MeshControlPlaneStatus, UpgradePhase};
use meshwright_e2e::product::RELEASES;
use meshwright_e2e::product::faults::{self, FAULTS};
use meshwright_e2e::soak::{self, What};
use meshwright_e2e::testing::{Attempt, Audit, Backend, Plugin, QUICK, ask, follow, status, user};

use crate::env::{DEADLINE, Env};

/// After its start an operator does at once what it ever does.
const SILENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_newer_operator_writes_nothing_to_an_older_mesh() -> Result<()> {
    let env = Env::with_mesh().await?;
    let [old, new] = RELEASES;
    soak::at(&env, old).await?;
    Backend::installed_for_upgrades(&env, soak::NAMESPACE).await?;
    let cluster = env.cluster.clone();
    tokio::task::spawn_blocking(move || faults::install_older(&cluster)).await??;
    soak::knows(&env, &[old]).await?;
    // Without a version the mesh could follow the newest, and does not.
    soak::restored(&env).await?;
    soak::settled(&env, true).await?;
    let before = status(&env).await?;
    let mut audit = Audit::from_now(&env)?;
    soak::operator(&env).await?;
    soak::knows(&env, &[old, new]).await?;
    let available = |status: &MeshControlPlaneStatus| {
        let told = status.conditions.iter().find(|c| c.type_ == "UpgradeAvailable" && c.status == "True");
        Ok(told.filter(|condition| condition.message.contains(new)).map(drop))
    };
    follow(&env, "the new release to be told", DEADLINE, available).await?;
    tokio::time::sleep(SILENCE).await;
    let writes: Vec<_> = audit.writes()?.into_iter().filter(soak::to_mesh).collect();
    ensure!(writes.is_empty(), "{} writes by a new operator: {writes:?}", writes.len());
    let after = status(&env).await?;
    ensure!(
        (&after.version, &after.active_revision) == (&before.version, &before.active_revision),
        "{:?} became {:?}",
        before.active_revision,
        after.active_revision
    );
    Ok(())
}

/// From one release to the next under load, with WebSockets and gRPC streams; somebody agrees to each step, and stops it once. Back by hand goes
/// the hand-over of the nodes, and `make soak` does so between releases and on again.
#[tokio::test]
async fn an_upgrade_that_is_agreed_to_is_noticed_by_nobody() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::Upgrade { asking: true }, 0).await
}

#[tokio::test]
async fn bad_version_with_errors_goes_back_by_itself() -> Result<()> {
    let number = FAULTS.iter().position(|fault| fault.name == "errors").context("a fault")?;
    soak::once(&Env::with_mesh().await?, What::BadVersion, number as u32).await
}

#[tokio::test]
async fn bad_version_without_a_route_is_blocked_before_it_gets_traffic() -> Result<()> {
    let env = Env::with_mesh().await?;
    soak::at(&env, RELEASES[1]).await?;
    Backend::installed_for_upgrades(&env, soak::NAMESPACE).await?;
    let fault = FAULTS.iter().find(|fault| fault.name == "lost-route").context("a fault")?;
    soak::told(&env, *fault).await?;
    let outcome = blocked(&env, fault.version).await;
    soak::operator(&env).await?;
    soak::restored(&env).await?;
    outcome
}

async fn blocked(env: &Env, version: &str) -> Result<()> {
    let attempt = Attempt::at(env, version, QUICK).await?;
    let position = attempt.reaches(env, "the blocker", |position| !position.blockers.is_empty()).await?;
    let blocker = position.blockers.first().context("a blocker")?;
    println!("{}: {} ({})", blocker.reason, blocker.message, blocker.remedy);
    ensure!(
        position.phase == UpgradePhase::Compare && blocker.reason == "ConfigurationLost",
        "blocked in {:?} by {blocker:?}",
        position.phase
    );
    ensure!(position.comparison.as_ref().is_some_and(|c| c.lost > 0), "{:?}", position.comparison);
    ensure!(position.share.is_none(), "it had a share: {:?}", position.share);
    let plugin = Plugin::of(env).await?;
    let check = plugin.says("check", 1).await?;
    ensure!(
        check.contains("is blocked by ConfigurationLost") && check.contains("goes back by itself"),
        "{check}"
    );
    let shown = plugin.says("upgrade status", 0).await?;
    let way_on = format!("kubectl mesh acknowledge {}", position.plan);
    ensure!(shown.contains(&blocker.message) && shown.contains(&way_on), "{shown}");
    let other = plugin.says("acknowledge 0", 2).await?;
    ensure!(other.contains(&position.plan), "{other}");
    // Whoever accepts it is on record, and it goes on; then somebody takes it back.
    plugin.says(&format!("acknowledge {}", position.plan), 0).await?;
    let accepted = attempt.reaches(env, "the acceptance", |position| !position.accepted.is_empty()).await?;
    let first = accepted.accepted.first().context("an acceptance")?;
    ensure!(first.user == user(env).await? && first.reasons == ["ConfigurationLost"], "{first:?}");
    plugin.says("rollback", 0).await?;
    let watched = plugin.says("upgrade status --watch", 1).await?;
    ensure!(watched.contains("Requested"), "{watched}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason_and_the_mesh_goes_on() -> Result<()> {
    let env = Env::with_mesh().await?;
    soak::settled(&env, true).await?;
    let before = status(&env).await?;
    // The API server itself refuses what it can.
    let equal_steps = "{ steps: [ { percent: 50 }, { percent: 50 } ] }";
    match ask(&env, None, equal_steps).await {
        Ok(()) => bail!("steps that do not increase were taken"),
        Err(error) => {
            ensure!(format!("{error:#}").contains("must be more than that of the step"), "{error:#}")
        }
    }
    let versions: [(&str, &[&str]); 3] = [
        ("9.9.9", &["UnknownVersion"]),
        // Two minor releases on, and more than one back: unknown to this operator besides.
        ("0.5.0", &["StepTooLarge", "UnknownVersion"]),
        ("0.0.1", &["StepTooLarge", "UnknownVersion"]),
    ];
    for (version, reasons) in versions {
        ask(&env, Some(version), QUICK).await?;
        refused(&env, version, reasons, version).await?;
    }
    let never = "{ mode: Automatic, windows: [ { schedule: '0 0 30 2 *', duration: 1h } ] }";
    let unreachable = "{ analysis: { maxErrorIncrease: '0%' } }";
    for (settings, says) in [(never, "0 0 30 2 *"), (unreachable, "maxErrorIncrease")] {
        ask(&env, None, settings).await?;
        refused(&env, settings, &["InvalidSpec"], says).await?;
    }
    let plugin = Plugin::of(&env).await?;
    let (code, plan) = plugin.json("upgrade plan").await?;
    ensure!(
        code == Some(1) && plan["stopped"] == true,
        "a plan of a refused spec ended with {code:?}: {plan}"
    );
    let refused = plugin.says("upgrade status --watch", 1).await?;
    ensure!(refused.contains("maxErrorIncrease"), "{refused}");
    soak::restored(&env).await?;
    soak::settled(&env, true).await?;
    told_by_the_plugin(&plugin).await?;
    let after = status(&env).await?;
    ensure!(
        (&after.active_revision, &after.history) == (&before.active_revision, &before.history),
        "the running revision changed: {after:?}"
    );
    Ok(())
}

/// Of a mesh that is as it should be.
async fn told_by_the_plugin(plugin: &Plugin) -> Result<()> {
    let check = plugin.says("check", 0).await?;
    ensure!(check.contains("Nothing is wrong."), "{check}");
    let (code, plan) = plugin.json("upgrade plan").await?;
    ensure!(code == Some(0) && plan["changesNothing"] == true, "{plan}");
    let other = RELEASES.into_iter().find(|version| plan["to"] != *version).context("another release")?;
    let (code, plan) = plugin.json(&format!("upgrade plan --to {other}")).await?;
    let share = plan["phases"].as_array().and_then(|phases| phases.iter().find(|p| p["name"] == "Bake"));
    ensure!(code == Some(0) && plan["to"] == other && share.is_some(), "{plan}");
    let (code, status) = plugin.json("status").await?;
    ensure!(code == Some(0) && status["revisions"][0]["share"] == 100, "{status}");
    // Nothing begins, so there is nothing to follow.
    plugin.says("upgrade status --watch", 0).await?;
    plugin.says("history", 0).await.map(drop)
}

/// Waits until the condition Reconciled is False for one of these reasons, in words about what is wrong.
async fn refused(env: &Env, what: &str, reasons: &[&str], says: &str) -> Result<()> {
    follow(env, &format!("the refusal of {what}"), DEADLINE, |status| {
        let mut conditions = status.conditions.iter();
        let refusal = conditions.find(|c| c.type_ == "Reconciled" && c.status == "False");
        let refusal = refusal.filter(|c| reasons.contains(&c.reason.as_str()) && c.message.contains(says));
        Ok(refusal.map(|c| println!("{what}: {}: {}", c.reason, c.message)))
    })
    .await
}
