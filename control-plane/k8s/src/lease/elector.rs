//! The task that contends for the Lease, renews it and releases it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use meshwright_runtime::CancellationToken;
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::record::{self, Claim};
use super::{LeaseConfig, LeaseError, OnLoss};

pub(super) struct Elector {
    api: Api<Lease>,
    config: LeaseConfig,
    until: watch::Sender<Option<Instant>>,
    leader: watch::Sender<bool>,
    held: Option<Held>,
    observed: Option<Observed>,
}

/// Our own Lease.
struct Held {
    lease: Lease,
    /// When the last successful renewal was sent.
    renewed: Instant,
}

/// Somebody else's Lease, and when we first saw this renewal of it.
struct Observed {
    lease: Lease,
    since: Instant,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    Timeout,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Failure {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists())
    }
}

/// Why leadership ended.
struct Loss(String);

impl Elector {
    pub(super) fn new(
        client: kube::Client,
        config: LeaseConfig,
        until: watch::Sender<Option<Instant>>,
        leader: watch::Sender<bool>,
    ) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, config, until, leader, held: None, observed: None }
    }

    pub(super) async fn run(mut self, drain: CancellationToken) -> Result<(), LeaseError> {
        loop {
            let start = Instant::now();
            let turn = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                turn = self.turn(start) => turn,
            };
            if let Err(Loss(why)) = turn {
                self.step_down();
                tracing::warn!(lease = self.config.name, why, "lease lost");
                if self.config.on_loss == OnLoss::End {
                    let lease = format!("{}/{}", self.config.namespace, self.config.name);
                    return Err(LeaseError::Lost { lease, why });
                }
            }
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                () = sleep_until(self.next_turn(start)) => {}
            }
        }
        // A request may have been cut off half-way: what the Lease says now is read, not remembered.
        let led = *self.leader.borrow();
        self.step_down();
        if led {
            self.release().await;
        }
        Ok(())
    }

    fn next_turn(&self, start: Instant) -> Instant {
        match &self.held {
            Some(held) => (start + self.config.retry).min(held.renewed + self.config.renew_deadline),
            // Candidates that were started together must not stay in step.
            None => start + self.config.retry + self.config.retry.mul_f64(rand::rng().random_range(0.0..0.2)),
        }
    }

    async fn turn(&mut self, start: Instant) -> Result<(), Loss> {
        match self.held.take() {
            Some(held) => self.renew(held, start).await,
            None => {
                if let Err(error) = self.contend(start).await {
                    tracing::debug!(lease = self.config.name, %error, "could not contend for lease");
                }
                Ok(())
            }
        }
    }

    async fn renew(&mut self, held: Held, start: Instant) -> Result<(), Loss> {
        let deadline = held.renewed + self.config.renew_deadline;
        let wanted = record::taken(held.lease.clone(), &self.config, Timestamp::now());
        let failure = match self.replace(&wanted, deadline).await {
            Ok(lease) => {
                self.hold(lease, start);
                return Ok(());
            }
            Err(failure) => failure,
        };
        if Instant::now() >= deadline {
            return Err(Loss(format!("not renewed within {:?}: {failure}", self.config.renew_deadline)));
        }
        if !failure.is_conflict() {
            tracing::warn!(lease = self.config.name, error = %failure, "could not renew lease, trying again");
            self.held = Some(held);
            return Ok(());
        }
        self.renew_after_conflict(held, start, deadline).await
    }

    /// Somebody wrote the Lease: perhaps only its annotation, perhaps our own request whose answer we did not get.
    async fn renew_after_conflict(
        &mut self,
        held: Held,
        start: Instant,
        deadline: Instant,
    ) -> Result<(), Loss> {
        let fresh = match self.get(deadline).await {
            Ok(Some(fresh)) => fresh,
            Ok(None) => return Err(Loss("it was deleted".to_owned())),
            Err(error) => {
                tracing::warn!(lease = self.config.name, %error, "could not read lease, trying again");
                self.held = Some(held);
                return Ok(());
            }
        };
        match record::claim(&fresh, &self.config) {
            Claim::Held { by, .. } => Err(Loss(format!("{by} holds it"))),
            Claim::OtherRevision(other) => {
                self.step_down();
                self.release_fresh(fresh).await;
                Err(Loss(format!("it was given to revision {}", other.as_deref().unwrap_or("(none)"))))
            }
            Claim::Open if !record::held_by(&fresh, &self.config.identity) => {
                Err(Loss("it was released by somebody else".to_owned()))
            }
            Claim::Open => {
                let wanted = record::taken(fresh.clone(), &self.config, Timestamp::now());
                match self.replace(&wanted, deadline).await {
                    Ok(lease) => self.hold(lease, start),
                    Err(_) => self.held = Some(Held { lease: fresh, renewed: held.renewed }),
                }
                Ok(())
            }
        }
    }

    async fn contend(&mut self, start: Instant) -> Result<(), Failure> {
        let deadline = start + self.config.renew_deadline;
        let Some(lease) = self.get(deadline).await? else {
            if self.config.create {
                let wanted = record::taken(record::absent(&self.config), &self.config, Timestamp::now());
                let lease = self.create(&wanted, deadline).await?;
                self.hold(lease, start);
            }
            return Ok(());
        };
        match record::claim(&lease, &self.config) {
            Claim::OtherRevision(_) => {
                self.observed = None;
                return Ok(());
            }
            Claim::Held { duration, by } if !self.has_expired(&lease, duration) => {
                tracing::trace!(lease = self.config.name, by, "lease is held");
                return Ok(());
            }
            Claim::Held { .. } | Claim::Open => {}
        }
        let wanted = record::taken(lease, &self.config, Timestamp::now());
        // The life of the Lease begins when the request that takes it is sent, not when we began to look.
        let sent = Instant::now();
        let lease = self.replace(&wanted, sent + self.config.retry).await?;
        self.hold(lease, sent);
        Ok(())
    }

    /// Whether this renewal has been in sight for the whole duration, by our clock.
    fn has_expired(&mut self, lease: &Lease, duration: Duration) -> bool {
        let now = Instant::now();
        match &self.observed {
            Some(seen) if record::same_renewal(&seen.lease, lease) => now >= seen.since + duration,
            _ => {
                self.observed = Some(Observed { lease: lease.clone(), since: now });
                false
            }
        }
    }

    fn hold(&mut self, lease: Lease, renewed: Instant) {
        let until = renewed + self.config.renew_deadline;
        self.observed = None;
        self.held = Some(Held { lease, renewed });
        self.until.send_replace(Some(until));
        if self.leader.send_if_modified(|leader| !std::mem::replace(leader, true)) {
            tracing::info!(lease = self.config.name, identity = self.config.identity, "lease acquired");
        }
    }

    fn step_down(&mut self) {
        self.held = None;
        self.until.send_replace(None);
        self.leader.send_if_modified(|leader| std::mem::replace(leader, false));
    }

    async fn release(&self) {
        match self.get(Instant::now() + self.config.retry).await {
            Ok(Some(lease)) => self.release_fresh(lease).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(lease = self.config.name, %error, "could not read lease to release it")
            }
        }
    }

    async fn release_fresh(&self, lease: Lease) {
        if !record::held_by(&lease, &self.config.identity) {
            return;
        }
        match self.replace(&record::released(lease), Instant::now() + self.config.retry).await {
            Ok(_) => tracing::info!(lease = self.config.name, "lease released"),
            Err(error) => tracing::warn!(lease = self.config.name, %error, "could not release lease"),
        }
    }

    // No request may outlive the Lease, nor take a whole turn from the next attempt.
    async fn within<T>(
        &self,
        deadline: Instant,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let left = deadline.saturating_duration_since(Instant::now()).min(self.config.retry);
        Ok(timeout(left, request).await.map_err(|_| Failure::Timeout)??)
    }

    async fn get(&self, deadline: Instant) -> Result<Option<Lease>, Failure> {
        self.within(deadline, self.api.get_opt(&self.config.name)).await
    }

    async fn create(&self, lease: &Lease, deadline: Instant) -> Result<Lease, Failure> {
        self.within(deadline, self.api.create(&PostParams::default(), lease)).await
    }

    async fn replace(&self, lease: &Lease, deadline: Instant) -> Result<Lease, Failure> {
        self.within(deadline, self.api.replace(&self.config.name, &PostParams::default(), lease)).await
    }
}
