//! Who takes mutual TLS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Node, Peer};
use crate::model::MeshNode;

/// Addresses of one node's pods that are peers. A MeshNode speaks only for members of its own node, and only of addresses that the pod itself
/// has: what one node reports can change nothing for the pods of another.
pub(super) fn of_node(node: &Node, reported: &MeshNode) -> Vec<(String, Peer)> {
    let mut peers = Vec::new();
    for (uid, listed) in &reported.pods {
        let Some(member) = node.members.get(uid) else { continue };
        let taken = member.addresses.iter().filter(|own| listed.iter().any(|other| is_same(own, other)));
        let peer = Peer {
            uid: uid.as_str().into(),
            identity: member.identity.clone(),
            workload: member.workload.clone(),
        };
        peers.extend(taken.map(|address| (address.clone(), peer.clone())));
    }
    peers
}

/// Whether two texts name the same address: IPv6 has more than one for each.
fn is_same(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<IpAddr>(), b.parse::<IpAddr>()), (Ok(a), Ok(b)) if a == b)
}

/// The peers of all nodes together.
///
/// The network may give the address of a lost node's pod to another pod. Which of the two is there nobody can tell, and to expect the wrong
/// identity would fail every connection: unless it is the same, the address is nobody's.
pub(super) fn all<'a>(nodes: impl Iterator<Item = &'a Vec<(String, Peer)>>) -> BTreeMap<String, Peer> {
    let mut all: BTreeMap<&str, Option<&Peer>> = BTreeMap::new();
    for (address, peer) in nodes.flatten() {
        let entry = all.entry(address).or_insert(Some(peer));
        *entry = entry.filter(|other| other.identity == peer.identity);
    }
    all.into_iter().filter_map(|(address, peer)| Some((address.to_owned(), peer?.clone()))).collect()
}
