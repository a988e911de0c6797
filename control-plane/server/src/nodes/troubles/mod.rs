//! Tells the owners of pods, by Events on them, why they are not in the mesh although their labels say so. Of a node's pods the replica speaks
//! that its serving agent is connected to; the agent itself has no right to anything in the API.

mod told;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use meshwright_core::mesh::Node;
use meshwright_index::Output;
use meshwright_proto::nodes::NodeReport;
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::told::{Told, Trouble};
use super::captured::serves;
use super::followers::Followers;

/// How often it is looked.
const BEAT: Duration = Duration::from_secs(5);
/// An Event's note may have 1,024 bytes.
const NOTE: usize = 900;

/// Who tells.
pub struct Troubles {
    recorder: Recorder,
    followers: Followers,
    outputs: watch::Receiver<Option<Arc<Output>>>,
    told: Told,
}

impl Troubles {
    /// Speaks through the process's one recorder of what these agents report.
    pub fn new(
        recorder: Recorder,
        followers: Followers,
        outputs: watch::Receiver<Option<Arc<Output>>>,
    ) -> Self {
        Self { recorder, followers, outputs, told: Told::default() }
    }

    /// Runs until `drain` is cancelled.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                _ = beat.tick() => {}
            }
            let due = self.told.due(self.look(), Instant::now());
            for trouble in due {
                let is_told = tokio::select! {
                    () = drain.cancelled() => return,
                    is_told = self.tell(&trouble) => is_told,
                };
                self.told.tried(&trouble, is_told, Instant::now());
            }
        }
    }

    /// All troubles of the nodes whose agents are connected here.
    fn look(&self) -> Vec<Trouble> {
        let Some(output) = self.outputs.borrow().clone() else { return Vec::new() };
        let nodes = self.followers.nodes().into_iter();
        let of_node = |name: String| {
            let (_, report) = self.followers.report(&name)?;
            let node = output.mesh.nodes.get(&name).filter(|node| serves(node, &report))?;
            Some(troubles(node, &report))
        };
        nodes.filter_map(of_node).flatten().collect()
    }

    /// Returns whether the API server took it.
    async fn tell(&self, trouble: &Trouble) -> bool {
        let event = Event {
            type_: EventType::Warning,
            reason: trouble.reason.to_owned(),
            note: Some(trouble.note.chars().take(NOTE).collect()),
            action: "JoinMesh".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(trouble.pod.name.clone()),
            namespace: Some(trouble.pod.namespace.clone()),
            uid: Some(trouble.uid.clone()),
            ..ObjectReference::default()
        };
        let published = self.recorder.publish(&event, &reference).await;
        if let Err(error) = &published {
            tracing::debug!(%error, pod = %trouble.pod, "could not publish event");
        }
        published.is_ok()
    }
}

fn troubles(node: &Node, report: &NodeReport) -> Vec<Trouble> {
    let refused = node.refused.iter().map(|(uid, refused)| Trouble {
        uid: uid.clone(),
        pod: refused.pod.clone(),
        reason: told::REFUSED,
        note: format!("not in the mesh: {}", refused.why),
    });
    let awaited = report.awaiting.iter().filter_map(|(uid, why)| {
        let pod = node.members.get(uid)?.pod.clone();
        let note = format!("not in the mesh yet: {why}");
        Some(Trouble { uid: uid.clone(), pod, reason: told::AWAITED, note })
    });
    refused.chain(awaited).collect()
}

#[cfg(test)]
mod tests;
