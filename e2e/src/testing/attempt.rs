//! One upgrade: asked for, followed, and told from those before it.

use anyhow::{Result, bail};
use k8s_openapi::jiff::Timestamp;
use meshwright_api::{
    MeshControlPlaneStatus, UpgradePhase, UpgradeRecord, UpgradeResult, UpgradeStatus, labels,
};

use super::{Env, LONGEST, MESH, apply_yaml, follow, mesh_yaml, status, wish};

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
    pub async fn again(env: &Env, went_back: &UpgradeStatus, version: &str, upgrade: &str) -> Result<Self> {
        Self::begin_again(env, went_back, version, &mesh_yaml(Some(version), upgrade)).await
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
    pub async fn begin_again(
        env: &Env,
        went_back: &UpgradeStatus,
        version: &str,
        mesh: &str,
    ) -> Result<Self> {
        let attempt = Self::after(&status(env).await?, version);
        apply_yaml(&env.client, mesh, MESH).await?;
        wish(env, Some((labels::RETRY, &went_back.attempt()))).await?;
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
    use serde_json::json;

    use super::*;

    fn seen(phase: UpgradePhase, started: i64) -> MeshControlPlaneStatus {
        let time = Time(Timestamp::from_second(started).unwrap());
        let upgrade = json!({
            "from": "m-1", "fromVersion": "0.2.0", "to": "m-2", "toVersion": "0.3.0", "strategy": "Canary",
            "phase": phase, "started": time, "since": time, "plan": "p",
        });
        let upgrade = Some(serde_json::from_value(upgrade).unwrap());
        MeshControlPlaneStatus { upgrade, ..MeshControlPlaneStatus::default() }
    }

    #[test]
    fn an_upgrade_that_was_there_before_is_not_the_one_that_was_asked_for() {
        let before = seen(UpgradePhase::RolledBack, 100);
        let attempt = Attempt::after(&before, "0.3.0");
        assert!(attempt.position(&before).is_none());
        assert!(attempt.position(&seen(UpgradePhase::Shift, 200)).is_some());
        let other = Attempt::after(&before, "0.3.1");
        assert!(other.position(&seen(UpgradePhase::Shift, 200)).is_none());
        assert!(Attempt::after(&MeshControlPlaneStatus::default(), "0.3.0").position(&before).is_some());
    }

    #[test]
    fn what_goes_back_says_why() {
        let attempt = Attempt::after(&MeshControlPlaneStatus::default(), "0.3.0");
        let mut status = seen(UpgradePhase::RollingBack, 100);
        assert!(attempt.must_not_go_back(&status).is_ok());
        let rollback = json!({"phase": "Shift", "cause": "ErrorsRose", "message": "2 % errors",
            "decided": Time(Timestamp::UNIX_EPOCH)});
        status.upgrade.as_mut().unwrap().rollback = Some(serde_json::from_value(rollback).unwrap());
        let why = attempt.must_not_go_back(&status).unwrap_err().to_string();
        assert_eq!(why, "it goes back in Shift, ErrorsRose: 2 % errors");
    }

    #[test]
    fn old_pods_are_warm_until_they_end_their_connections() {
        let mut status = seen(UpgradePhase::Drain, 100);
        let position = status.upgrade.as_mut().unwrap();
        assert!(is_warm(position) && !is_ending(position));
        position.measured_since = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(!is_warm(position) && is_ending(position));
    }
}
