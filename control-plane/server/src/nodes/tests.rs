//! Meshes and reports for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::mesh::{Member, Mesh, Node};
use meshwright_proto::nodes::{CapturedPod, NodeReport};

/// A pod of namespace `shop` with a service account of its own.
pub(crate) fn member(uid: &str, address: &str) -> (String, Member) {
    let member = Member {
        pod: ObjectKey::new("shop", format!("pod-{uid}")),
        identity: format!("spiffe://cluster.local/ns/shop/sa/of-{uid}").into(),
        addresses: vec![address.to_owned()],
        workload: "app".into(),
    };
    (uid.to_owned(), member)
}

/// Nodes with these pods (node, uid, address), all of them claimed by this revision at this epoch.
pub(crate) fn mesh(pods: &[(&str, &str, &str)], claim: Option<(&str, i64)>) -> Mesh {
    let claim = claim.map(|(revision, epoch)| (revision.to_owned(), epoch));
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for (node, uid, address) in pods {
        let node = nodes.entry((*node).to_owned()).or_default();
        node.members.extend([member(uid, address)]);
        node.claim.clone_from(&claim);
    }
    let nodes = nodes.into_iter().map(|(name, node)| (name, Arc::new(node))).collect();
    Mesh { nodes, namespaces: Arc::new([("shop".to_owned(), true)].into()), ..Mesh::default() }
}

/// What the agent of `n1` reports.
pub(crate) fn report(serving_epoch: i64, captured: &[(&str, &[&str])]) -> NodeReport {
    let captured = captured.iter().map(|(uid, addresses)| CapturedPod {
        uid: (*uid).to_owned(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
    });
    NodeReport {
        node: "n1".to_owned(),
        revision: "mesh-1".to_owned(),
        serving_epoch,
        captured: captured.collect(),
        ..NodeReport::default()
    }
}
