//! Which revision's proxy serves each node: a MeshNode for every Linux Node, and what is known from their statuses. Pure; [`read`] and
//! [`apply`] are the edges.
//!
//! A node changes hands by a higher epoch. At install the active revision has all of them; in an upgrade they follow in Bake, when all of
//! the gateways' connections go to the new revision, and go back with these.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{MeshNode, MeshNodeSpec, MeshRevision, UpgradePhase, UpgradeStatus, labels};

use crate::pods;

pub mod apply;
pub mod leave;
pub mod missing;
pub mod read;
#[cfg(test)]
mod tests;

/// So many are named in a sentence.
const NAMED: usize = 5;

/// A Node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its kubelet says that it is well.
    pub ready: bool,
    /// Since when that is so, or is not.
    pub since: Timestamp,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct There {
    /// Nodes that run Linux, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The MeshNodes of this mesh, by name, which is that of the Node.
    pub mesh_nodes: BTreeMap<String, MeshNode>,
}

/// Who is to serve the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server<'a> {
    /// The proxies of this revision.
    Revision(&'a str),
    /// Nobody: its release has no node proxies.
    Nobody,
    /// A revision that is not there, because it is about to be made, or somebody removed it. Nodes stay with whom they have.
    Absent,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A node that has no MeshNode yet.
    Create(String, MeshNodeSpec),
    /// Another revision's from now on.
    Give(MeshNode, MeshNodeSpec),
    /// Its Node is gone, or nobody is to serve it any more.
    Delete(MeshNode),
}

/// The revision that the nodes are to be with, by the position of the upgrade.
pub fn wanted<'a>(active: &'a str, position: Option<&'a UpgradeStatus>) -> &'a str {
    let Some(p) = position else { return active };
    match p.phase {
        UpgradePhase::Bake if p.measured_since.is_some() => &p.to,
        UpgradePhase::Promote | UpgradePhase::Drain | UpgradePhase::Retire => &p.to,
        _ => &p.from,
    }
}

/// Whether that revision can serve them.
pub fn server<'a>(revisions: &[MeshRevision], wanted: &'a str) -> Server<'a> {
    match revisions.iter().find(|r| r.name_any() == wanted) {
        Some(revision) if revision.spec.node_slot.is_some() => Server::Revision(wanted),
        Some(_) => Server::Nobody,
        None => Server::Absent,
    }
}

/// Node proxies, by node and revision.
#[derive(Debug)]
pub struct Proxies<'a>(BTreeMap<(&'a str, &'a str), &'a Pod>);

impl<'a> Proxies<'a> {
    /// Those among these pods that have a node and do not end.
    pub fn new(pods: &'a [Pod]) -> Self {
        let key = |pod: &'a Pod| {
            let node = pod.spec.as_ref()?.node_name.as_deref()?;
            let is_ours = pod.labels().get(labels::COMPONENT).is_some_and(|c| c == labels::COMPONENT_NODE);
            let stays = pod.metadata.deletion_timestamp.is_none();
            Some((node, pod.labels().get(labels::REVISION)?.as_str())).filter(|_| is_ours && stays)
        };
        Self(pods.iter().filter_map(|pod| Some((key(pod)?, pod))).collect())
    }

    /// The proxy of this revision on this node.
    pub fn get(&self, node: &str, revision: &str) -> Option<&'a Pod> {
        self.0.get(&(node, revision)).copied()
    }

    fn is_ready(&self, node: &str, revision: &str) -> bool {
        self.get(node, revision).is_some_and(pods::is_ready)
    }
}

impl There {
    fn is_served(&self, node: &str, revision: &str) -> bool {
        self.mesh_nodes.get(node).is_some_and(|m| m.spec.revision == revision && is_served(m))
    }

    fn ready(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter(|(_, node)| node.ready).map(|(name, _)| name.as_str())
    }
}

/// Whoever is to serve it does.
fn is_served(node: &MeshNode) -> bool {
    let MeshNodeSpec { revision, epoch } = &node.spec;
    node.status.as_ref().is_some_and(|s| s.revision == *revision && s.epoch == *epoch)
}

