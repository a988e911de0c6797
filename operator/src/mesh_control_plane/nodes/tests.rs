//! Who gets which node, from random histories and by example.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;
use meshwright_api::{MeshNodeStatus, NodeShift, Standby, conditions::reason};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    missing::{Sight, finding},
    *,
};

mod moved;
mod waves;

const OLD: &str = "mesh-1";
const NEW: &str = "mesh-2";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A cluster with these nodes, and whether each is ready.
fn there(nodes: &[(&str, bool)], mesh_nodes: Vec<MeshNode>) -> There {
    let node = |(name, ready): &(&str, bool)| {
        ((*name).to_owned(), Node { ready: *ready, since: at(0), control_plane: false })
    };
    There {
        nodes: nodes.iter().map(node).collect(),
        mesh_nodes: mesh_nodes.into_iter().map(|m| (m.name_any(), m)).collect(),
    }
}

fn mesh_node(name: &str, spec: (&str, i64), status: Option<(&str, i64)>) -> MeshNode {
    let spec = MeshNodeSpec { revision: spec.0.to_owned(), epoch: spec.1 };
    let mut node = MeshNode::new(name, spec);
    node.status = status.map(|(revision, epoch)| MeshNodeStatus {
        revision: revision.to_owned(),
        epoch,
        // The other one could take over.
        standby: Some(Standby { revision: NEW.to_owned(), waiting: None }),
        ..MeshNodeStatus::default()
    });
    node
}

fn pod(node: &str, revision: &str, ready: bool) -> Pod {
    let labels = json!({labels::COMPONENT: labels::COMPONENT_NODE, labels::REVISION: revision});
    let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" },
        "lastTransitionTime": at(50).to_string()});
    serde_json::from_value(
        json!({"metadata": {"name": format!("{revision}-{node}"), "namespace": "mesh", "labels": labels},
        "spec": {"nodeName": node, "containers": []}, "status": {"conditions": [condition]}}),
    )
    .unwrap()
}

fn revision(name: &str, slot: Option<&str>) -> MeshRevision {
    let object = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshRevision",
        "metadata": {"name": name, "namespace": "mesh", "creationTimestamp": at(10).to_string()},
        "spec": {"mesh": "mesh", "version": "0.3.0", "trustDomain": "td", "workloadTTL": "24h", "nodeSlot": slot,
            "images": {"controlPlane": "c", "proxy": "p"}, "controlPlane": {}, "gateways": {}}});
    serde_json::from_value(object).unwrap()
}

fn position(phase: &str, measured: bool) -> UpgradeStatus {
    let moment = at(0).to_string();
    let mut position = json!({"from": OLD, "fromVersion": "0.3.0", "to": NEW, "toVersion": "0.3.1",
        "strategy": "Canary", "phase": phase, "plan": "1", "started": moment, "since": moment});
    if measured {
        position["measuredSince"] = Value::String(moment);
    }
    serde_json::from_value(position).unwrap()
}

#[test]
fn nodes_follow_when_the_gateways_have_gone_over_and_go_back_with_them() {
    let of = |phase, measured| {
        let position = position(phase, measured);
        match wanted("active", Some(&position)) {
            Wanted::All(OLD) => OLD,
            Wanted::All(NEW) => NEW,
            other => panic!("{other:?}"),
        }
    };
    for phase in ["Planned", "Preflight", "InstallCanary", "Compare", "Shift"] {
        assert_eq!((of(phase, true), of(phase, false)), (OLD, OLD), "{phase}");
    }
    assert_eq!((of("Bake", false), of("Bake", true)), (OLD, NEW));
    let mut baking = position("Bake", false);
    let all = NodeShift { canary: Some("a".to_owned()), asked: None, ..NodeShift::default() };
    baking.nodes = Some(all);
    assert!(matches!(wanted("active", Some(&baking)), Wanted::Wave(_)), "they are there already");
    for phase in ["Promote", "Drain", "Retire"] {
        assert_eq!(of(phase, false), NEW, "{phase}");
    }
    for phase in ["RollingBack", "RolledBack"] {
        assert_eq!(of(phase, true), OLD, "{phase}");
    }
    assert_eq!(wanted("active", None), Wanted::All("active"));
}

