//! What the status of a MeshNode should say, and whether it may be said now. No I/O.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use meshwright_api::conditions::{self, Finding, reason};
use meshwright_api::{AwaitingPod, MeshNode, MeshNodeStatus, MeshPod, Standby};
use meshwright_core::mesh::{Member, Mesh, Node};
use meshwright_proto::nodes::NodeReport;

/// So many pods that wait are named.
const AWAITING: usize = 20;
/// Longest reason, in characters.
const REASON: usize = 200;

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

/// What there is to say of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// By who serves it.
    Serves(MeshNodeStatus),
    /// By who could.
    StandsBy(Standby),
}

impl Said {
    /// The whole status with this in it: each side leaves alone what the other one says.
    pub fn within(&self, before: Option<&MeshNodeStatus>) -> MeshNodeStatus {
        match self {
            Self::Serves(status) => {
                let other = before.and_then(|b| b.standby.clone());
                let standby = other.filter(|standby| standby.revision != status.revision);
                let known = before.map_or(&[][..], |before| &before.conditions);
                let conditions = status.conditions.iter().map(|condition| dated(condition, known)).collect();
                MeshNodeStatus { standby, conditions, ..status.clone() }
            }
            Self::StandsBy(standby) => {
                MeshNodeStatus { standby: Some(standby.clone()), ..before.cloned().unwrap_or_default() }
            }
        }
    }
}

/// The condition with the time since when its status is what it is.
fn dated(condition: &Condition, known: &[Condition]) -> Condition {
    let same = known.iter().find(|known| known.type_ == condition.type_ && known.status == condition.status);
    match same {
        Some(known) => {
            Condition { last_transition_time: known.last_transition_time.clone(), ..condition.clone() }
        }
        // As precise as the API keeps it, or the object would never say what it should.
        None => {
            let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
            Condition { last_transition_time: Time(now), ..condition.clone() }
        }
    }
}

/// What there is to say after this report, if anything.
pub fn said(mesh: &Mesh, name: &str, report: &NodeReport) -> Option<Said> {
    let node = mesh.nodes.get(name)?;
    match wanted(Some(node), report) {
        Some(status) => Some(Said::Serves(status)),
        None => standby(mesh, node, report).map(Said::StandsBy),
    }
}

/// What keeps an agent that does not serve from taking over: a pod that takes mutual TLS now, and would not with it. One that the other proxy
/// does not have either holds nothing up.
fn standby(mesh: &Mesh, node: &Node, report: &NodeReport) -> Option<Standby> {
    let (serves, _) = node.claim.as_ref()?;
    if report.serving_epoch > 0 || report.revision == *serves {
        return None;
    }
    let is_listed = |uid: &str, member: &Member| {
        member.addresses.iter().any(|a| mesh.peers.get(a).is_some_and(|peer| *peer.uid == *uid))
    };
    let lacks = |(uid, member): &(&String, &Member)| is_listed(uid, member) && !report.prepared.contains(uid);
    let mut lacking = node.members.iter().filter(lacks);
    let first = lacking.next();
    let more = lacking.count();
    let waiting = first.map(|(uid, member)| {
        let why = report.awaiting.get(uid).map_or("its agent says nothing of it", String::as_str);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!("pod {}: {why}{more}", member.pod)
    });
    Some(Standby { revision: report.revision.clone(), waiting })
}

/// What should be said after this report; None unless the agent serves the node as it is to be served by what we know. An agent is
/// believed about pods of its own node only, and about addresses that Kubernetes says they have: it must not turn others' connections to
/// a port where nobody listens.
pub fn wanted(node: Option<&Node>, report: &NodeReport) -> Option<MeshNodeStatus> {
    let node = node.filter(|node| serves(node, report))?;
    let (revision, epoch) = node.claim.as_ref()?;
    let captured = report.captured.iter().filter_map(|captured| {
        let addresses = agreed(node.members.get(&captured.uid)?, &captured.addresses);
        (!addresses.is_empty()).then(|| MeshPod { uid: captured.uid.clone(), addresses })
    });
    let mut pods: Vec<_> = captured.collect();
    pods.sort();
    // A pod that is named twice would make the API server refuse all of them.
    pods.dedup_by(|later, kept| later.uid == kept.uid);
    let awaiting = report.awaiting.iter().filter(|(uid, _)| node.members.contains_key(*uid));
    let mut awaiting: Vec<_> =
        awaiting.map(|(uid, why)| AwaitingPod { uid: uid.clone(), reason: cut(why) }).collect();
    awaiting.sort();
    awaiting.truncate(AWAITING);
    let mut conditions = Vec::new();
    // Its time comes with the writing, see `dated`.
    conditions::set(&mut conditions, finding(node, &awaiting), None, Timestamp::UNIX_EPOCH);
    let revision = revision.clone();
    Some(MeshNodeStatus { revision, epoch: *epoch, pods, awaiting, conditions, standby: None })
}

