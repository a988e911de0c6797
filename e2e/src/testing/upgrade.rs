//! Upgrades as a person does them: asked for by the spec and by annotations, followed in the status.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use meshwright_api::{
    MeshControlPlane, MeshControlPlaneStatus, UpgradePhase, UpgradeRecord, UpgradeResult, UpgradeStatus,
    labels,
};
use serde_json::json;
use tokio::sync::watch;

use super::{Env, IN_PLACE, MESH, MESH_YAML, apply_yaml};

/// Settings of `spec.upgrade` that measure what the defaults measure, in less time.
pub const QUICK: &str = "{ steps: [ { percent: 25, hold: 10s }, { percent: 50, hold: 10s } ], bake: 10s, keepWarm: 20s, \
                         analysis: { deadline: 3m } }";
/// Generous, for one of these and for its last connections, which may take five minutes.
pub const LONGEST: Duration = Duration::from_secs(1200);
/// What a person asks for; more than one at once would be a contradiction, and one that was carried out must not be again.
const WISHES: [&str; 5] =
    [labels::APPROVE, labels::ACKNOWLEDGE, labels::ROLLBACK, labels::RETRY, labels::END_KEEP_WARM];
const LOOK: Duration = Duration::from_millis(100);

/// The mesh of all tests with this version and `spec.upgrade`.
pub fn mesh_yaml(version: Option<&str>, upgrade: &str) -> String {
    let version = version.map(|version| format!("  version: {version}\n")).unwrap_or_default();
    MESH_YAML.replace(IN_PLACE, upgrade) + &version
}

/// Makes the spec say so.
///
/// # Errors
/// With the API server's words.
pub async fn ask(env: &Env, version: Option<&str>, upgrade: &str) -> Result<()> {
    apply_yaml(&env.client, &mesh_yaml(version, upgrade), MESH).await
}

/// Makes this the only thing that annotations ask for.
///
/// # Errors
/// With the API server's words.
pub async fn wish(env: &Env, wish: Option<(&str, &str)>) -> Result<()> {
    let mut annotations: BTreeMap<&str, Option<&str>> = WISHES.into_iter().map(|key| (key, None)).collect();
    annotations.extend(wish.map(|(key, value)| (key, Some(value))));
    let patch = json!({"metadata": {"annotations": annotations}});
    let patched = meshes(env).patch(MESH, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("annotate the mesh with {wish:?}")).map(drop)
}

