//! Pods of a mesh, counted by what they run.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::labels;

use crate::{apply::Error, context::Context};

/// Pods of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// Pods of the control plane, ending ones included.
    pub control_plane: i32,
    /// Ready ones of them.
    pub control_plane_ready: i32,
    /// Gateway proxies, ending ones included: they still serve.
    pub proxies: i32,
    /// Ready ones of them.
    pub proxies_ready: i32,
    /// Secrets that pods of the control plane mount.
    pub mounted: BTreeSet<String>,
}

/// Counts the pods of a mesh by revision, in all namespaces.
pub async fn count(ctx: &Context, namespace: &str, mesh: &str) -> Result<BTreeMap<String, Count>, Error> {
    let api: Api<Pod> = Api::all(ctx.client.clone());
    let selector = format!(
        "{}={},{}={mesh},{}={namespace}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::MESH_NAME,
        labels::MESH_NAMESPACE
    );
    let list = api.list(&ListParams::default().labels(&selector)).await;
    let list = list.map_err(Error::request("list", format!("pods of mesh {mesh}")))?;
    Ok(tally(&list.items))
}

/// Counts these pods by revision.
pub fn tally(pods: &[Pod]) -> BTreeMap<String, Count> {
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
            Some(labels::COMPONENT_GATEWAY) => {
                count.proxies += 1;
                count.proxies_ready += ready;
            }
            _ => {}
        }
    }
    counts
}

// Evicted and finished pods stay as objects and run nothing.
fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn mounted(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| v.secret.as_ref()?.secret_name.clone())
}
