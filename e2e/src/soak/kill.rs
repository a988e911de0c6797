//! Signals to the processes of a pod's containers. Deletion without grace is not enough: kubelet sends SIGTERM first,
//! and the pod leaves its Services at once.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use kube::{Client, ResourceExt};
use rustix::process::{Signal, kill_process};

use crate::testing::{DEADLINE, Env, eventually, processes};

/// Sends the signal to every process of the pod's containers; gives their number.
///
/// # Errors
/// When the pod runs nothing.
pub fn signal(pod: &Pod, signal: Signal) -> Result<usize> {
    let sent = processes(pod, None)?.into_iter().filter(|pid| kill_process(*pid, signal).is_ok()).count();
    ensure!(sent > 0, "pod {} runs no process that could get a signal", pod.name_any());
    Ok(sent)
}

/// Kills it for good: SIGKILL, then the object goes too, so that its next incarnation is a new pod that starts at once;
/// a container that is killed again and again waits for minutes before kubelet starts it.
///
/// # Errors
/// When it runs nothing or cannot be deleted.
pub async fn kill(client: &Client, pod: &Pod) -> Result<()> {
    signal(pod, Signal::KILL)?;
    delete(client, pod).await
}

/// Deletes the pod without grace.
///
/// # Errors
/// When the API server refuses it.
pub async fn delete(client: &Client, pod: &Pod) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    match api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).with_context(|| format!("delete pod {}", pod.name_any())),
    }
}

/// The pods with these labels that are not ending.
///
/// # Errors
/// When there is none.
pub async fn pods(env: &Env, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await?;
    let pods: Vec<Pod> = list.items.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect();
    ensure!(!pods.is_empty(), "no pod {selector} in {namespace}");
    Ok(pods)
}

/// Waits until this many pods are Ready without those that are gone.
///
/// # Errors
/// After the deadline.
pub async fn replaced(env: &Env, namespace: &str, selector: &str, gone: &[Pod], wanted: usize) -> Result<()> {
    let gone: BTreeSet<_> = gone.iter().filter_map(|p| p.metadata.uid.clone()).collect();
    eventually(&format!("new pods {selector} in {namespace}"), DEADLINE, || async {
        let now = pods(env, namespace, selector).await.map_err(|e| format!("{e:#}"))?;
        let new = now.iter().filter(|p| p.metadata.uid.as_ref().is_some_and(|uid| !gone.contains(uid)));
        let ready = new.filter(|p| is_ready(p)).count();
        if ready >= wanted { Ok(()) } else { Err(format!("{ready} of {wanted} are ready")) }
    })
    .await
}

/// Replaces pods whose containers were started before: the next start of such a container may be put off for minutes.
///
/// # Errors
/// When they do not come back.
pub async fn fresh(env: &Env, namespace: &str, selector: &str) -> Result<()> {
    let all = pods(env, namespace, selector).await?;
    for pod in all.iter().filter(|pod| restarts(pod) > 0) {
        delete(&env.client, pod).await?;
        replaced(env, namespace, selector, std::slice::from_ref(pod), all.len()).await?;
    }
    Ok(())
}

/// How often the pod's containers were started again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref());
    statuses.unwrap_or_default().iter().map(|s| s.restart_count).sum()
}

/// Whether it gets traffic.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