/// Our own name, as the API server knows it.
///
/// # Errors
/// When it does not say.
pub async fn user(env: &Env) -> Result<String> {
    let reviews = Api::<SelfSubjectReview>::all(env.client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let info = review.context("ask who we are")?.status.and_then(|status| status.user_info);
    info.and_then(|info| info.username).context("a user without a name")
}

/// What is said of the mesh.
///
/// # Errors
/// When there is none.
pub async fn status(env: &Env) -> Result<MeshControlPlaneStatus> {
    let mesh = meshes(env).get(MESH).await.context("read the MeshControlPlane")?;
    Ok(mesh.status.unwrap_or_default())
}

/// Looks until there is something to find, or no more hope.
///
/// # Errors
/// After the deadline, or with what `look` says.
pub async fn follow<T>(
    env: &Env,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut(&MeshControlPlaneStatus) -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        // An API server that is busy for a moment is no answer.
        let seen = status(env).await;
        if let Ok(status) = &seen {
            let found = look(status).with_context(|| format!("waiting for {what}: {}", describe(status)))?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if start.elapsed() > deadline {
            let seen = seen.as_ref().map_or_else(|e| format!("{e:#}"), describe);
            bail!("{what}: not after {} s; last seen: {seen}", deadline.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The newest status, each time that it changes.
pub fn watched(env: &Env) -> watch::Receiver<MeshControlPlaneStatus> {
    let (sender, receiver) = watch::channel(MeshControlPlaneStatus::default());
    let config = watcher::Config::default().fields(&format!("metadata.name={MESH}"));
    let changes = watcher(meshes(env), config).default_backoff().applied_objects();
    tokio::spawn(async move {
        pin_mut!(changes);
        loop {
            tokio::select! {
                () = sender.closed() => return,
                // After an error the next item is of a new watch.
                change = changes.try_next() => match change {
                    Ok(Some(mesh)) => drop(sender.send_replace(mesh.status.unwrap_or_default())),
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        }
    });
    receiver
}

fn meshes(env: &Env) -> Api<MeshControlPlane> {
    Api::namespaced(env.client.clone(), MESH)
}

fn describe(status: &MeshControlPlaneStatus) -> String {
    let upgrade = serde_json::to_string(&status.upgrade).unwrap_or_default();
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    format!("upgrade {upgrade}, conditions [{}]", conditions.join("; "))
}

/// One upgrade that was asked for, and not another that was before.
#[derive(Debug, Clone)]
pub struct Attempt {
    version: String,
    before: Option<Timestamp>,
}

impl Attempt {
    /// Asks for a version of the mesh of all tests.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn at(env: &Env, version: &str, upgrade: &str) -> Result<Self> {
        Self::begin(env, version, &mesh_yaml(Some(version), upgrade)).await
    }

    /// Asks for what went back once more.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn again(env: &Env, revision: &str, version: &str, upgrade: &str) -> Result<Self> {
        Self::begin_again(env, revision, version, &mesh_yaml(Some(version), upgrade)).await
    }

    /// Applies a mesh that asks for this version.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn begin(env: &Env, version: &str, mesh: &str) -> Result<Self> {
        let attempt = Self::after(&status(env).await?, version);
        wish(env, None).await?;
        apply_yaml(&env.client, mesh, MESH).await?;
        Ok(attempt)
    }

    /// Applies a mesh that asks for this version, which went back before.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn begin_again(env: &Env, revision: &str, version: &str, mesh: &str) -> Result<Self> {
        let attempt = Self::after(&status(env).await?, version);
        apply_yaml(&env.client, mesh, MESH).await?;
        wish(env, Some((labels::RETRY, revision))).await?;
        Ok(attempt)
    }

    fn after(status: &MeshControlPlaneStatus, version: &str) -> Self {
        let position = status.upgrade.iter().map(|upgrade| upgrade.started.0);
        let history = status.history.iter().map(|record| record.started.0);
        Self { version: version.to_owned(), before: position.chain(history).max() }
    }

    /// What was asked for.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it is, if it has begun and is not over.
    pub fn position<'s>(&self, status: &'s MeshControlPlaneStatus) -> Option<&'s UpgradeStatus> {
        status.upgrade.as_ref().filter(|u| u.to_version == self.version && Some(u.started.0) > self.before)
    }

    /// How it ended, if it has.
    pub fn record<'s>(&self, status: &'s MeshControlPlaneStatus) -> Option<&'s UpgradeRecord> {
        status.history.iter().find(|r| r.to_version == self.version && Some(r.started.0) > self.before)
    }

    /// That it goes back is not what was wanted.
    ///
    /// # Errors
    /// With the cause.
    pub fn must_not_go_back(&self, status: &MeshControlPlaneStatus) -> Result<()> {
        if let Some(rollback) = self.position(status).and_then(|position| position.rollback.as_ref()) {
            bail!("it goes back in {:?}, {}: {}", rollback.phase, rollback.cause, rollback.message);
        }
        match self.record(status) {
            Some(record) if record.result != UpgradeResult::Succeeded => {
                bail!("it ended as {:?}: {}", record.result, record.reason)
            }
            _ => Ok(()),
        }
    }

    /// Waits until it is where `there` says, and has not gone back.
    ///
    /// # Errors
    /// When it goes back, or never gets there.
    pub async fn reaches(
        &self,
        env: &Env,
        what: &str,
        there: impl Fn(&UpgradeStatus) -> bool,
    ) -> Result<UpgradeStatus> {
        follow(env, what, LONGEST, |status| {
            self.must_not_go_back(status)?;
            Ok(self.position(status).filter(|position| there(position)).cloned())
        })
        .await
    }

    /// Waits until the new revision serves alone.
    ///
    /// # Errors
    /// When it goes back, or never ends.
    pub async fn succeeds(&self, env: &Env) -> Result<UpgradeRecord> {
        follow(env, "the end of the upgrade", LONGEST, |status| {
            self.must_not_go_back(status)?;
            Ok(self.record(status).filter(|_| self.position(status).is_none()).cloned())
        })
        .await
    }

    /// Waits until it has gone back.
    ///
    /// # Errors
    /// When it succeeds, or stays.
    pub async fn goes_back(&self, env: &Env) -> Result<UpgradeStatus> {
        follow(env, "the rollback", LONGEST, |status| {
            let succeeded = self.record(status).filter(|record| record.result == UpgradeResult::Succeeded);
            if succeeded.is_some() {
                bail!("it succeeded");
            }
            Ok(self.position(status).filter(|p| p.phase == UpgradePhase::RolledBack).cloned())
        })
        .await
    }
}

