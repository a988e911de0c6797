//! What the status of a MeshNode should say, and whether it may be said now. No I/O.

use std::net::IpAddr;

use meshwright_api::{MeshNode, MeshNodeStatus, MeshPod};
use meshwright_core::mesh::{Member, Mesh, Node};
use meshwright_proto::nodes::NodeReport;

/// What to do about an object that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Write.
    Write,
    /// It says already what it should.
    Settled,
    /// Another agent is to serve the node, or this one again later.
    NotItsTurn,
}

/// What should be said after this report; None unless the agent serves the node as it is to be served by what we know. An agent is
/// believed about pods of its own node only, and about addresses that Kubernetes says they have: it must not turn others' connections to
/// a port where nobody listens.
pub fn wanted(node: Option<&Node>, report: &NodeReport) -> Option<MeshNodeStatus> {
    let node = node?;
    let (revision, epoch) = node.claim.as_ref()?;
    // Zero says that it does not serve.
    if report.serving_epoch <= 0 || report.serving_epoch != *epoch || report.revision != *revision {
        return None;
    }
    let captured = report.captured.iter().filter_map(|captured| {
        let addresses = agreed(node.members.get(&captured.uid)?, &captured.addresses);
        (!addresses.is_empty()).then(|| MeshPod { uid: captured.uid.clone(), addresses })
    });
    let mut pods: Vec<_> = captured.collect();
    pods.sort();
    // A pod that is named twice would make the API server refuse all of them.
    pods.dedup_by(|later, kept| later.uid == kept.uid);
    Some(MeshNodeStatus { revision: revision.clone(), epoch: *epoch, pods })
}

/// The member's addresses that were reported too, however they are spelled there. Kubernetes may not know of any yet: what is said of such a
/// pod is written down all the same, so that its first caller finds it. Who reads it compares once more.
fn agreed(member: &Member, reported: &[String]) -> Vec<String> {
    let parse = |text: &String| text.parse::<IpAddr>().ok();
    if member.addresses.is_empty() {
        return reported.iter().filter_map(parse).map(|address| address.to_string()).collect();
    }
    let has = |known: &&String| {
        parse(known).is_some_and(|known| reported.iter().any(|text| parse(text) == Some(known)))
    };
    member.addresses.iter().filter(has).cloned().collect()
}

/// What is to be done about this object, so that it says `wanted`.
pub fn next(object: &MeshNode, wanted: &MeshNodeStatus) -> Next {
    if object.spec.revision != wanted.revision || object.spec.epoch != wanted.epoch {
        return Next::NotItsTurn;
    }
    match &object.status {
        Some(status) if status == wanted => Next::Settled,
        _ => Next::Write,
    }
}