/// Whether all pods are in the mesh that are to be. Those that cannot be come first: somebody has to do something.
fn finding(node: &Node, awaiting: &[AwaitingPod]) -> Finding {
    let of = |status, reason, message| Finding::new(conditions::PODS_CAPTURED, Some(status), reason, message);
    let more =
        |count: usize| if count > 1 { format!(" ({} more like it)", count - 1) } else { String::new() };
    if let Some(first) = node.refused.values().next() {
        let text = format!("pod {}: {}{}", first.pod, first.why, more(node.refused.len()));
        return of(false, reason::PODS_REFUSED, text);
    }
    match awaiting.first() {
        None => of(true, reason::ALL_CAPTURED, String::new()),
        Some(first) => {
            let pod = node.members.get(&first.uid).map(|member| member.pod.to_string()).unwrap_or_default();
            let text = format!("pod {pod}: {}{}", first.reason, more(awaiting.len()));
            of(false, reason::PODS_AWAITED, text)
        }
    }
}

/// Whether the report is of who is to serve the node, and does. Epoch zero says that it does not.
pub fn serves(node: &Node, report: &NodeReport) -> bool {
    node.claim.as_ref().is_some_and(|(revision, epoch)| {
        report.serving_epoch > 0 && report.serving_epoch == *epoch && report.revision == *revision
    })
}

