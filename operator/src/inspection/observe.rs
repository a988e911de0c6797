//! Asks every replica of every revision and puts together what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use meshwright_decisions::health::ReplicaHealth;
use meshwright_proto::inspection::RenderedGateway;

use super::{
    client::{Client, Mesh},
    memory::{Certificates, Memory, ProxyKey, SeenProxy},
    pairs::Told,
    replica::{Replica, State},
};

/// Pairs are told in slots of thirty seconds: asked after so many there is seldom anything new.
const PAIRS_AGE: SignedDuration = SignedDuration::from_secs(10);

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The same for the whole of an upgrade, and another one for the next: then nothing is known any more.
    pub upgrade: &'a str,
    /// Traffic before this is not needed any more. Nothing older than an hour can be had.
    pub since: Timestamp,
}

/// Nodes whose pairs are to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairScope {
    /// Their names.
    pub nodes: BTreeSet<String>,
    /// Slots before this are not needed; Unix seconds.
    pub since: i64,
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
    pairs: Mutex<Option<Heard>>,
}

/// What was said of pairs, to which question and when.
#[derive(Debug)]
struct Heard {
    scope: PairScope,
    at: Timestamp,
    told: Arc<Told>,
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

    /// Asks all replicas that run for what nodes reported; not more often than there is something new.
    pub async fn observe_pairs(
        &self,
        mesh: &Mesh<'_>,
        scope: PairScope,
        revisions: &[&str],
        replicas: &[Replica],
        at: Timestamp,
    ) -> Arc<Told> {
        if let Some(heard) = self.heard().as_ref()
            && heard.scope == scope
            && heard.told.unheard.is_empty()
            && at.duration_since(heard.at) < PAIRS_AGE
        {
            return heard.told.clone();
        }
        let is_asked = |r: &&Replica| r.state != State::Stopped && revisions.contains(&r.revision.as_str());
        let asked: Vec<_> = replicas.iter().filter(is_asked).collect();
        let answers = asked.iter().map(|r| self.client.observe_pairs(mesh, r, scope.since, &scope.nodes));
        let mut told = Told::default();
        for (replica, answer) in asked.iter().zip(join_all(answers).await) {
            match answer {
                Ok(nodes) => told.add(&replica.revision, nodes),
                Err(error) => {
                    told.unheard.insert(replica.pod.clone(), format!("{:#}", anyhow::Error::from(error)));
                }
            }
        }
        let told = Arc::new(told);
        *self.heard() = Some(Heard { scope, at, told: told.clone() });
        told
    }

    /// Lets go of what was said of pairs: up to some megabytes that nobody needs any more.
    pub fn forget_pairs(&self) {
        *self.heard() = None;
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

    fn heard(&self) -> MutexGuard<'_, Option<Heard>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
