//! Which revision's proxy serves each node: a MeshNode for every Linux Node, and what is known from their statuses. Pure; [`read`] and
//! [`apply`] are the edges.
//!
//! A node changes hands by a higher epoch. At install the active revision has all of them; in an upgrade they follow in [`waves`] after the
//! last step of the gateways, or all at once in Bake where there is nothing to measure them against, and go back with the gateways.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{MeshNode, MeshNodeSpec, MeshRevision, UpgradePhase, UpgradeStatus, labels};

use self::waves::{Between, Wave};
use crate::pods;

pub mod apply;
pub mod leave;
pub mod missing;
pub mod moved;
pub mod read;
#[cfg(test)]
mod tests;
pub mod waves;

/// So many are named in a sentence.
const NAMED: usize = 5;

/// A Node, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its kubelet says that it is well.
    pub ready: bool,
    /// Since when that is so, or is not.
    pub since: Timestamp,
    /// It is one of the nodes of Kubernetes' own control plane.
    pub control_plane: bool,
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
    /// Those of two revisions, node by node.
    Wave(Wave<'a>),
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

/// With whom the nodes are to be, by the position of the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// All with this revision.
    All(&'a str),
    /// Some with the one, the others with the other.
    Wave(Wave<'a>),
}

/// Reads it off the position.
pub fn wanted<'a>(active: &'a str, position: Option<&'a UpgradeStatus>) -> Wanted<'a> {
    let Some(p) = position else { return Wanted::All(active) };
    match p.phase {
        UpgradePhase::ShiftNodes => Wanted::Wave(Wave::of(p)),
        UpgradePhase::Bake if p.measured_since.is_some() => Wanted::All(&p.to),
        // What went over in waves stays there while the gateways follow.
        UpgradePhase::Bake if p.nodes.as_ref().is_some_and(|n| n.canary.is_some()) => {
            Wanted::Wave(Wave::of(p))
        }
        UpgradePhase::Promote | UpgradePhase::Drain | UpgradePhase::Retire => Wanted::All(&p.to),
        _ => Wanted::All(&p.from),
    }
}

/// Whether those revisions can serve them.
pub fn server<'a>(revisions: &[MeshRevision], wanted: Wanted<'a>) -> Server<'a> {
    let of = |name: &'a str| match revisions.iter().find(|r| r.name_any() == name) {
        Some(revision) if revision.spec.node_slot.is_some() => Server::Revision(name),
        Some(_) => Server::Nobody,
        None => Server::Absent,
    };
    match wanted {
        Wanted::All(revision) => of(revision),
        Wanted::Wave(wave) => match (of(wave.from), of(wave.to)) {
            (Server::Revision(_), Server::Revision(_)) => Server::Wave(wave),
            (from, _) => from,
        },
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

    /// Names of nodes, and what they wait for before they can be given.
    fn late_ones(&self, proxies: &Proxies<'_>, revision: &str, nodes: &[&str]) -> Vec<String> {
        let say = |node: &&str| match self.lacks(node, revision) {
            _ if !proxies.is_ready(node, revision) => format!("{node} (its proxy is not ready)"),
            Some(why) if !self.is_given(node, revision) => format!("{node} ({why})"),
            _ => (*node).to_owned(),
        };
        nodes.iter().map(say).collect()
    }

    fn is_given(&self, node: &str, revision: &str) -> bool {
        self.mesh_nodes.get(node).is_some_and(|m| m.spec.revision == revision)
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
/// An epoch is the time at which the node was given: what is left on a node by a mesh of the past, or by a MeshNode that was deleted, has lower
/// ones, and [`moved`] reads it.
pub fn assign(there: &There, proxies: &Proxies<'_>, server: Server<'_>, now: Timestamp) -> Vec<Change> {
    let is_needed = |name: &String| there.nodes.contains_key(name) && server != Server::Nobody;
    let stays = |name: &String, m: &MeshNode| is_needed(name) || m.metadata.deletion_timestamp.is_some();
    let gone = there.mesh_nodes.iter().filter(|(name, node)| !stays(name, node));
    let mut changes: Vec<Change> = gone.map(|(_, node)| Change::Delete(node.clone())).collect();
    let targets = match server {
        Server::Revision(wanted) => there.nodes.keys().map(|node| (node.as_str(), wanted)).collect(),
        Server::Wave(wave) => wave.targets(there, proxies),
        Server::Nobody | Server::Absent => return changes,
    };
    for (name, wanted) in targets {
        let Some(node) = there.mesh_nodes.get(name) else {
            let spec = MeshNodeSpec { revision: wanted.to_owned(), epoch: now.as_second() };
            changes.push(Change::Create(name.to_owned(), spec));
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
                MeshNodeSpec {
                    revision,
                    epoch: spec.epoch.max(reported).saturating_add(1).max(now.as_second()),
                },
            ));
        }
    }
    changes
}

/// What is awaited until the new one of these revisions serves all nodes that can be waited for.
pub fn awaited(there: &There, proxies: &Proxies<'_>, between: Between<'_>) -> Option<String> {
    let able: Vec<&str> = between.able(there, proxies).collect();
    let late: Vec<&str> = able.iter().copied().filter(|node| !there.is_served(node, between.to)).collect();
    let (late, all) = (there.late_ones(proxies, between.to, &late), able.len());
    (!late.is_empty()).then(|| {
        format!("revision {} to serve {} more of {all} nodes: {}", between.to, late.len(), list(&late))
    })
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
