//! Nodes without a proxy that serves them: what a person must look at. Pure.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    MeshNode, MeshRevision,
    conditions::{DEGRADED, Finding, reason},
    names,
};

use super::{Node, Proxies, Server, There, list};
use crate::upgrade::machine::PATIENCE;

/// Level of Pod Security at which node proxies may run, and how a namespace says it.
const PRIVILEGED: &str = "privileged";
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// The level at which a namespace with these labels refuses node proxies. Without the label the cluster's own default holds, which nobody
/// can ask for.
pub fn forbidding(labels: &std::collections::BTreeMap<String, String>) -> Option<String> {
    labels.get(ENFORCE).filter(|level| *level != PRIVILEGED).cloned()
}

/// What is wrong at that level.
pub fn refused(namespace: &str, level: &str) -> String {
    format!(
        "namespace {namespace} enforces Pod Security level {level}; node proxies enter the pods' network namespaces, which needs level {PRIVILEGED}"
    )
}

/// The way out.
pub fn remedy(namespace: &str) -> String {
    format!("kubectl label namespace {namespace} {ENFORCE}={PRIVILEGED} --overwrite")
}

/// What is looked at.
#[derive(Debug)]
pub struct Sight<'a> {
    /// Nodes and MeshNodes.
    pub there: &'a There,
    /// Node proxies.
    pub proxies: Proxies<'a>,
    /// All revisions.
    pub revisions: &'a [MeshRevision],
    /// Namespace of the mesh.
    pub namespace: &'a str,
    /// Level of Pod Security that refuses them.
    pub forbidden: Option<&'a str>,
}

/// What is missing, for condition Degraded, and when there may be more to say.
pub fn finding(sight: &Sight<'_>, server: Server<'_>, now: Timestamp) -> (Option<Finding>, Option<Duration>) {
    let (revision, other) = match server {
        Server::Revision(revision) => (revision, None),
        Server::Wave(wave) => (wave.from, Some(wave.to)),
        Server::Nobody | Server::Absent => return (None, None),
    };
    let degraded = |reason, message| Some(Finding::new(DEGRADED, Some(true), reason, message));
    let namespace = sight.namespace;
    if let Some(level) = sight.forbidden {
        let message = format!("{}: {}", refused(namespace, level), remedy(namespace));
        // Labels of namespaces are not watched.
        return (degraded(reason::POD_SECURITY, message), Some(PATIENCE / 4));
    }
    let (mut missing, mut soonest) = (Vec::new(), None);
    for (name, node) in sight.there.nodes.iter().filter(|(_, node)| node.ready) {
        // In a wave either may be who is to serve it.
        let has_other = other.filter(|other| sight.there.is_given(name, other));
        let Some(since) = without_since(sight, (name, node), has_other.unwrap_or(revision)) else { continue };
        let time = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        match PATIENCE.checked_sub(time).filter(|left| !left.is_zero()) {
            Some(left) => soonest = Some(soonest.map_or(left, |s: Duration| s.min(left))),
            None => missing.push(name.clone()),
        }
    }
    if missing.is_empty() {
        return (None, soonest);
    }
    let all = sight.there.ready().count();
    let message = format!(
        "{} of {all} nodes have no node proxy that serves them: {}; kubectl -n {namespace} describe daemonset {}",
        missing.len(),
        list(&missing),
        names::node_resources(revision)
    );
    (degraded(reason::NODE_PROXIES_MISSING, message), soonest)
}

/// Since when a node has been without; none where all is well.
fn without_since(sight: &Sight<'_>, (name, node): (&str, &Node), revision: &str) -> Option<Timestamp> {
    let pod = sight.proxies.get(name, revision);
    let mesh_node = sight.there.mesh_nodes.get(name);
    if sight.there.is_served(name, revision) && pod.is_some_and(crate::pods::is_ready) {
        return None;
    }
    let made = sight.revisions.iter().find(|r| r.name_any() == revision).and_then(|r| r.creation_timestamp());
    let times = [Some(node.since), made.map(|t| t.0), mesh_node.and_then(given), pod.and_then(turned)];
    times.into_iter().flatten().max()
}

/// When a MeshNode was given to whom it is with: the API server keeps it.
fn given(node: &MeshNode) -> Option<Timestamp> {
    let specs =
        node.managed_fields().iter().filter(|f| f.subresource.as_deref().unwrap_or_default().is_empty());
    let times = specs.filter_map(|f| f.time.as_ref());
    times.chain(&node.metadata.creation_timestamp).map(|t| t.0).max()
}

/// When a pod became ready, or ceased to be.
fn turned(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    let turned = ready.and_then(|c| c.last_transition_time.as_ref());
    turned.or(pod.metadata.creation_timestamp.as_ref()).map(|t| t.0)
}