/// Whether our own watch sees the node's pods as this status says it. If not for long, somebody else wrote it, or an object of that name is
/// another now.
pub fn is_seen(mesh: &Mesh, node: &str, status: &MeshNodeStatus) -> bool {
    let says = |uid: &str, address: &String| {
        status.pods.iter().any(|pod| pod.uid == uid && pod.addresses.contains(address))
    };
    let sees = |uid: &str, address: &String| mesh.peers.get(address).is_some_and(|peer| *peer.uid == *uid);
    let members = mesh.nodes.get(node).into_iter().flat_map(|node| &node.members);
    members
        .flat_map(|(uid, member)| member.addresses.iter().map(move |address| (uid, address)))
        .all(|(uid, address)| says(uid, address) == sees(uid, address))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meshwright_api::MeshNodeSpec;
    use meshwright_core::mesh::Peer;

    use super::super::super::tests::{mesh, report};
    use super::*;

    /// Uids and addresses.
    type Pods<'a> = &'a [(&'a str, &'a [&'a str])];

    fn status(pods: Pods<'_>) -> MeshNodeStatus {
        let pod = |(uid, addresses): &(&str, &[&str])| MeshPod {
            uid: (*uid).to_owned(),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        };
        MeshNodeStatus { revision: "mesh-1".to_owned(), epoch: 3, pods: pods.iter().map(pod).collect() }
    }

    #[test]
    fn an_agent_is_believed_about_pods_of_its_node_at_their_own_addresses() {
        let pods = [("n1", "u1", "10.0.0.1"), ("n1", "u2", "fd00::2"), ("n2", "u3", "10.0.0.3")];
        let mesh = mesh(&pods, Some(("mesh-1", 3)));
        let node = mesh.nodes.get("n1").map(|node| &**node);
        let cases: [(Pods<'_>, Pods<'_>); 7] = [
            (&[], &[]),
            (
                &[("u2", &["fd00:0::2"]), ("u1", &["10.0.0.1"])],
                &[("u1", &["10.0.0.1"]), ("u2", &["fd00::2"])],
            ),
            (&[("u1", &["10.0.0.1", "10.0.0.3"])], &[("u1", &["10.0.0.1"])]),
            (&[("u1", &["10.0.0.3"])], &[]),
            (&[("u3", &["10.0.0.3"]), ("u4", &["10.0.0.1"])], &[]),
            (&[("u1", &["10.0.0.1"]), ("u1", &["10.0.0.1"])], &[("u1", &["10.0.0.1"])]),
            (&[("u1", &["no address", ""])], &[]),
        ];
        for (captured, expected) in cases {
            assert_eq!(wanted(node, &report(3, captured)), Some(status(expected)), "{captured:?}");
        }
    }

    #[test]
    fn a_pod_of_which_kubernetes_knows_no_address_yet_is_listed_with_what_the_agent_says() {
        let mut mesh = mesh(&[("n1", "u1", "10.0.0.1")], Some(("mesh-1", 3)));
        let node = Arc::make_mut(mesh.nodes.get_mut("n1").unwrap());
        node.members.get_mut("u1").unwrap().addresses.clear();
        let early = wanted(Some(&*node), &report(3, &[("u1", &["fd00:0::1", "none"])]));
        assert_eq!(early, Some(status(&[("u1", &["fd00::1"])])));
    }

    #[test]
    fn only_who_serves_at_the_present_epoch_is_heard() {
        let node = |claim| mesh(&[("n1", "u1", "10.0.0.1")], claim).nodes["n1"].clone();
        let heard = |node: &Node, report: &NodeReport| wanted(Some(node), report).is_some();
        let ours = node(Some(("mesh-1", 3)));
        assert!(heard(&ours, &report(3, &[])));
        for epoch in [0, 2, 4, -3] {
            assert!(!heard(&ours, &report(epoch, &[])), "{epoch}");
        }
        let other = NodeReport { revision: "mesh-2".to_owned(), ..report(3, &[]) };
        assert!(!heard(&ours, &other));
        assert!(!heard(&node(Some(("mesh-1", 0))), &report(0, &[])), "nobody serves at epoch 0");
        assert!(!heard(&node(None), &report(3, &[])));
        assert_eq!(wanted(None, &report(3, &[])), None);
    }

    #[test]
    fn an_object_is_written_in_its_agents_turn_and_only_if_it_says_something_else() {
        let (one, two) = (status(&[("u1", &["10.0.0.1"])]), status(&[]));
        let object = |revision: &str, epoch, status| {
            let mut object = MeshNode::new("n1", MeshNodeSpec { revision: revision.to_owned(), epoch });
            object.status = status;
            object
        };
        assert_eq!(next(&object("mesh-1", 3, None), &two), Next::Write);
        assert_eq!(next(&object("mesh-1", 3, Some(two.clone())), &one), Next::Write);
        let older = MeshNodeStatus { epoch: 2, ..one.clone() };
        assert_eq!(next(&object("mesh-1", 3, Some(older)), &one), Next::Write);
        assert_eq!(next(&object("mesh-1", 3, Some(one.clone())), &one), Next::Settled);
        assert_eq!(next(&object("mesh-1", 4, Some(two.clone())), &one), Next::NotItsTurn);
        assert_eq!(next(&object("mesh-2", 3, Some(two)), &one), Next::NotItsTurn);
    }

    #[test]
    fn what_the_watch_sees_otherwise_is_told_apart() {
        let mut mesh = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], None);
        let (none, one) = (status(&[]), status(&[("u1", &["10.0.0.1"])]));
        assert!(is_seen(&mesh, "n1", &none) && !is_seen(&mesh, "n1", &one));
        let peer = |uid: &str| Peer { uid: uid.into(), identity: "spiffe://td/x".into(), ..Peer::default() };
        let both = [("10.0.0.1".to_owned(), peer("u1")), ("10.0.0.2".to_owned(), peer("u2"))];
        mesh.peers = Arc::new(both.into());
        assert!(is_seen(&mesh, "n1", &one) && !is_seen(&mesh, "n1", &none));
        mesh.peers = Arc::new([("10.0.0.1".to_owned(), peer("u0"))].into());
        assert!(!is_seen(&mesh, "n1", &one), "a pod before it had that address");
    }
}
