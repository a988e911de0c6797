//! Node proxies in whole steps: slots, blockers, what is built, and what an upgrade waits for.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshwright_api::{
    MeshNode, MeshNodeSpec, MeshNodeStatus, MeshPod, NodeSlot, Standby, UpgradePhase,
    conditions::{IN_USE, reason},
};
use serde_json::json;

use super::{Seen, at, build, make_ready, measured, mesh, phase, seen, take};
use crate::{
    catalogue::tests::catalogue,
    mesh_control_plane::{
        measure,
        nodes::{self, Node},
        step,
        validate::{ValidatedMesh, validate},
        view,
    },
};

fn valid(seen: &Seen) -> ValidatedMesh {
    validate(seen, &catalogue(&["0.2.0", "0.3.0", "0.3.1"]), &[], at(0)).unwrap()
}

/// A mesh of this release that serves on one node, and its revision.
fn installed(version: &str) -> (Seen, String) {
    let mut seen = seen(mesh(json!({"version": version})));
    let mesh = valid(&seen);
    let name = take(&mut seen, &mesh, at(0)).target;
    make_ready(&mut seen, &name, 2);
    take(&mut seen, &mesh, at(1));
    take(&mut seen, &mesh, at(2));
    seen.nodes.nodes.insert("n1".to_owned(), Node { ready: true, since: at(0), control_plane: false });
    (seen, name)
}

fn proxy(revision: &str) -> Pod {
    let labels = json!({"meshwright.io/component": "node", "meshwright.io/revision": revision});
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": at(0).to_string()});
    serde_json::from_value(
        json!({"metadata": {"name": format!("{revision}-node-x"), "namespace": "prod", "labels": labels},
        "spec": {"nodeName": "n1", "containers": []}, "status": {"conditions": [ready]}}),
    )
    .unwrap()
}

fn status(seen: &mut Seen) -> &mut MeshNodeStatus {
    seen.nodes.mesh_nodes.get_mut("n1").unwrap().status.as_mut().unwrap()
}

/// As the operator, the agents and the control planes would leave the MeshNodes behind.
fn follow(seen: &mut Seen, agents: bool) {
    let status = seen.fresh.status.clone().unwrap();
    let wanted = nodes::wanted(status.active_revision.as_deref().unwrap(), status.upgrade.as_ref());
    let server = nodes::server(&seen.revisions, wanted);
    for change in nodes::assign(&seen.nodes, &nodes::Proxies::new(&seen.items), server, at(0)) {
        let of = |name: String, spec: MeshNodeSpec, status| MeshNode { status, ..MeshNode::new(&name, spec) };
        let there = &mut seen.nodes.mesh_nodes;
        match change {
            nodes::Change::Create(name, spec) => drop(there.insert(name.clone(), of(name, spec, None))),
            nodes::Change::Give(node, spec) => {
                there.insert(node.name_any(), of(node.name_any(), spec, node.status));
            }
            nodes::Change::Delete(node) => drop(there.remove(&node.name_any())),
        }
    }
    for node in seen.nodes.mesh_nodes.values_mut().filter(|_| agents) {
        let MeshNodeSpec { revision, epoch } = node.spec.clone();
        let pods = vec![MeshPod { uid: "u".to_owned(), addresses: Vec::new() }];
        let upgrade = status.upgrade.as_ref();
        let other = upgrade.map(|p| if p.to == revision { p.from.clone() } else { p.to.clone() });
        let standby = other.map(|revision| Standby { revision, waiting: None });
        node.status = Some(MeshNodeStatus { revision, epoch, pods, standby, ..MeshNodeStatus::default() });
    }
}

/// Goes on until it is in this phase, at most so many looks.
fn until(seen: &mut Seen, wanted: UpgradePhase, agents: bool) -> i64 {
    let mut second = 10;
    while phase(seen) != Some(wanted) {
        let mesh = valid(seen);
        let step = take(seen, &mesh, at(second));
        if let Some(made) = step.create {
            assert!(made.node_slot.is_some());
            make_ready(seen, &step.target, 2);
            seen.items.push(proxy(&step.target));
        }
        follow(seen, agents);
        second += 30;
        assert!(second < 6000, "{:?} {:?}", phase(seen), seen.fresh.status.as_ref().unwrap().upgrade);
    }
    second
}

#[test]
fn streams_of_node_proxies_keep_no_revision() {
    let streams = ["prod/mesh-1-node-x", "shop/web-1"].map(str::to_owned).into();
    assert_eq!(measure::of_gateways(&streams, &[proxy("mesh-1")]), 1);
    assert_eq!(measure::of_gateways(&streams, &[]), 2, "whose it is nobody knows");
}

