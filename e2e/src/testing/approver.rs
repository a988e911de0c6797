//! A person who agrees to each step of an upgrade by `kubectl mesh`, stops it once on the way, and cannot agree in another's name.

use anyhow::{Result, bail, ensure};
use meshwright_api::{UpgradePhase, labels};

use super::{Attempt, Env, Plugin, user, wish};

/// One who is asked about this upgrade.
pub struct Approver<'a> {
    env: &'a Env,
    attempt: &'a Attempt,
    plugin: Plugin,
    user: String,
}

impl<'a> Approver<'a> {
    /// Finds out who we are.
    ///
    /// # Errors
    /// When the API server does not say, or the plugin cannot be built.
    pub async fn new(env: &'a Env, attempt: &'a Attempt) -> Result<Self> {
        Ok(Self { env, attempt, plugin: Plugin::of(env).await?, user: user(env).await? })
    }

    /// Agrees to everything that is asked, one after the other.
    ///
    /// # Errors
    /// When nobody is asked, somebody may speak for another, or an approval is not noted.
    pub async fn every_step(&self) -> Result<()> {
        let (revision, shares) = self.asked("1").await?;
        self.nobody_speaks_for_another(&revision).await?;
        self.agree("1").await?;
        self.pause().await?;
        // All traffic is a step too, and comes after the shares.
        for step in 2..=shares + 1 {
            let step = step.to_string();
            self.asked(&step).await?;
            self.agree(&step).await?;
        }
        self.asked("promote").await?;
        self.agree("promote").await
    }

    /// Waits until it waits for us; gives the revision and the number of shares.
    async fn asked(&self, step: &str) -> Result<(String, usize)> {
        let (what, question) = (format!("the question for step {step}"), format!("approval of step {step},"));
        let asks = |text: &String| text.contains(&question);
        let position =
            self.attempt.reaches(self.env, &what, |p| p.waiting.as_ref().is_some_and(asks)).await?;
        ensure!(
            position.approvals.iter().all(|approved| approved.step != step),
            "it asks for an approval of step {step} that it has: {:?}",
            position.approvals
        );
        Ok((position.to, position.steps.len()))
    }

    async fn agree(&self, step: &str) -> Result<()> {
        let other = self.plugin.says("approve 17", 2).await?;
        ensure!(other.contains("not of 17"), "another step was agreed to: {other}");
        let said = self.plugin.says(&format!("approve {step}"), 0).await?;
        ensure!(said.contains(&format!("as {}", self.user)), "{said}");
        let what = format!("the approval of step {step} to be noted");
        let noted = |p: &meshwright_api::UpgradeStatus| {
            p.approvals.iter().any(|approved| approved.step == step && approved.user == self.user)
        };
        // After the last one there may be nothing left to note it in but the history.
        super::follow(self.env, &what, super::LONGEST, |status| {
            self.attempt.must_not_go_back(status)?;
            let in_position = self.attempt.position(status).is_some_and(noted);
            let in_record = self.attempt.record(status).is_some_and(|record| {
                record.approvals.iter().any(|approved| approved.step == step && approved.user == self.user)
            });
            Ok((in_position || in_record).then_some(()))
        })
        .await
    }

    async fn nobody_speaks_for_another(&self, revision: &str) -> Result<()> {
        let approval = format!("{revision}/1/somebody-else");
        for (annotation, foreign) in
            [(labels::APPROVE, approval.as_str()), (labels::ACKNOWLEDGE, "0/somebody-else")]
        {
            match wish(self.env, Some((annotation, foreign))).await {
                Ok(()) => bail!("{} set {annotation} in the name of somebody else", self.user),
                Err(error) => {
                    let text = format!("{error:#}");
                    ensure!(text.contains("ValidatingAdmissionPolicy"), "not the policy refused it: {text}");
                }
            }
        }
        Ok(())
    }

    /// Stops it in its first step, sees that it stays there, and lets it go on.
    async fn pause(&self) -> Result<()> {
        self.plugin.says("pause", 0).await?;
        let says_so = |text: &String| text.contains("paused");
        let position =
            self.attempt.reaches(self.env, "the pause", |p| p.waiting.as_ref().is_some_and(says_so)).await?;
        ensure!(
            (position.phase, position.step) == (UpgradePhase::Shift, Some(1)),
            "paused in {:?} {:?}, not in the step that was approved",
            position.phase,
            position.step
        );
        let (code, shown) = self.plugin.json("upgrade status").await?;
        ensure!(code == Some(0) && shown["paused"] == true && shown["upgrade"]["step"] == 1, "{shown}");
        self.plugin.says("resume", 0).await.map(drop)
    }
}
