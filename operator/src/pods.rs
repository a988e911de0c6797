//! Pods of a mesh, counted by what they run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::labels;

use crate::{apply::Error, context::Context};

#[cfg(test)]
mod tests;

/// So long after its time a pod has no longer just not ended yet.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// Pods of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Pods of the control plane, ending ones included.
    pub control_plane: i32,
    /// Ready ones of them.
    pub control_plane_ready: i32,
    /// Gateway proxies, ending ones included: they still serve.
    pub proxies: i32,
    /// Gateway proxies that should have ended long ago: nobody can say whether they serve.
    pub lost: BTreeSet<String>,
    /// Ready ones of them.
    pub proxies_ready: i32,
    /// Secrets that pods of the control plane mount.
    pub mounted: BTreeSet<String>,
}

/// The pods of meshes, in all namespaces; without those that are over. Of every mesh: one that was deleted may still have ports of nodes.
pub async fn list(ctx: &Context) -> Result<Vec<Pod>, Error> {
    let api: Api<Pod> = Api::all(ctx.client.clone());
    let selector = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
    let list = api.list(&ListParams::default().labels(&selector)).await;
    let list = list.map_err(Error::request("list", "pods of meshes"))?;
    Ok(list.items.into_iter().filter(|p| !is_over(p)).collect())
}

/// Counts these pods by revision.
pub fn tally(pods: &[Pod], now: Timestamp) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::<String, Count>::new();
    for pod in pods.iter().filter(|p| !is_over(p)) {
        let Some(revision) = pod.labels().get(labels::REVISION) else { continue };
        let count = counts.entry(revision.clone()).or_default();
        let ready = i32::from(is_ready(pod));
        match pod.labels().get(labels::COMPONENT).map(String::as_str) {
            Some(labels::COMPONENT_CONTROL_PLANE) => {
                count.control_plane += 1;
                count.control_plane_ready += ready;
                count.mounted.extend(mounted(pod));
            }
            Some(labels::COMPONENT_GATEWAY) if is_overdue(pod, now) => {
                count.lost.insert(format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()));
            }
            Some(labels::COMPONENT_GATEWAY) => {
                count.proxies += 1;
                count.proxies_ready += ready;
            }
            _ => {}
        }
    }
    counts
}

/// Evicted and finished pods stay as objects and run nothing.
pub fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"))
}

/// It should have ended long ago. The time of its deletion is that of its end, grace included; only a node that does not answer makes it
/// later.
pub fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    pod.metadata.deletion_timestamp.as_ref().is_some_and(|end| now.duration_since(end.0) >= OVERDUE)
}

/// It has said so itself.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn mounted(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.secret.as_ref()?.secret_name.clone())
}

/// Whether a pod is this component of the revision.
pub fn is_of(pod: &Pod, revision: &str, component: &str) -> bool {
    let is = |label: &str, value: &str| pod.labels().get(label).map(String::as_str) == Some(value);
    is(labels::REVISION, revision) && is(labels::COMPONENT, component)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

/// How often containers of these pods ended by themselves after this moment; of a pod that is older only the last two times are known.
pub fn restarts<'a>(pods: impl Iterator<Item = &'a Pod>, after: Timestamp) -> i32 {
    let of_container = |c: &ContainerStatus, is_young: bool| {
        let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let now = c.state.as_ref().and_then(|s| s.terminated.as_ref());
        let ended = |t: &&ContainerStateTerminated| t.finished_at.as_ref().is_some_and(|t| t.0 >= after);
        let Some(end) = now.filter(ended).or(last.filter(ended)) else { return 0 };
        // It had started because the one before it had just ended.
        let again = end.started_at.as_ref().is_some_and(|t| t.0 >= after);
        if is_young { c.restart_count.max(1) } else { c.restart_count.clamp(1, if again { 2 } else { 1 }) }
    };
    let of_pod = |pod: &'a Pod| {
        let is_young = pod.metadata.creation_timestamp.as_ref().is_some_and(|t| t.0 >= after);
        containers(pod).map(move |c| of_container(c, is_young))
    };
    pods.flat_map(of_pod).sum()
}

/// A container of it runs or has run, so that its image was there.
pub fn has_run(pod: &Pod) -> bool {
    let ran = |c: &ContainerStatus| {
        c.restart_count > 0 || c.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
    };
    containers(pod).any(ran)
}

/// For how long a pod has run without ever having been ready; none where it does not run, or was ready before.
pub fn never_ready_for(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let running = containers(pod).find_map(|c| c.state.as_ref()?.running.as_ref()?.started_at.clone())?.0;
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready" && c.status != "True")?;
    // It turns False when the pod is made, and only a pod that was ready turns again.
    let turned = ready.last_transition_time.as_ref().map_or(running, |t| t.0);
    let restarted = containers(pod).any(|c| c.restart_count > 0);
    if restarted || turned > running { None } else { Duration::try_from(now.duration_since(running)).ok() }
}

/// Why a container does not run, in the kubelet's words: reason and message.
pub fn waiting(pod: &Pod) -> Option<(String, String)> {
    let waits = |c: &ContainerStatus| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting
            .reason
            .clone()
            .filter(|r| !matches!(r.as_str(), "ContainerCreating" | "PodInitializing"))?;
        // What it said last tells more than how long the kubelet waits.
        let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.message.clone());
        let message = last.or_else(|| waiting.message.clone()).unwrap_or_default();
        Some((reason, message.lines().last().unwrap_or_default().trim().to_owned()))
    };
    containers(pod).find_map(waits)
}

/// Why it has no node, in the scheduler's words.
pub fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut refused = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    refused.find_map(|c| c.message.clone())
}
