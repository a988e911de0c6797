//! Node by node from one revision to the next: which node goes when, and which are not waited for. Pure.
//!
//! How many nodes are to be with the new revision is on record; which ones are is what the MeshNodes say. A node that has gone over stays there
//! as long as the upgrade does not go back, so nodes that come and go in the meantime move no other.

use std::collections::BTreeMap;

use meshwright_api::{PassedOver, UpgradeStatus, names};

use super::{Proxies, There, list};
use crate::{pods, upgrade::machine};

/// So many are told of in the status.
const TOLD: usize = 20;

/// From one revision to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between<'a> {
    /// The old revision, where that has node proxies.
    pub from: Option<&'a str>,
    /// The new one.
    pub to: &'a str,
}

/// What a wave asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wave<'a> {
    /// The old revision.
    pub from: &'a str,
    /// The new one.
    pub to: &'a str,
    /// The node that goes first.
    canary: Option<&'a str>,
    /// How many nodes are to be with the new one; none is all of them.
    asked: Option<usize>,
    /// Nodes may still go over: what is measured is left as it is.
    moves: bool,
}

impl<'a> Wave<'a> {
    /// By the record.
    pub fn of(p: &'a UpgradeStatus) -> Self {
        let nodes = p.nodes.as_ref();
        let asked = nodes.map_or(Some(0), |n| n.asked).map(|n| usize::try_from(n).unwrap_or(0));
        Self {
            from: &p.from,
            to: &p.to,
            canary: nodes.and_then(|n| n.canary.as_deref()),
            asked,
            moves: p.measured_since.is_none() || asked.is_none(),
        }
    }

    fn between(&self) -> Between<'a> {
        Between { from: Some(self.from), to: self.to }
    }

    /// With whom each node is to be.
    pub fn targets<'n>(&self, there: &'n There, proxies: &Proxies<'_>) -> BTreeMap<&'n str, &'a str>
    where
        'a: 'n,
    {
        let has = |node: &str| there.mesh_nodes.get(node).is_some_and(|m| m.spec.revision == self.to);
        // A node that answers no more is none of those that were asked for, and another one may go in its place.
        let with = self.between().able(there, proxies).filter(|node| has(node)).count();
        let mut left = match self.asked {
            Some(asked) if self.moves => asked.saturating_sub(with),
            Some(_) => 0,
            None => usize::MAX,
        };
        // Before the first node has gone over no other does.
        let first = self.canary.filter(|canary| there.nodes.contains_key(*canary) && !has(canary));
        let mut nodes: Vec<&str> = there.nodes.keys().map(String::as_str).collect();
        nodes.sort_by_key(|node| place(self.to, node));
        let mut target = |node: &str| {
            let may = self.asked.is_none()
                || first.map_or(with > 0 || self.canary.is_none(), |first| first == node);
            let fits = there.fits(node, self.to, proxies)
                || self.asked.is_none() && !proxies.is_ready(node, self.from);
            let goes = !has(node) && may && fits && left > 0;
            left -= usize::from(goes && left != usize::MAX);
            if has(node) || goes { self.to } else { self.from }
        };
        nodes.into_iter().map(|node| (node, target(node))).collect()
    }

    /// What the state machine decides on.
    pub fn look(&self, there: &There, proxies: &Proxies<'_>) -> machine::Waves {
        let between = self.between();
        let able: Vec<&str> = between.able(there, proxies).collect();
        let is_served = |node: &&&str| there.is_served(node, self.to);
        let served = able.iter().filter(is_served).count();
        machine::Waves {
            candidate: candidate(there, proxies, &able, self.to),
            canary_is_there: self.canary.is_some_and(|canary| able.contains(&canary)),
            able: count(able.len()),
            asleep: there.nodes.values().any(|node| !node.ready),
            served: count(served),
            waiting: self.waiting(there, proxies, &able, served),
            passed_over: between.passed_over(there, proxies),
        }
    }

    fn waiting(&self, there: &There, proxies: &Proxies<'_>, able: &[&str], served: usize) -> Option<String> {
        let asked = self.asked.unwrap_or(able.len()).min(able.len());
        let targets = self.targets(there, proxies);
        let is_late = |node: &&&str| {
            let given = self.asked.is_none() || targets.get(**node) == Some(&self.to);
            given && !there.is_served(node, self.to)
        };
        let mut late: Vec<&str> = able.iter().filter(is_late).copied().collect();
        if late.is_empty() && served < asked {
            // None of them can be given: those that could be next are what is looked at.
            let next = |node: &&&str| {
                !there.is_served(node, self.to) && self.canary.is_none_or(|c| c == **node || served > 0)
            };
            late = able.iter().filter(next).copied().collect();
        }
        (!late.is_empty()).then(|| {
            let more = asked.saturating_sub(served).max(1);
            let names = list(&there.late_ones(proxies, self.to, &late));
            format!("revision {} to serve {more} more of {asked} nodes of this wave: {names}", self.to)
        })
    }
}