fn cut(text: &str) -> String {
    text.chars().take(REASON).collect()
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
pub fn next(object: &MeshNode, wanted: &Said) -> Next {
    let its_turn = match wanted {
        Said::Serves(status) => object.spec.revision == status.revision && object.spec.epoch == status.epoch,
        Said::StandsBy(standby) => object.spec.revision != standby.revision,
    };
    match &object.status {
        _ if !its_turn => Next::NotItsTurn,
        Some(status) if *status == wanted.within(Some(status)) => Next::Settled,
        _ => Next::Write,
    }
}

/// Whether our own watch sees the node's pods as this status says it. If not for long, somebody else wrote it, or an object of that name is
/// another now.
pub fn is_seen(mesh: &Mesh, node: &str, said: &Said) -> bool {
    // What a proxy that stands by says our model does not keep.
    let Said::Serves(status) = said else { return true };
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
    use meshwright_core::ObjectKey;
    use meshwright_core::mesh::{Outside, Peer, Refused};

    use super::super::super::tests::{mesh, report};
    use super::*;

    /// Uids and addresses.
    type Pods<'a> = &'a [(&'a str, &'a [&'a str])];

    fn status(pods: Pods<'_>) -> MeshNodeStatus {
        let pod = |(uid, addresses): &(&str, &[&str])| MeshPod {
            uid: (*uid).to_owned(),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        };
        let pods = pods.iter().map(pod).collect();
        let mut conditions = Vec::new();
        let all = Finding::new(conditions::PODS_CAPTURED, Some(true), reason::ALL_CAPTURED, "");
        conditions::set(&mut conditions, all, None, Timestamp::UNIX_EPOCH);
        MeshNodeStatus {
            revision: "mesh-1".to_owned(),
            epoch: 3,
            pods,
            conditions,
            ..MeshNodeStatus::default()
        }
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
        let next = |object: &MeshNode, status: &MeshNodeStatus| next(object, &Said::Serves(status.clone()));
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
    fn who_stands_by_says_what_it_lacks_of_what_is_captured_and_touches_nothing_else() {
        let pods = [("n1", "u1", "10.0.0.1"), ("n1", "u2", "10.0.0.2"), ("n1", "u3", "10.0.0.3")];
        let mut mesh = mesh(&pods, Some(("mesh-0", 3)));
        let peer =
            |uid: &str| Peer { uid: uid.into(), identity: "spiffe://td/x".into(), workload: "w".into() };
        mesh.peers =
            Arc::new([("10.0.0.1".to_owned(), peer("u1")), ("10.0.0.2".to_owned(), peer("u2"))].into());
        let report = |prepared: &[&str]| NodeReport {
            prepared: prepared.iter().map(|uid| (*uid).to_owned()).collect(),
            awaiting: [("u2".to_owned(), "envoy does not listen in it yet".to_owned())].into(),
            ..report(0, &[])
        };
        let waits = |prepared: &[&str]| match said(&mesh, "n1", &report(prepared)) {
            Some(Said::StandsBy(standby)) => standby.waiting,
            other => panic!("{other:?}"),
        };
        assert_eq!(waits(&["u1", "u2"]), None, "nobody has u3");
        assert_eq!(waits(&["u1"]).unwrap(), "pod shop/pod-u2: envoy does not listen in it yet");
        assert!(waits(&[]).unwrap().ends_with("of it, and 1 more"), "{:?}", waits(&[]));
        assert_eq!(
            said(&mesh, "n1", &NodeReport { serving_epoch: 2, ..report(&[]) }),
            None,
            "it still serves"
        );

        let standby = Said::StandsBy(Standby { revision: "mesh-1".to_owned(), waiting: None });
        let before = MeshNodeStatus { revision: "mesh-0".to_owned(), ..status(&[("u1", &["10.0.0.1"])]) };
        let mut object = MeshNode::new("n1", MeshNodeSpec { revision: "mesh-0".to_owned(), epoch: 3 });
        object.status = Some(before.clone());
        assert_eq!(next(&object, &standby), Next::Write);
        let after = standby.within(Some(&before));
        assert_eq!((&after.pods, &after.revision), (&before.pods, &before.revision));
        let again = Said::Serves(MeshNodeStatus { epoch: 9, ..before.clone() }).within(Some(&after));
        assert_eq!(again.standby, after.standby, "the other one's word stays");
        object.status = Some(after);
        assert_eq!(next(&object, &standby), Next::Settled);
        object.spec.revision = "mesh-1".to_owned();
        assert_eq!(next(&object, &standby), Next::NotItsTurn);
        let serves = Said::Serves(status(&[]));
        assert_eq!(serves.within(object.status.as_ref()).standby, None, "who serves does not stand by");
    }

    #[test]
    fn a_condition_says_whether_all_pods_are_in_the_mesh_and_since_when() {
        let condition = |node: &Node, awaiting: &[(&str, &str)]| {
            let awaiting = awaiting.iter().map(|(uid, why)| ((*uid).to_owned(), (*why).to_owned())).collect();
            let mut said = wanted(Some(node), &NodeReport { awaiting, ..report(3, &[]) }).unwrap();
            said.conditions.remove(0)
        };
        let mut node = (*mesh(&[("n1", "u1", "10.0.0.1")], Some(("mesh-1", 3))).nodes["n1"]).clone();
        let says = |condition: &Condition| format!("{} {}", condition.status, condition.reason);
        assert_eq!(says(&condition(&node, &[])), "True AllCaptured");
        let waits = condition(&node, &[("u1", "envoy is away"), ("u9", "of another node")]);
        assert_eq!(says(&waits), "False PodsAwaited");
        assert_eq!(waits.message, "pod shop/pod-u1: envoy is away");
        for uid in ["u5", "u6"] {
            let refused = Refused { pod: ObjectKey::new("shop", uid), why: Outside::HostNetwork };
            node.refused.insert(uid.to_owned(), refused);
        }
        let refused = condition(&node, &[("u1", "envoy is away")]);
        assert_eq!(says(&refused), "False PodsRefused");
        assert!(refused.message.starts_with("pod shop/u5: the pod uses the network of its node"));
        assert!(refused.message.ends_with("(1 more like it)"));

        let status = |condition: &Condition| MeshNodeStatus {
            conditions: vec![condition.clone()],
            ..MeshNodeStatus::default()
        };
        let first = Said::Serves(status(&waits)).within(None);
        let since = &first.conditions[0].last_transition_time;
        assert!(since.0 > Timestamp::UNIX_EPOCH && since.0.subsec_nanosecond() == 0);
        let mut old = first.clone();
        old.conditions[0].last_transition_time = Time(Timestamp::from_second(7).unwrap());
        let again = Said::Serves(status(&refused)).within(Some(&old));
        assert_eq!(again.conditions[0].last_transition_time.0.as_second(), 7, "it was False before");
        assert_eq!(again.conditions[0].reason, "PodsRefused");
    }

    #[test]
    fn what_the_watch_sees_otherwise_is_told_apart() {
        let mut mesh = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], None);
        let (none, one) = (Said::Serves(status(&[])), Said::Serves(status(&[("u1", &["10.0.0.1"])])));
        assert!(is_seen(&mesh, "n1", &none) && !is_seen(&mesh, "n1", &one));
        let peer = |uid: &str| Peer { uid: uid.into(), identity: "spiffe://td/x".into(), ..Peer::default() };
        let both = [("10.0.0.1".to_owned(), peer("u1")), ("10.0.0.2".to_owned(), peer("u2"))];
        mesh.peers = Arc::new(both.into());
        assert!(is_seen(&mesh, "n1", &one) && !is_seen(&mesh, "n1", &none));
        mesh.peers = Arc::new([("10.0.0.1".to_owned(), peer("u0"))].into());
        assert!(!is_seen(&mesh, "n1", &one), "a pod before it had that address");
    }
}
