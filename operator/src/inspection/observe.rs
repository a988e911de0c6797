//! Asks every replica of every revision and puts together what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use meshwright_decisions::health::ReplicaHealth;
use meshwright_proto::inspection::RenderedGateway;

use super::{
    client::{Client, Mesh},
    memory::{Certificates, Memory, ProxyKey, SeenProxy},
    replica::{Replica, State},
};

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The same for the whole of an upgrade, and another one for the next: then nothing is known any more.
    pub upgrade: &'a str,
    /// Traffic before this is not needed any more. Nothing older than an hour can be had.
    pub since: Timestamp,
}

/// What all control planes said.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When they were asked.
    pub at: Timestamp,
    /// From when on the proxies' slots are here; later than was asked for where that was too much.
    pub since: Timestamp,
    /// By revision: those that were asked for.
    pub revisions: BTreeMap<String, Observed>,
}

/// What the control plane of a revision said.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Pods that were asked and answered.
    pub answered: BTreeSet<String>,
    /// Pods that were asked and did not answer, and why not.
    pub unreachable: BTreeMap<String, String>,
    /// Pods whose process does not run.
    pub stopped: BTreeSet<String>,
    /// The proxies that report, or have reported, with their traffic.
    pub proxies: BTreeMap<ProxyKey, Arc<SeenProxy>>,
    /// How each replica was over time, by pod and UID; also of replicas that are gone.
    pub health: BTreeMap<(String, String), Arc<Vec<ReplicaHealth>>>,
    /// What became of requests for certificates, at those that are gone too.
    pub certificates: Certificates,
    /// Pods (namespace/name) with an open xDS stream. None if one of the replicas that run was not heard.
    pub streams: Option<BTreeSet<String>>,
}

/// No replica rendered.
#[derive(Debug, thiserror::Error)]
#[error("no control-plane pod of revision {revision} could render its configuration: {}", reasons(.tried))]
pub struct NotRendered {
    /// Which revision.
    pub revision: String,
    /// Each pod that was asked, and why it did not.
    pub tried: Vec<String>,
}

// Replicas of one version mostly say the same.
fn reasons(tried: &[String]) -> String {
    match tried {
        [] => "none is ready".to_owned(),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    }
}

/// Asks control planes, and remembers what they said.
#[derive(Debug, Default)]
pub struct Inspector {
    client: Client,
    memory: Mutex<Memory>,
}

impl Inspector {
    /// Asks all replicas of these revisions at once. `replicas` are all there are, of whichever revision.
    pub async fn observe(
        &self,
        mesh: &Mesh<'_>,
        scope: &Scope<'_>,
        revisions: &[&str],
        replicas: &[Replica],
        at: Timestamp,
    ) -> Observation {
        let now = at.as_second();
        self.memory().begin(scope.upgrade, scope.since.as_second(), now);
        self.client.keep_only(replicas);
        let asked: Vec<_> = replicas.iter().filter(|r| revisions.contains(&r.revision.as_str())).collect();
        let answers = asked.iter().map(|replica| async {
            let since = self.memory().ask_since(&replica.uid);
            (since, self.client.observe(mesh, replica, since).await)
        });
        let answers = join_all(answers).await;
        let mut memory = self.memory();
        let nothing = || Observed { streams: Some(BTreeSet::new()), ..Observed::default() };
        let mut all: BTreeMap<_, _> = revisions.iter().map(|r| ((*r).to_owned(), nothing())).collect();
        for (replica, (since, answer)) in asked.into_iter().zip(answers) {
            let Some(observed) = all.get_mut(&replica.revision) else { continue };
            let pod = replica.pod.clone();
            match answer {
                _ if replica.state == State::Stopped => {
                    observed.stopped.insert(pod);
                }
                Ok(response) => {
                    observed.answered.insert(pod);
                    match (&mut observed.streams, &response.health) {
                        (Some(all), Some(health)) => all.extend(health.streams.iter().cloned()),
                        // Without them nothing is known of streams.
                        (streams, _) => *streams = None,
                    }
                    if memory.is_about(scope.upgrade) {
                        memory.learn(replica, since, response, now);
                    }
                }
                Err(error) => {
                    observed.unreachable.insert(pod, format!("{:#}", anyhow::Error::from(error)));
                    observed.streams = None;
                }
            }
        }
        for (revision, observed) in &mut all {
            observed.proxies = memory.proxies(revision);
            observed.health = memory.health(revision);
            observed.certificates = memory.certificates(revision);
        }
        let since = Timestamp::from_second(memory.since()).unwrap_or(scope.since);
        Observation { at, since, revisions: all }
    }

    /// What a revision gives, or would give, to proxies: of the first ready replica that says it.
    pub async fn render(
        &self,
        mesh: &Mesh<'_>,
        revision: &str,
        replicas: &[Replica],
    ) -> Result<Vec<RenderedGateway>, NotRendered> {
        let mut tried = Vec::new();
        for replica in replicas.iter().filter(|r| r.revision == revision && r.is_ready()) {
            match self.client.render(mesh, replica).await {
                Ok(response) => return Ok(response.gateways),
                Err(error) => tried.push(format!("{:#}", anyhow::Error::from(error))),
            }
        }
        Err(NotRendered { revision: revision.to_owned(), tried })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