#[test]
fn revisions_get_a_slot_of_their_own_and_keep_it() {
    let (mut seen, old) = installed("0.3.0");
    assert_eq!(seen.revisions[0].spec.node_slot, Some(NodeSlot::A));
    let again = valid(&seen);
    assert_eq!(take(&mut seen, &again, at(5)).target, old, "the slot makes no other revision of it");
    let mut renamed = Seen { revisions: seen.revisions.clone(), ..super::seen(seen.fresh.clone()) };
    renamed.revisions[0].metadata.name = Some("mesh-named-by-another".to_owned());
    renamed.fresh.status.as_mut().unwrap().active_revision = Some("mesh-named-by-another".to_owned());
    assert_eq!(take(&mut renamed, &again, at(5)).target, "mesh-named-by-another");
    seen.fresh.spec.version = Some("0.3.1".to_owned());
    seen.items.push(proxy(&old));
    until(&mut seen, UpgradePhase::Compare, true);
    assert_eq!(seen.revisions[1].spec.node_slot, Some(NodeSlot::B));
    let (seen, _) = installed("0.2.0");
    assert_eq!(seen.revisions[0].spec.node_slot, None);
}

#[test]
fn a_new_revision_waits_for_ports_that_pods_of_an_earlier_one_still_have() {
    let (mut seen, old) = installed("0.3.0");
    seen.fresh.spec.version = Some("0.3.1".to_owned());
    seen.items.push(proxy(&old));
    seen.slots.insert(NodeSlot::B, "prod/mesh-old-node-x".to_owned());
    for second in 10..20 {
        let mesh = valid(&seen);
        assert!(take(&mut seen, &mesh, at(second)).create.is_none());
    }
    let waiting = seen.fresh.status.as_ref().unwrap().upgrade.as_ref().unwrap().waiting.clone().unwrap();
    assert!(waiting.contains("prod/mesh-old-node-x"), "{waiting}");
    seen.slots.clear();
    until(&mut seen, UpgradePhase::Compare, true);
}

#[test]
fn the_first_revision_waits_for_the_ports_of_an_earlier_mesh() {
    let mut seen = seen(mesh(json!({"version": "0.3.0"})));
    let mesh = valid(&seen);
    for slot in NodeSlot::ALL {
        seen.slots.insert(slot, "gone/other-node-x".to_owned());
    }
    let step = take(&mut seen, &mesh, at(0));
    assert!(step.create.is_none() && step.held.unwrap().contains("gone/other-node-x"));
    assert!(step.recheck.is_some());
    seen.slots.clear();
    assert_eq!(take(&mut seen, &mesh, at(5)).create.unwrap().node_slot, Some(NodeSlot::A));
}

#[test]
fn promotion_waits_for_the_nodes_and_the_old_revision_for_its_own() {
    let (mut seen, old) = installed("0.3.0");
    seen.items.push(proxy(&old));
    follow(&mut seen, true);
    seen.fresh.spec.version = Some("0.3.1".to_owned());
    let mut second = until(&mut seen, UpgradePhase::ShiftNodes, true);
    let new = seen.revisions[1].name_any();
    for _ in 0..10 {
        let mesh = valid(&seen);
        take(&mut seen, &mesh, at(second));
        follow(&mut seen, false);
        second += 30;
    }
    let node = seen.nodes.mesh_nodes["n1"].clone();
    assert_eq!((node.spec.revision, node.status.unwrap().revision), (new.clone(), old.clone()));
    let position = seen.fresh.status.as_ref().unwrap().upgrade.clone().unwrap();
    assert_eq!((position.phase, position.step), (UpgradePhase::ShiftNodes, Some(1)));
    assert_eq!(position.nodes.as_ref().unwrap().canary.as_deref(), Some("n1"));
    assert!(position.waiting.as_ref().unwrap().contains("n1") && position.deadline.is_some(), "{position:?}");
    let in_use = |seen: &Seen| {
        let findings = step::findings(1, seen, Some(&measured(seen))).remove(&old).unwrap();
        findings.into_iter().find(|f| f.type_ == IN_USE).unwrap()
    };
    until(&mut seen, UpgradePhase::Drain, true);
    // Its own control plane says that nothing is open, and a MeshNode that it is not so.
    seen.fresh.status.as_mut().unwrap().upgrade.as_mut().unwrap().measured_since =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
    assert_eq!(in_use(&seen).status, Some(false));
    status(&mut seen).revision = old.clone();
    assert_eq!((in_use(&seen).status, in_use(&seen).reason), (Some(true), reason::NODES_SERVED));
    seen.nodes.nodes.get_mut("n1").unwrap().ready = false;
    assert_eq!(in_use(&seen).status, None, "nobody says");
}

