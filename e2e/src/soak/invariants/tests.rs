//! Each kind of wrong, found.

use super::*;

fn part(kind: &str, namespace: &str, name: &str, owner: (&str, &str), component: &str) -> Labelled {
    let labels = [(MESH_NAME, "m"), (MESH_NAMESPACE, "mesh"), (COMPONENT, component), owner];
    Labelled {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

fn settled() -> Seen {
    let parts = KINDS.iter().flat_map(|kind| {
        let control_plane = part(kind, "mesh", "m-1", (REVISION, "m-1"), "control-plane");
        [control_plane, part(kind, "shop", "edge-meshwright", (GATEWAY, "edge"), "gateway")]
    });
    let nodes = part(NODE_PROXIES, "mesh", "m-1-node", (REVISION, "m-1"), "node");
    let (namespace, name, active) = ("mesh".into(), "m".into(), Some("m-1".into()));
    Seen {
        mesh: Some(Mesh { namespace, name, active, on_nodes: true }),
        revisions: vec!["m-1".into()],
        gateways: vec![("shop".into(), "edge".into())],
        mesh_nodes: vec![("n1".into(), "m-1".into())],
        labelled: parts.chain([nodes]).collect(),
    }
}

fn only_violation(seen: &Seen) -> String {
    let found = violations(seen);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap_or_default()
}

#[test]
fn a_settled_mesh_and_an_empty_cluster_are_fine() {
    assert_eq!(violations(&settled()), Vec::<String>::new());
    let users = Seen { gateways: settled().gateways, ..Seen::default() };
    assert_eq!(violations(&users), Vec::<String>::new());
}

#[test]
fn a_second_object_of_a_workload_is_found() {
    let mut seen = settled();
    seen.labelled.push(part("Service", "shop", "edge-2", (GATEWAY, "edge"), "gateway"));
    assert_eq!(only_violation(&seen), r#"Services of shop/edge: ["edge-meshwright", "edge-2"]"#);
}

#[test]
fn a_missing_object_is_found() {
    let mut seen = settled();
    seen.labelled.retain(|o| !(o.kind == "PodDisruptionBudget" && o.namespace == "mesh"));
    assert_eq!(only_violation(&seen), "PodDisruptionBudgets of mesh/m-1: []");
}

#[test]
fn a_second_revision_is_found() {
    let mut seen = settled();
    seen.revisions.push("m-2".into());
    assert!(only_violation(&seen).contains("m-2"));
}

#[test]
fn what_belongs_to_nobody_is_found() {
    let mut seen = settled();
    seen.labelled.push(part("ConfigMap", "shop", "x", (GATEWAY, "gone"), "gateway"));
    assert_eq!(only_violation(&seen), "ConfigMap shop/x without a Gateway");
    let mut seen = settled();
    seen.labelled.push(part("Secret", "mesh", "x", (REVISION, "m-0"), "control-plane"));
    assert_eq!(only_violation(&seen), "Secret mesh/x without a MeshRevision");
    let mut seen = settled();
    seen.labelled.push(part("Secret", "mesh", "x", (MESH_NAME, "other"), ""));
    assert!(only_violation(&seen).contains("mesh mesh/other, which does not exist"));
}

#[test]
fn everything_left_of_a_deleted_mesh_is_found() {
    let seen = Seen { mesh: None, ..settled() };
    assert_eq!(violations(&seen).len(), 11);
}

#[test]
fn old_replica_sets_of_a_gateway_are_not_orphans() {
    let mut seen = settled();
    let mut old = part("ReplicaSet", "shop", "x", (GATEWAY, "edge"), "gateway");
    old.labels.insert(REVISION.into(), "m-0".into());
    seen.labelled.push(old);
    assert_eq!(violations(&seen), Vec::<String>::new());
}

#[test]
fn node_proxies_of_another_revision_and_nodes_that_wait_for_one_are_found() {
    let mut seen = settled();
    seen.labelled.push(part(NODE_PROXIES, "mesh", "m-0-node", (REVISION, "m-0"), "node"));
    let found = violations(&seen);
    let expected = [
        "DaemonSet mesh/m-0-node without a MeshRevision",
        r#"DaemonSets of revision Some("m-1"): ["m-1-node", "m-0-node"]"#,
    ];
    assert_eq!(found, expected);
    let mut seen = settled();
    seen.mesh_nodes.push(("n2".into(), "m-0".into()));
    assert!(only_violation(&seen).starts_with("MeshNode n2 is to be served by m-0"));
    let mut seen = settled();
    seen.mesh.as_mut().unwrap().on_nodes = false;
    assert!(only_violation(&seen).starts_with("DaemonSets of revision"));
}