#[test]
fn a_revision_without_node_proxies_lets_go_of_the_nodes_and_one_that_is_not_there_changes_nothing() {
    let revisions = [revision(OLD, Some("A")), revision(NEW, None)];
    let server = |name| server(&revisions, Wanted::All(name));
    assert_eq!(server(OLD), Server::Revision(OLD));
    let there = there(&[("a", true)], vec![mesh_node("a", (OLD, 7), Some((OLD, 7)))]);
    let changes = |wanted| assign(&there, &Proxies::new(&[]), server(wanted), at(0));
    assert_eq!(changes(NEW), [Change::Delete(there.mesh_nodes["a"].clone())]);
    assert!(released(&there).unwrap().contains('a'));
    assert_eq!(changes("mesh-3"), []);
}

#[test]
fn a_node_is_given_when_its_new_proxy_is_ready_or_its_old_one_is_not() {
    let there = there(&[("a", true)], vec![mesh_node("a", (OLD, 7), Some((OLD, 7)))]);
    let given = |old: Option<bool>, new: Option<bool>| {
        let pods: Vec<Pod> = [(OLD, old), (NEW, new)]
            .into_iter()
            .filter_map(|(revision, ready)| Some(pod("a", revision, ready?)))
            .collect();
        !assign(&there, &Proxies::new(&pods), Server::Revision(NEW), at(0)).is_empty()
    };
    assert!(given(Some(true), Some(true)) && given(Some(false), Some(true)));
    assert!(!given(Some(true), Some(false)) && !given(Some(true), None), "nobody would serve it");
    assert!(given(Some(false), Some(false)) && given(None, None), "nobody serves it anyway");
}

#[test]
fn what_is_awaited_names_nodes_and_only_those_that_are_ready() {
    let there = there(
        &[("a", true), ("b", true), ("c", false)],
        vec![
            mesh_node("a", (NEW, 8), Some((NEW, 8))),
            mesh_node("b", (NEW, 8), Some((OLD, 7))),
            mesh_node("c", (OLD, 7), Some((OLD, 7))),
        ],
    );
    let ready = [pod("b", NEW, true)];
    let between = Between { from: Some(OLD), to: NEW };
    let waits = |pods: &[Pod]| awaited(&there, &Proxies::new(pods), between);
    assert_eq!(waits(&ready).unwrap(), "revision mesh-2 to serve 1 more of 1 nodes: b");
    assert!(waits(&[pod("b", OLD, true)]).unwrap().contains("b (its proxy is not ready)"));
    assert_eq!(waits(&[]), None, "nobody serves it, before or after");
    assert_eq!(left(&there, NEW).unwrap(), "nodes to leave revision mesh-2: a, b");
    assert_eq!(using(&there, OLD), (vec!["b".to_owned()], vec!["c".to_owned()]));
    let one = |spec| super::tests::there(&[("a", true)], vec![mesh_node("a", spec, Some((NEW, 8)))]);
    let (served, pods) = (one((NEW, 8)), [pod("a", NEW, true)]);
    assert_eq!((awaited(&served, &Proxies::new(&pods), between), left(&served, OLD)), (None, None));
    let old_epoch = one((NEW, 9));
    let waits = awaited(&old_epoch, &Proxies::new(&pods), between);
    assert!(waits.is_some(), "it served before, and not since");
}

#[test]
fn many_names_are_cut() {
    let names: Vec<String> = (0..7).map(|n| format!("n{n}")).collect();
    assert_eq!(list(&names), "n0, n1, n2, n3, n4 and 2 more");
    assert_eq!(list(&names[..2]), "n0, n1");
}

fn sight<'a>(there: &'a There, pods: &'a [Pod], revisions: &'a [MeshRevision]) -> Sight<'a> {
    Sight { there, proxies: Proxies::new(pods), revisions, namespace: "mesh", forbidden: None }
}