/// What there is to write. A node is given from one revision to another when the new proxy there is ready, or the old one is not: else nobody
/// would serve it for as long as the new one takes to start.
///
/// A first epoch is the time: what is left on a node by a mesh of the past, or by a MeshNode that was deleted, has lower ones.
pub fn assign(there: &There, proxies: &Proxies<'_>, server: Server<'_>, now: Timestamp) -> Vec<Change> {
    let is_needed = |name: &String| there.nodes.contains_key(name) && server != Server::Nobody;
    let stays = |name: &String, m: &MeshNode| is_needed(name) || m.metadata.deletion_timestamp.is_some();
    let gone = there.mesh_nodes.iter().filter(|(name, node)| !stays(name, node));
    let mut changes: Vec<Change> = gone.map(|(_, node)| Change::Delete(node.clone())).collect();
    let Server::Revision(wanted) = server else { return changes };
    for name in there.nodes.keys() {
        let Some(node) = there.mesh_nodes.get(name) else {
            let spec = MeshNodeSpec { revision: wanted.to_owned(), epoch: now.as_second() };
            changes.push(Change::Create(name.clone(), spec));
            continue;
        };
        let (spec, reported) = (&node.spec, node.status.as_ref().map_or(0, |s| s.epoch));
        let moves = spec.revision != wanted
            && (proxies.is_ready(name, wanted) || !proxies.is_ready(name, &spec.revision));
        // Somebody set an epoch back: agents would take it for an old one.
        let fell_back = reported > spec.epoch;
        if moves || fell_back {
            let revision = if moves { wanted.to_owned() } else { spec.revision.clone() };
            changes.push(Change::Give(
                node.clone(),
                MeshNodeSpec { revision, epoch: spec.epoch.max(reported).saturating_add(1) },
            ));
        }
    }
    changes
}

/// What is awaited until this revision serves all nodes that are ready.
pub fn awaited(there: &There, proxies: &Proxies<'_>, revision: &str) -> Option<String> {
    let late: Vec<String> = there
        .ready()
        .filter(|node| !there.is_served(node, revision))
        .map(|node| match proxies.is_ready(node, revision) {
            true => node.to_owned(),
            false => format!("{node} (its proxy is not ready)"),
        })
        .collect();
    let all = there.ready().count();
    (!late.is_empty())
        .then(|| format!("revision {revision} to serve {} more of {all} nodes: {}", late.len(), list(&late)))
}

/// What is awaited until no node that is ready is this revision's any more.
pub fn left(there: &There, revision: &str) -> Option<String> {
    let has = |m: &MeshNode| m.spec.revision == revision || names(m, revision);
    let is_left = |node: &&str| there.mesh_nodes.get(*node).is_some_and(has);
    let left: Vec<String> = there.ready().filter(is_left).map(str::to_owned).collect();
    (!left.is_empty()).then(|| format!("nodes to leave revision {revision}: {}", list(&left)))
}

/// What is awaited until no node is anybody's any more.
pub fn released(there: &There) -> Option<String> {
    let left: Vec<String> = there.mesh_nodes.keys().cloned().collect();
    (!left.is_empty()).then(|| format!("nodes to be let go of: {}", list(&left)))
}

/// Nodes that this revision serves, by their own word: those that are ready, and those that do not answer.
pub fn using(there: &There, revision: &str) -> (Vec<String>, Vec<String>) {
    let mut using = (Vec::new(), Vec::new());
    for (name, node) in &there.nodes {
        if there.mesh_nodes.get(name).is_some_and(|m| names(m, revision)) {
            let side = if node.ready { &mut using.0 } else { &mut using.1 };
            side.push(name.clone());
        }
    }
    using
}

/// A few of these names, for a sentence.
pub fn list(names: &[String]) -> String {
    let few = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

fn names(node: &MeshNode, revision: &str) -> bool {
    node.status.as_ref().is_some_and(|s| s.revision == revision)
}
