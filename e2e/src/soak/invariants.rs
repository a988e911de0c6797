//! What is true of every settled mesh, whatever happened on the way: nothing is there twice, nothing belongs to nobody.
//! Pure: (what is in the cluster) -> what is wrong.

use std::collections::BTreeMap;

/// What every workload has exactly one of.
const KINDS: [&str; 4] = ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"];
/// What a revision has one of besides, if its release has node proxies.
const NODE_PROXIES: &str = "DaemonSet";
const MESH_NAME: &str = "meshwright.io/mesh-name";
const MESH_NAMESPACE: &str = "meshwright.io/mesh-namespace";
const REVISION: &str = "meshwright.io/revision";
const COMPONENT: &str = "meshwright.io/component";
const GATEWAY: &str = "gateway.networking.k8s.io/gateway-name";

/// What is in the cluster.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub mesh: Option<Mesh>,
    /// Names of all MeshRevisions.
    pub revisions: Vec<String>,
    /// Namespace and name of every Gateway of our class.
    pub gateways: Vec<(String, String)>,
    /// Name of each MeshNode, and the MeshRevision whose proxy is to serve that node.
    pub mesh_nodes: Vec<(String, String)>,
    /// Everything that the operator's label is on, of any kind.
    pub labelled: Vec<Labelled>,
}

/// The mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    pub namespace: String,
    pub name: String,
    pub active: Option<String>,
    /// Whether the active revision has node proxies.
    pub on_nodes: bool,
}

/// An object that carries `app.kubernetes.io/managed-by: meshwright`.
#[derive(Debug, Clone)]
pub struct Labelled {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

impl Labelled {
    fn label(&self, key: &str) -> &str {
        self.labels.get(key).map(String::as_str).unwrap_or_default()
    }

    /// Namespace and name of what it is a part of: a revision's control plane, or a Gateway.
    fn workload(&self) -> (&str, &str) {
        let key = if self.label(COMPONENT) == "gateway" { GATEWAY } else { REVISION };
        (&self.namespace, self.label(key))
    }
}

/// What is wrong; nothing in a settled cluster.
pub fn violations(seen: &Seen) -> Vec<String> {
    let Some(mesh) = &seen.mesh else {
        let left = seen.labelled.iter().map(|o| format!("{} without a mesh", describe(o)));
        let revisions = seen.revisions.iter().map(|r| format!("MeshRevision {r} without a mesh"));
        return left.chain(revisions).chain(seen.mesh_nodes.iter().map(unserved)).collect();
    };
    let mut wrong: Vec<String> = seen.labelled.iter().filter_map(|o| orphaned(seen, mesh, o)).collect();
    match &mesh.active {
        Some(active) if seen.revisions == [active.clone()] => {}
        active => wrong.push(format!("active revision {active:?}, and MeshRevisions {:?}", seen.revisions)),
    }
    let active = |revision: &String| mesh.active.as_ref() == Some(revision);
    wrong.extend(seen.mesh_nodes.iter().filter(|(_, revision)| !active(revision)).map(unserved));
    let sets: Vec<&str> =
        seen.labelled.iter().filter(|o| o.kind == NODE_PROXIES).map(|o| o.name.as_str()).collect();
    if sets.len() != usize::from(mesh.on_nodes) {
        wrong.push(format!("{NODE_PROXIES}s of revision {:?}: {sets:?}", mesh.active));
    }
    let control_plane = mesh.active.iter().map(|active| (mesh.namespace.clone(), active.clone()));
    for workload in control_plane.chain(seen.gateways.iter().cloned()) {
        let (namespace, name) = (workload.0.as_str(), workload.1.as_str());
        for kind in KINDS {
            let parts = seen.labelled.iter().filter(|o| o.kind == kind && o.workload() == (namespace, name));
            let found: Vec<&str> = parts.map(|o| o.name.as_str()).collect();
            if found.len() != 1 {
                wrong.push(format!("{kind}s of {namespace}/{name}: {found:?}"));
            }
        }
    }
    wrong
}

fn orphaned(seen: &Seen, mesh: &Mesh, object: &Labelled) -> Option<String> {
    let of = (object.label(MESH_NAMESPACE), object.label(MESH_NAME));
    if of != (mesh.namespace.as_str(), mesh.name.as_str()) {
        return Some(format!("{} belongs to mesh {}/{}, which does not exist", describe(object), of.0, of.1));
    }
    let (namespace, owner) = object.workload();
    match object.label(COMPONENT) {
        "gateway" if !owner.is_empty() => {
            let exists =
                seen.gateways.iter().any(|(ns, name)| (ns.as_str(), name.as_str()) == (namespace, owner));
            (!exists).then(|| format!("{} without a Gateway", describe(object)))
        }
        // Old ReplicaSets of a gateway name the revisions that it had; control planes and node proxies are one revision's alone.
        "control-plane" | "node" => {
            let exists = seen.revisions.iter().any(|name| name == owner);
            (!exists).then(|| format!("{} without a MeshRevision", describe(object)))
        }
        _ => None,
    }
}

fn unserved((node, revision): &(String, String)) -> String {
    format!("MeshNode {node} is to be served by {revision}, which is not the active revision")
}

fn describe(object: &Labelled) -> String {
    format!("{} {}/{}", object.kind, object.namespace, object.name)
}

#[cfg(test)]
mod tests;