#[test]
fn a_node_without_a_proxy_is_told_of_after_a_while_and_one_that_is_served_never() {
    let there = there(
        &[("a", true), ("b", true), ("c", false)],
        vec![mesh_node("a", (OLD, 7), Some((OLD, 7))), mesh_node("b", (OLD, 7), Some((OLD, 7)))],
    );
    let (pods, revisions) = ([pod("a", OLD, true), pod("b", OLD, false)], [revision(OLD, Some("A"))]);
    let found = |now: i64| finding(&sight(&there, &pods, &revisions), Server::Revision(OLD), at(now));
    let (none, later) = found(70);
    assert_eq!((none, later.unwrap().as_secs()), (None, 40), "it ceased to be ready at 50");
    let (finding, later) = found(110);
    let finding = finding.unwrap();
    assert_eq!((finding.reason, finding.status, later), (reason::NODE_PROXIES_MISSING, Some(true), None));
    assert!(
        finding.message.starts_with("1 of 2 nodes") && finding.message.contains(": b;"),
        "{}",
        finding.message
    );
    let of = |server| super::missing::finding(&sight(&there, &pods, &revisions), server, at(999)).0;
    assert_eq!((of(Server::Nobody), of(Server::Absent)), (None, None));
}

#[test]
fn a_namespace_that_refuses_them_is_told_of_at_once_with_the_remedy() {
    let labels = |level: &str| -> BTreeMap<String, String> {
        [("pod-security.kubernetes.io/enforce".to_owned(), level.to_owned())].into()
    };
    assert_eq!(missing::forbidding(&labels("privileged")), None);
    assert_eq!(missing::forbidding(&BTreeMap::new()), None);
    for level in ["baseline", "restricted", "nonsense"] {
        assert_eq!(missing::forbidding(&labels(level)).as_deref(), Some(level));
    }
    let there = there(&[("a", true)], Vec::new());
    let sight = Sight { forbidden: Some("restricted"), ..sight(&there, &[], &[]) };
    let (found, again) = finding(&sight, Server::Revision(OLD), at(0));
    let found = found.unwrap();
    assert_eq!((found.reason, again.is_some()), (reason::POD_SECURITY, true));
    let remedy = "kubectl label namespace mesh pod-security.kubernetes.io/enforce=privileged --overwrite";
    assert!(found.message.contains(remedy), "{}", found.message);
}

#[test]
fn of_a_node_its_readiness_matters_and_since_when() {
    let node: v1::Node = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"conditions": [
        {"type": "MemoryPressure", "status": "False", "lastTransitionTime": at(1).to_string()},
        {"type": "Ready", "status": "True", "lastTransitionTime": at(2).to_string()}]}}))
    .unwrap();
    assert_eq!(read::node(&node, at(9)), Node { ready: true, since: at(2), control_plane: false });
    let unknown: v1::Node = serde_json::from_value(
        json!({"metadata": {"name": "b", "labels": {"node-role.kubernetes.io/control-plane": ""}}}),
    )
    .unwrap();
    assert_eq!(read::node(&unknown, at(9)), Node { ready: false, since: at(9), control_plane: true });
}

/// What may happen to a cluster between two looks.
#[derive(Debug, Clone)]
enum Event {
    Joins(u8),
    Goes(u8),
    Ready(u8, bool),
    Proxy(u8, bool, bool),
    Serves(u8),
    SetBack(u8, i64),
    Wants(bool),
    Looks,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let n = 0..4u8;
    let event = prop_oneof![
        n.clone().prop_map(Event::Joins),
        n.clone().prop_map(Event::Goes),
        (n.clone(), any::<bool>()).prop_map(|(n, ready)| Event::Ready(n, ready)),
        (n.clone(), any::<bool>(), any::<bool>()).prop_map(|(n, new, ready)| Event::Proxy(n, new, ready)),
        n.clone().prop_map(Event::Serves),
        (n, -5..5i64).prop_map(|(n, by)| Event::SetBack(n, by)),
        any::<bool>().prop_map(Event::Wants),
        Just(Event::Looks),
        Just(Event::Looks),
    ];
    prop::collection::vec(event, 1..60)
}

/// A cluster as the operator's writes and others' make it.
#[derive(Default)]
struct Cluster {
    there: There,
    proxies: BTreeMap<(String, &'static str), bool>,
    wants_new: bool,
    now: i64,
    /// The highest epoch that each node has ever been given.
    highest: BTreeMap<String, i64>,
}

impl Cluster {
    fn wanted(&self) -> &'static str {
        if self.wants_new { NEW } else { OLD }
    }