/// The old pods are warm: they have no traffic and could have it back at once.
pub fn is_warm(position: &UpgradeStatus) -> bool {
    position.phase == UpgradePhase::Drain && position.measured_since.is_none()
}

/// The old pods end their connections, or have.
pub fn is_ending(position: &UpgradeStatus) -> bool {
    let ending = position.phase == UpgradePhase::Drain && position.measured_since.is_some();
    ending || position.phase == UpgradePhase::Retire
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use meshwright_api::Upgrade;
    use serde::Deserialize;

    use super::*;
    use crate::testing::objects_in;

    fn status(phase: UpgradePhase, started: i64) -> MeshControlPlaneStatus {
        let time = Time(Timestamp::from_second(started).unwrap());
        let upgrade = json!({
            "from": "m-1", "fromVersion": "0.1.0", "to": "m-2", "toVersion": "0.2.0", "strategy": "Canary",
            "phase": phase, "started": time, "since": time, "plan": "p",
        });
        let upgrade = Some(serde_json::from_value(upgrade).unwrap());
        MeshControlPlaneStatus { upgrade, ..MeshControlPlaneStatus::default() }
    }

    #[test]
    fn the_mesh_of_tests_takes_a_version_and_settings() {
        for (version, upgrade) in [(Some("0.2.0"), QUICK), (None, IN_PLACE)] {
            let objects = objects_in(&mesh_yaml(version, upgrade)).unwrap();
            let spec = &objects[1].data["spec"];
            assert_eq!(spec["version"].as_str(), version);
            let upgrade = Upgrade::deserialize(&spec["upgrade"]).unwrap();
            assert_eq!(
                upgrade.steps.len(),
                if version.is_some() { 2 } else { Upgrade::default().steps.len() }
            );
            assert!(spec["controlPlane"].is_object());
        }
    }

    #[test]
    fn an_upgrade_that_was_there_before_is_not_the_one_that_was_asked_for() {
        let before = status(UpgradePhase::RolledBack, 100);
        let attempt = Attempt::after(&before, "0.2.0");
        assert!(attempt.position(&before).is_none());
        assert!(attempt.position(&status(UpgradePhase::Shift, 200)).is_some());
        let other = Attempt::after(&before, "0.2.1");
        assert!(other.position(&status(UpgradePhase::Shift, 200)).is_none());
        assert!(Attempt::after(&MeshControlPlaneStatus::default(), "0.2.0").position(&before).is_some());
    }

    #[test]
    fn what_goes_back_says_why() {
        let attempt = Attempt::after(&MeshControlPlaneStatus::default(), "0.2.0");
        let mut seen = status(UpgradePhase::RollingBack, 100);
        assert!(attempt.must_not_go_back(&seen).is_ok());
        let rollback = json!({"phase": "Shift", "cause": "AnalysisFailed", "message": "2 % errors",
            "decided": Time(Timestamp::UNIX_EPOCH)});
        seen.upgrade.as_mut().unwrap().rollback = Some(serde_json::from_value(rollback).unwrap());
        let why = attempt.must_not_go_back(&seen).unwrap_err().to_string();
        assert_eq!(why, "it goes back in Shift, AnalysisFailed: 2 % errors");
    }
}
