//! Whose an address is, where several pods say that they have it.
//!
//! A network gives an address again when it takes it for free: the pod of a lost node is still there for Kubernetes, and may still be running.
//! Who of them answers nobody can tell from here. The one that got its network last is the likeliest; to expect the wrong one costs
//! connections, and to expect none would send in plaintext what was meant for a pod of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Node, Peer};
use crate::model::{ObjectKey, World};

/// Who says so. Pods that have ended are not in the world, and those in their node's network have no address of their own.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    by_pod: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// Those of more than one pod.
    disputed: BTreeSet<IpAddr>,
}

impl Claims {
    /// Takes in what these pods say now.
    pub fn update(&mut self, pods: &BTreeSet<ObjectKey>, world: &World) {
        for key in pods {
            for address in self.by_pod.remove(key).unwrap_or_default() {
                self.change(address, |claimants| claimants.remove(key));
            }
            let Some(pod) = world.pods.get(key).filter(|pod| !pod.host_network) else { continue };
            let addresses: Vec<IpAddr> =
                pod.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            for address in &addresses {
                self.change(*address, |claimants| claimants.insert(key.clone()));
            }
            if !addresses.is_empty() {
                self.by_pod.insert(key.clone(), addresses);
            }
        }
    }

    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeSet<ObjectKey>) -> bool) {
        let claimants = self.by_address.entry(address).or_default();
        change(claimants);
        let count = claimants.len();
        if count == 0 {
            self.by_address.remove(&address);
        }
        if count > 1 {
            self.disputed.insert(address)
        } else {
            self.disputed.remove(&address)
        };
    }

    /// What is disputed, and among whom.
    pub fn disputes(&self, nodes: &BTreeMap<String, Arc<Node>>, world: &World) -> Disputes {
        let claim = |key: &ObjectKey| {
            let pod = world.pods.get(key)?;
            let is_member = nodes.get(&pod.node).is_some_and(|node| node.members.contains_key(&pod.uid));
            Some(Claim { since: pod.since, uid: pod.uid.clone(), node: pod.node.clone(), is_member })
        };
        let claims =
            |address: &IpAddr| self.by_address.get(address).into_iter().flatten().filter_map(claim).collect();
        Disputes(self.disputed.iter().map(|address| (*address, claims(address))).collect())
    }
}

/// One pod's claim.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    since: i64,
    uid: String,
    node: String,
    is_member: bool,
}

/// Claims by address, of more than one pod each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disputes(BTreeMap<IpAddr, Vec<Claim>>);

impl Disputes {
    /// Whether anybody disputes it.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.0.contains_key(address)
    }

    /// As whom the address has to show itself; None for whom gets plaintext. `peer` says who of them, by uid, takes mutual TLS there.
    ///
    /// The newest decides, by when it got its network; of equally new ones a peer, then a member. If it takes mutual TLS it is that one. While it
    /// is on its way into the mesh, another peer's identity is asked for: nothing is sent in plaintext to where somebody of the mesh may be. If it
    /// is outside the mesh the address is a stranger's, and older claims of its own node are void; those of other nodes are not, because what
    /// one node says of its pods must not lay bare what is sent to another's.
    pub fn holder<'a>(&self, address: IpAddr, peer: impl Fn(&str) -> Option<&'a Peer>) -> Option<&'a Peer> {
        let claims = self.0.get(&address)?;
        let rank =
            |claim: &&Claim| (claim.since, peer(&claim.uid).is_some(), claim.is_member, claim.uid.clone());
        let newest = claims.iter().max_by_key(rank)?;
        let counts = |claim: &&Claim| newest.is_member || claim.node != newest.node;
        let others = claims.iter().filter(counts).filter(|claim| peer(&claim.uid).is_some());
        peer(&newest.uid).or_else(|| peer(&others.max_by_key(rank)?.uid))
    }
}