    fn pods(&self) -> Vec<Pod> {
        self.proxies.iter().map(|((node, revision), ready)| pod(node, revision, *ready)).collect()
    }

    fn mesh_node(&mut self, name: &str) -> Option<&mut MeshNode> {
        self.there.mesh_nodes.get_mut(name)
    }

    fn happens(&mut self, event: Event) {
        let name = |n: u8| format!("n{n}");
        match event {
            Event::Joins(n) => {
                let node = Node { ready: true, since: at(0), control_plane: false };
                self.there.nodes.entry(name(n)).or_insert(node);
            }
            Event::Goes(n) => drop(self.there.nodes.remove(&name(n))),
            Event::Ready(n, ready) => {
                if let Some(node) = self.there.nodes.get_mut(&name(n)) {
                    node.ready = ready;
                }
            }
            Event::Proxy(n, new, ready) => {
                self.proxies.insert((name(n), if new { NEW } else { OLD }), ready);
            }
            Event::Serves(n) => {
                if let Some(node) = self.mesh_node(&name(n)) {
                    let MeshNodeSpec { revision, epoch } = node.spec.clone();
                    node.status = Some(MeshNodeStatus { revision, epoch, ..MeshNodeStatus::default() });
                }
            }
            Event::SetBack(n, by) => {
                if let Some(node) = self.mesh_node(&name(n)) {
                    node.spec.epoch += by;
                }
            }
            Event::Wants(new) => self.wants_new = new,
            Event::Looks => {}
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Create(node, spec) => {
                    assert!(self.mesh_node(&node).is_none(), "{node} twice");
                    let made = mesh_node(&node, (&spec.revision, spec.epoch), None);
                    self.there.mesh_nodes.insert(node, made);
                }
                Change::Give(node, spec) => {
                    let name = node.name_any();
                    let reported = node.status.as_ref().map_or(0, |s| s.epoch);
                    assert!(
                        spec.epoch > node.spec.epoch && spec.epoch > reported,
                        "{name} is given with an old epoch"
                    );
                    self.mesh_node(&name).unwrap().spec = spec;
                }
                Change::Delete(node) => {
                    self.there.mesh_nodes.remove(&node.name_any());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn every_node_has_one_owner_epochs_only_grow_and_a_second_look_changes_nothing(events in events()) {
        let mut cluster = Cluster::default();
        for event in events {
            let tampers = matches!(event, Event::SetBack(..));
            cluster.happens(event);
            if tampers {
                continue;
            }
            // Time goes on faster than nodes change hands.
            cluster.now += 1000;
            let pods = cluster.pods();
            let before = cluster.there.clone();
            let (server, now) = (Server::Revision(cluster.wanted()), at(cluster.now));
            let changes = assign(&cluster.there, &Proxies::new(&pods), server, now);
            cluster.apply(changes);
            let again = assign(&cluster.there, &Proxies::new(&pods), server, now);
            prop_assert!(again.is_empty(), "it does not settle: {again:?}");
            let (nodes, owned) = (cluster.there.nodes.keys(), cluster.there.mesh_nodes.keys());
            prop_assert!(nodes.eq(owned));
            for (name, node) in &cluster.there.mesh_nodes {
                let ready = |revision: &str| cluster.proxies.iter().any(|((n, r), ready)| n == name && *r == revision && *ready);
                let owner = node.spec.revision.as_str();
                // Who has it and should not is ready, and who should have it is not.
                prop_assert!(owner == cluster.wanted() || ready(owner) && !ready(cluster.wanted()));
                let was = before.mesh_nodes.get(name);
                let moved = was.is_some_and(|m| m.spec.revision != owner);
                prop_assert!(!moved || owner == cluster.wanted(), "a node goes nowhere else");
                let highest = cluster.highest.entry(name.clone()).or_default();
                // Also of one whose MeshNode was deleted and made again.
                prop_assert!(was.is_some() || node.spec.epoch > *highest, "a first epoch is above all before");
                *highest = node.spec.epoch.max(*highest);
            }
        }
    }
}