impl There {
    /// The new proxy of this node can take over at once.
    fn fits(&self, node: &str, to: &str, proxies: &Proxies<'_>) -> bool {
        let is_ready = self.nodes.get(node).is_some_and(|n| n.ready) && proxies.is_ready(node, to);
        is_ready && self.lacks(node, to).is_none()
    }

    /// What the new proxy, which is ready, has not yet of what the old one has: its own agent tried each pod's listener.
    pub(super) fn lacks(&self, node: &str, to: &str) -> Option<&str> {
        let status = self.mesh_nodes.get(node).and_then(|m| m.status.as_ref());
        match status.and_then(|s| s.standby.as_ref()).filter(|standby| standby.revision == to) {
            Some(standby) => standby.waiting.as_deref(),
            None => Some("its agent has not said yet that it could take over"),
        }
    }

    pub(super) fn mesh_pods(&self, node: &str) -> usize {
        self.mesh_nodes.get(node).and_then(|m| m.status.as_ref()).map_or(0, |s| s.pods.len())
    }
}

impl Between<'_> {
    /// Nodes that can be waited for.
    pub fn able<'n>(&self, there: &'n There, proxies: &Proxies<'_>) -> impl Iterator<Item = &'n str> {
        there.nodes.keys().map(String::as_str).filter(|node| self.why_not(there, proxies, node).is_none())
    }

    /// The others.
    pub fn passed_over(&self, there: &There, proxies: &Proxies<'_>) -> Vec<PassedOver> {
        let of = |node: &String| {
            let reason = self.why_not(there, proxies, node)?;
            Some(PassedOver { node: node.clone(), reason: reason.to_owned() })
        };
        there.nodes.keys().filter_map(of).take(TOLD).collect()
    }

    // Where the old proxy serves and the new one does not come up, that is the new revision's doing, and waited for.
    fn why_not(&self, there: &There, proxies: &Proxies<'_>, node: &str) -> Option<&'static str> {
        let old = self.from.is_some_and(|from| proxies.is_ready(node, from));
        match proxies.get(node, self.to) {
            _ if !there.nodes.get(node).is_some_and(|n| n.ready) => Some("the node is not ready"),
            Some(pod) if pods::is_ready(pod) => None,
            _ if old => None,
            None => Some("no node proxy is scheduled there"),
            Some(_) if self.from.is_some() => Some("the node proxies of neither revision are ready there"),
            // As on a node that only looks like one.
            Some(pod) if !pods::has_run(pod) && self.runs_elsewhere(there, proxies) => {
                Some("its kubelet starts no node proxy")
            }
            Some(_) => None,
        }
    }

    fn runs_elsewhere(&self, there: &There, proxies: &Proxies<'_>) -> bool {
        there.nodes.keys().any(|node| proxies.is_ready(node, self.to))
    }
}

/// The node to begin with. One with pods of the mesh, or there would be nothing to see: neither the fullest nor the emptiest of these, and
/// none of Kubernetes' own control plane while there is another.
fn candidate(there: &There, proxies: &Proxies<'_>, able: &[&str], to: &str) -> Option<String> {
    let fit: Vec<&str> = able.iter().copied().filter(|node| there.fits(node, to, proxies)).collect();
    let is_full = |node: &&str| there.mesh_pods(node) > 0;
    let is_plain = |node: &&str| there.nodes.get(*node).is_some_and(|n| !n.control_plane);
    let narrow = |nodes: Vec<&'_ str>, keep: &dyn Fn(&&str) -> bool| -> Vec<String> {
        let kept: Vec<String> = nodes.iter().filter(|n| keep(n)).map(|n| (*n).to_owned()).collect();
        if kept.is_empty() { nodes.into_iter().map(str::to_owned).collect() } else { kept }
    };
    let full = narrow(fit, &is_full);
    let mut nodes = narrow(full.iter().map(String::as_str).collect(), &is_plain);
    nodes.sort_by_key(|node| (there.mesh_pods(node), place(to, node)));
    let middle = nodes.len().saturating_sub(1) / 2;
    (!nodes.is_empty()).then(|| nodes.swap_remove(middle))
}

/// The place of a node in the order of an upgrade: another one in each, so that it is not always the same nodes that go early.
fn place(revision: &str, node: &str) -> (String, String) {
    (names::short_hash(format!("{revision}/{node}").as_bytes()), node.to_owned())
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
