//! Leader election over a `coordination.k8s.io/v1` Lease.
//!
//! ```no_run
//! # async fn run(client: kube::Client, drain: meshwright_runtime::CancellationToken) -> Result<(), Box<dyn std::error::Error>> {
//! use meshwright_k8s::lease::{self, LeaseConfig};
//! let mut lease = lease::spawn(client, LeaseConfig::created_by_us("meshwright-system", "meshwright-operator", "pod-1"), drain);
//! lease.acquired().await;
//! tokio::select! {
//!     ended = lease.ended() => ended?, // Ok on shutdown, an error when the Lease was lost
//!     // ... the work that only the holder may do
//! }
//! # Ok(()) }
//! ```
//!
//! The holder stops believing in itself 6 s after it *sent* its last successful renewal, by its own monotonic clock, whatever its requests are
//! doing. Another candidate takes over no earlier than 10 s after it *saw* the last renewal, by its own clock. So clocks of different nodes
//! are never compared, and the 4 s between are for requests under way: give them [`Leadership::remaining`] as their timeout.

mod elector;
mod record;
#[cfg(test)]
mod tests;

use std::time::Duration;

use meshwright_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Annotation of a Lease: only candidates of this revision may hold it.
pub const REVISION_ANNOTATION: &str = "meshwright.io/revision";

/// How to contend for a Lease.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is written as holder, unique among the candidates: the pod's name.
    pub identity: String,
    /// Create the Lease where it is absent. Otherwise wait for it.
    pub create: bool,
    /// Hold the Lease only while its annotation [`REVISION_ANNOTATION`] has this value.
    pub revision: Option<String>,
    /// What a loss means.
    pub on_loss: OnLoss,
    /// How long others wait after the last renewal they saw.
    pub duration: Duration,
    /// How long the holder trusts its last renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry: Duration,
}

/// What to do when the Lease was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// End with [`LeaseError::Lost`]: the process should restart, so that nothing it believed as leader survives.
    End,
    /// Contend again: what the leader does is repeatable and has preconditions of its own.
    Contend,
}

impl LeaseConfig {
    /// A Lease of the candidates' own: created where absent, losing it is an error.
    pub fn created_by_us(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            create: true,
            revision: None,
            on_loss: OnLoss::End,
            duration: Duration::from_secs(10),
            renew_deadline: Duration::from_secs(6),
            retry: Duration::from_secs(2),
        }
    }

    /// A Lease that somebody else creates and gives to one revision at a time; losing it only means to wait again.
    pub fn for_revision(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
        revision: impl Into<String>,
    ) -> Self {
        Self {
            create: false,
            revision: Some(revision.into()),
            on_loss: OnLoss::Contend,
            ..Self::created_by_us(namespace, name, identity)
        }
    }
}

/// Why an election ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// We held the Lease and do not any more.
    #[error("lost lease {lease}: {why}")]
    Lost {
        /// Namespace and name.
        lease: String,
        /// What happened.
        why: String,
    },
    /// The task is gone without a result.
    #[error("election for lease {lease} ended unexpectedly")]
    Task {
        /// Namespace and name.
        lease: String,
        /// How it ended.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Whether we are the leader, for those who act. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
    leader: watch::Receiver<bool>,
}

impl Leadership {
    /// True while we may act. Looks at the clock, so it is right even when the election's task is starved.
    pub fn is_leader(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long we may still act without another renewal; no request may take longer. None: not the leader.
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.borrow())?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Changes when leadership does.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leader.clone()
    }

    /// Whatever others do, this one leads; for tests and for running without a cluster.
    pub fn always() -> Self {
        // A day is longer than any request, and receivers keep the last value when the sender is gone.
        let until = Instant::now() + Duration::from_secs(24 * 3600);
        Self { until: watch::channel(Some(until)).1, leader: watch::channel(true).1 }
    }
}

/// A running election.
#[derive(Debug)]
pub struct LeaseHandle {
    lease: String,
    leadership: Leadership,
    task: JoinHandle<Result<(), LeaseError>>,
}

impl LeaseHandle {
    /// For those who act.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// See [`Leadership::is_leader`].
    pub fn is_leader(&self) -> bool {
        self.leadership.is_leader()
    }

    /// See [`Leadership::subscribe`].
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leadership.subscribe()
    }

    /// Waits until we hold the Lease; returns also when the election has ended, so look at [`LeaseHandle::ended`] afterwards.
    pub async fn acquired(&self) {
        // An error means that the election's task is gone; `ended` says why.
        let _ = self.leadership.subscribe().wait_for(|leader| *leader).await;
    }

    /// Waits for the end: Ok after shutdown (the Lease is released by then), an error when it was lost. Must not be polled again afterwards.
    ///
    /// # Errors
    /// When the Lease was lost.
    pub async fn ended(&mut self) -> Result<(), LeaseError> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(source) => Err(LeaseError::Task { lease: self.lease.clone(), source }),
        }
    }
}

/// Starts to contend; goes on until `drain` is cancelled, which releases the Lease.
pub fn spawn(client: kube::Client, config: LeaseConfig, drain: CancellationToken) -> LeaseHandle {
    let (until, until_rx) = watch::channel(None);
    let (leader, leader_rx) = watch::channel(false);
    let lease = format!("{}/{}", config.namespace, config.name);
    let elector = elector::Elector::new(client, config, until, leader);
    LeaseHandle {
        lease,
        leadership: Leadership { until: until_rx, leader: leader_rx },
        task: tokio::spawn(elector.run(drain)),
    }
}
