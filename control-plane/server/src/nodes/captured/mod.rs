//! Writes down which pods take mutual TLS: what the agents that are connected here reported, in the status of their nodes' MeshNodes. When
//! an agent goes nothing is written: its pods go on, and its next stream says what has changed.

mod status;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use meshwright_core::difference;
use meshwright_core::mesh::Mesh;
use meshwright_index::Output;
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::status::Said;
pub(super) use self::status::serves;
use self::write::{Context, Error, Written, write};
use super::followers::Followers;
use crate::metrics::{Metrics, count};
use crate::snapshots::until;

/// Writes under way at once.
const CONCURRENCY: usize = 16;
/// What failed is tried again this often, and what others have changed is put right.
const SWEEP: Duration = Duration::from_secs(10);
/// Least time between two writes for one node: pods come in bursts, and each write goes to every proxy of the mesh.
const SPACING: Duration = Duration::from_millis(200);
/// Sweeps after which each object is read again, whatever our watch says of it.
const READ_AGAIN: u32 = 30;

/// What came over this stream.
type Over = (u64, Said);

/// The writer.
pub struct Captured {
    context: Context,
    outputs: watch::Receiver<Option<Arc<Output>>>,
    metrics: Metrics,
    mesh: Option<Arc<Mesh>>,
    /// What the objects say, as far as we know.
    written: BTreeMap<String, Over>,
    queue: BTreeSet<String>,
    running: BTreeSet<String>,
    /// Nodes that were written a moment ago, and until when they rest.
    resting: BTreeMap<String, Instant>,
    jobs: JoinSet<(String, Over, Result<Written, Error>)>,
}

impl Captured {
    /// Writes into this namespace what these agents report.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        followers: Followers,
        outputs: watch::Receiver<Option<Arc<Output>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            context: Context { nodes: Api::namespaced(client, namespace), followers },
            outputs,
            metrics,
            mesh: None,
            written: BTreeMap::new(),
            queue: BTreeSet::new(),
            running: BTreeSet::new(),
            resting: BTreeMap::new(),
            jobs: JoinSet::new(),
        }
    }

    /// Runs until `drain` is cancelled.
    pub async fn run(mut self, drain: CancellationToken) {
        let followers = self.context.followers.clone();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweeps = 0;
        self.take_output();
        loop {
            let rested = self.resting.values().min().copied();
            tokio::select! {
                () = drain.cancelled() => return,
                () = until(rested) => self.resting.retain(|_, until| *until > Instant::now()),
                () = followers.changed() => self.queue.extend(followers.take_touched()),
                changed = self.outputs.changed() => match changed {
                    Ok(()) => self.take_output(),
                    Err(_) => return,
                },
                Some(done) = self.jobs.join_next() => self.finish(done),
                _ = sweep.tick() => {
                    sweeps = (sweeps + 1) % READ_AGAIN;
                    self.sweep(sweeps == 0);
                }
            }
            self.start();
        }
    }

    fn take_output(&mut self) {
        let Some(output) = self.outputs.borrow_and_update().clone() else { return };
        let known = self.mesh.replace(output.mesh.clone()).unwrap_or_default();
        self.queue.extend(difference(&known.nodes, &output.mesh.nodes, Arc::ptr_eq).cloned());
    }

    fn sweep(&mut self, read_again: bool) {
        let Some(mesh) = &self.mesh else { return };
        self.written.retain(|node, (_, said)| !read_again && status::is_seen(mesh, node, said));
        self.queue.extend(self.context.followers.nodes());
    }

    /// Starts what is due.
    fn start(&mut self) {
        let Some(mesh) = self.mesh.clone() else { return };
        let is_free = |node: &&String| !self.running.contains(*node) && !self.resting.contains_key(*node);
        let due: Vec<_> = self.queue.iter().filter(is_free).cloned().collect();
        for node in due {
            if self.jobs.len() >= CONCURRENCY {
                return;
            }
            self.queue.remove(&node);
            let report = self.context.followers.report(&node);
            let said =
                report.and_then(|(stream, report)| Some((stream, status::said(&mesh, &node, &report)?)));
            let Some(said) = said else {
                // Whoever serves the node writes there now.
                self.written.remove(&node);
                continue;
            };
            if self.written.get(&node) == Some(&said) {
                continue;
            }
            self.running.insert(node.clone());
            let context = self.context.clone();
            self.jobs.spawn(async move {
                let result = write(&context, &node, said.0, &said.1).await;
                (node, said, result)
            });
        }
    }

    fn finish(&mut self, done: Result<(String, Over, Result<Written, Error>), JoinError>) {
        let (node, said, result) = match done {
            Ok(done) => done,
            Err(error) => {
                // Its node is not known any more: let nothing stay marked as running for ever.
                tracing::error!(%error, "write of a MeshNode ended unexpectedly");
                self.running.clear();
                return;
            }
        };
        self.running.remove(&node);
        let writes = &self.metrics.nodes.status_writes;
        match result {
            Ok(Written::Done) => {
                count(writes, "written");
                match &said.1 {
                    Said::Serves(status) => {
                        let pods = status.pods.len();
                        tracing::info!(node, epoch = status.epoch, pods, "captured pods written");
                    }
                    Said::StandsBy(standby) => {
                        tracing::info!(node, waiting = standby.waiting, "what stands by written");
                    }
                }
                self.resting.insert(node.clone(), Instant::now() + SPACING);
                self.written.insert(node, said);
            }
            Ok(Written::Unchanged) => {
                self.written.insert(node, said);
            }
            Ok(Written::NotOurs) => count(writes, "skipped"),
            Err(error) => {
                count(writes, "failed");
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(node, %error, cause, "could not write MeshNode, the next sweep tries again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
