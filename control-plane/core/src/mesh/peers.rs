//! Who takes mutual TLS.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::claims::Disputes;
use super::{Node, Peer};
use crate::model::MeshNode;

/// Addresses of one node's pods that are peers. A MeshNode speaks only for members of its own node, and only of addresses that the pod itself
/// has: what one node reports can change nothing for the pods of another, unless Kubernetes says that both have the address.
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

/// The peers of all nodes together. Of an address that several pods claim one of them decides, see [`Disputes::holder`].
pub(super) fn all<'a>(
    nodes: impl Iterator<Item = &'a Vec<(String, Peer)>> + Clone,
    disputes: &Disputes,
) -> BTreeMap<String, Peer> {
    let disputed = |address: &str| address.parse().ok().filter(|ip| disputes.contains(ip));
    let spoken =
        nodes.clone().flatten().filter_map(|(address, peer)| Some(((disputed(address)?, &*peer.uid), peer)));
    let spoken: BTreeMap<(IpAddr, &str), &Peer> = spoken.collect();
    let held = nodes.flatten().filter_map(|(address, peer)| {
        let holder = match disputed(address) {
            Some(ip) => disputes.holder(ip, |uid| spoken.get(&(ip, uid)).copied())?,
            None => peer,
        };
        Some((address.clone(), holder.clone()))
    });
    held.collect()
}