#[test]
fn nodes_that_do_not_come_over_send_it_back_and_are_given_back() {
    let (mut seen, old) = installed("0.3.0");
    seen.items.push(proxy(&old));
    follow(&mut seen, true);
    seen.fresh.spec.version = Some("0.3.1".to_owned());
    until(&mut seen, UpgradePhase::ShiftNodes, true);
    until(&mut seen, UpgradePhase::RollingBack, false);
    let rollback = seen.fresh.status.as_ref().unwrap().upgrade.as_ref().unwrap().rollback.clone().unwrap();
    assert_eq!(rollback.cause, "NodesNotServed");
    assert!(rollback.message.contains("n1"), "{}", rollback.message);
    until(&mut seen, UpgradePhase::RolledBack, true);
    assert_eq!(seen.nodes.mesh_nodes["n1"].spec.revision, old);
}

#[test]
fn the_first_release_with_node_proxies_takes_the_nodes_in_bake() {
    let (mut seen, _) = installed("0.2.0");
    seen.fresh.spec.version = Some("0.3.0".to_owned());
    until(&mut seen, UpgradePhase::Bake, true);
    assert!(seen.nodes.mesh_nodes.is_empty());
    until(&mut seen, UpgradePhase::Drain, true);
    assert_eq!(seen.nodes.mesh_nodes["n1"].spec.revision, seen.revisions[1].name_any());
}

fn blockers(seen: &Seen) -> Vec<(String, String)> {
    let mesh = valid(seen);
    let all = view::view(&mesh, seen, &measured(seen), "", at(20)).blockers;
    let ours = all.into_iter().filter(|b| ["PodSecurity", "NoNodeProxies"].contains(&b.reason.as_str()));
    ours.map(|b| (b.reason, b.remedy)).collect()
}

#[test]
fn a_namespace_that_refuses_node_proxies_stands_in_the_way_of_releases_that_have_them() {
    let (mut seen, _) = installed("0.2.0");
    seen.pod_security = Some("restricted".to_owned());
    assert_eq!(blockers(&seen), [], "this one has none");
    seen.fresh.spec.version = Some("0.3.0".to_owned());
    let remedy = "kubectl label namespace prod pod-security.kubernetes.io/enforce=privileged --overwrite";
    assert_eq!(blockers(&seen), [("PodSecurity".to_owned(), remedy.to_owned())]);
}

#[test]
fn pods_of_the_mesh_stand_in_the_way_of_a_release_without_node_proxies() {
    let (mut seen, _) = installed("0.3.0");
    follow(&mut seen, true);
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    assert_eq!(blockers(&seen)[0].0, "NoNodeProxies");
    status(&mut seen).pods.clear();
    assert_eq!(blockers(&seen), []);
}

#[test]
fn a_mesh_whose_node_proxies_are_refused_says_so() {
    let (mut seen, _) = installed("0.3.0");
    seen.pod_security = Some("baseline".to_owned());
    let mesh = valid(&seen);
    let finding = take(&mut seen, &mesh, at(9)).node_proxies.unwrap();
    assert_eq!(finding.reason, reason::POD_SECURITY);
    seen.pod_security = None;
    assert_eq!(take(&mut seen, &mesh, at(400)).node_proxies.unwrap().reason, reason::NODE_PROXIES_MISSING);
}

#[test]
fn node_proxies_are_built_as_committed() {
    let (mut seen, _) = installed("0.3.0");
    seen.revisions[0].metadata.name = Some("mesh-0a1b2c3d".to_owned());
    let plan = valid(&seen).control_plane;
    let render = |anchors| {
        let around = build::Around { operator: "meshwright-system", anchors };
        let objects = build::revision(&seen.revisions[0], "mesh-0a1b2c3d-issuing-1", &plan, around).unwrap();
        objects.into_desired(&plan).unwrap()
    };
    let bodies: Vec<_> = render(Some("PEM")).into_iter().map(|d| d.body).collect();
    insta::assert_yaml_snapshot!("revision_0_3_0", bodies);
    let kinds = |anchors| render(anchors).into_iter().filter(|d| d.resource.kind == "ConfigMap").count();
    assert_eq!((kinds(Some("PEM")), kinds(None)), (1, 0), "what is there stays while the root is lost");
    let mut without = seen.revisions[0].clone();
    without.spec.node_slot = None;
    let around = build::Around { operator: "meshwright-system", anchors: None };
    assert!(build::revision(&without, "s", &plan, around).is_err());
}
