//! The operator's own requests through the gateway pods of both revisions, alike, while a step is measured: so that there
//! are samples without users, and so that a pod which refuses connections, and counts nothing itself, is noticed.
//!
//! The proxies count what they answer. Counted here is what came of each request, so that the operator's own can be told from
//! users', and what no proxy could count: requests without an answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use meshwright_decisions::analysis::{ProbeSlot, SLOT_SECONDS};
use tokio::{
    task::{AbortHandle, JoinHandle},
    time::{Instant, MissedTickBehavior},
};

mod connection;
mod target;
#[cfg(test)]
mod tests;

use connection::Connections;
pub use target::{Ask, InvalidProbe, Target, targets};

/// Between two requests to a pod.
const PERIOD: Duration = Duration::from_millis(200);
/// Longest time for a request with its answer, and a connection if it needs one.
const DEADLINE: Duration = Duration::from_secs(5);
/// Requests under way to a pod: as many as begin within the deadline. A pod that hangs must not get fewer than one that
/// answers.
const CONCURRENT: usize = 25;
/// Without being aimed again, requests end: whoever measured does not any more.
const ABANDONED: Duration = Duration::from_secs(60);
/// As long as control planes remember reports.
const REMEMBERED: i64 = 3600;

/// What a pod made of the operator's own requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Its revision.
    pub revision: String,
    /// Namespace of the pod, and of its Gateway.
    pub namespace: String,
    /// Name of the Gateway.
    pub gateway: String,
    /// Name of the pod.
    pub pod: String,
    /// When it was aimed at for the first time, ready; Unix seconds.
    pub since: i64,
    /// It has answered some request.
    pub answers: bool,
    /// What came of them, by the start of the slot in which they began: slots like those of the reports.
    pub slots: BTreeMap<i64, ProbeSlot>,
}

/// Sends requests in the background.
#[derive(Debug, Default)]
pub struct Prober(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    aimed: Instant,
    running: HashMap<Target, Running>,
    /// By revision, namespace and pod.
    probed: BTreeMap<(String, String, String), Probed>,
}

/// Ends with its handle.
#[derive(Debug)]
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl From<JoinHandle<()>> for Running {
    fn from(task: JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Default for State {
    fn default() -> Self {
        Self { aimed: Instant::now(), running: HashMap::new(), probed: BTreeMap::new() }
    }
}

impl Prober {
    /// Sends requests to these and to nobody else, until the next call or for a minute.
    pub fn aim(&self, targets: BTreeSet<Target>) {
        let now = Timestamp::now().as_second();
        let mut state = self.0.state();
        state.aimed = Instant::now();
        state.running.retain(|target, running| targets.contains(target) && !running.0.is_finished());
        for target in targets {
            state.expect(&target, now);
            let shared = &self.0;
            state
                .running
                .entry(target.clone())
                .or_insert_with(|| tokio::spawn(run(target, shared.clone())).into());
        }
        state.forget(now - REMEMBERED);
    }

    /// What the pods made of the requests of the last hour.
    pub fn probed(&self) -> Vec<Probed> {
        self.0.state().probed.values().cloned().collect()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_abandoned(&self) -> bool {
        self.state().aimed.elapsed() >= ABANDONED
    }
}

impl State {
    fn expect(&mut self, target: &Target, now: i64) {
        self.probed.entry(target.key()).or_insert_with(|| Probed {
            revision: target.revision.clone(),
            namespace: target.namespace.clone(),
            gateway: target.gateway.clone(),
            pod: target.pod.clone(),
            since: now,
            answers: false,
            slots: BTreeMap::new(),
        });
    }

    fn count(&mut self, target: &Target, (began, builtin): (i64, bool), answered: bool) {
        let Some(probed) = self.probed.get_mut(&target.key()) else { return };
        probed.answers |= answered;
        let start = began - began.rem_euclid(SLOT_SECONDS);
        let slot = probed.slots.entry(start).or_insert(ProbeSlot { start, ..ProbeSlot::default() });
        slot.sent += 1;
        slot.unanswered += u64::from(!answered);
        slot.unrouted += u64::from(answered && builtin);
    }

    fn forget(&mut self, before: i64) {
        let running: BTreeSet<_> = self.running.keys().map(Target::key).collect();
        self.probed.retain(|key, probed| {
            probed.slots = probed.slots.split_off(&before);
            !probed.slots.is_empty() || running.contains(key)
        });
    }
}

async fn run(target: Target, shared: Arc<Shared>) {
    let connections = Connections::new(target.address);
    let mut asks = target.asks.iter().cycle();
    let mut under_way = FuturesUnordered::new();
    let mut tick = tokio::time::interval(PERIOD);
    // A busy operator must not send in bursts what it missed.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if shared.is_abandoned() {
                    return;
                }
                // None if there is nothing to ask for; then there is nothing to do either.
                let Some(ask) = asks.next() else { return };
                if under_way.len() < CONCURRENT {
                    let began = (Timestamp::now().as_second(), ask.is_builtin());
                    let request = connections.answers(ask);
                    under_way.push(async move {
                        (began, matches!(tokio::time::timeout(DEADLINE, request).await, Ok(true)))
                    });
                }
            }
            Some((began, answered)) = under_way.next() => shared.state().count(&target, began, answered),
        }
    }
}
