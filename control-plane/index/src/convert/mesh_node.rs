//! MeshNode.

use meshwright_api as api;
use meshwright_core::model::MeshNode;

pub(crate) fn mesh_node(object: api::MeshNode) -> MeshNode {
    let pods = object.status.unwrap_or_default().pods;
    MeshNode {
        wanted: object.spec.revision,
        epoch: object.spec.epoch,
        pods: pods.into_iter().map(|pod| (pod.uid, pod.addresses)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(status: Value) -> MeshNode {
        let object = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshNode",
            "metadata": {"namespace": "mesh", "name": "n1.example"},
            "spec": {"revision": "mesh-1", "epoch": 7}, "status": status});
        mesh_node(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_was_never_reported_is_nothing() {
        let found = node(Value::Null);
        assert_eq!((found.wanted.as_str(), found.epoch, found.pods.len()), ("mesh-1", 7, 0));
    }

    #[test]
    fn pods_are_found_by_uid() {
        let pods = json!([{"uid": "a", "addresses": ["10.0.0.1", "fd00::1"]}, {"uid": "b", "addresses": []}]);
        let found = node(json!({"revision": "mesh-1", "epoch": 7, "pods": pods}));
        assert_eq!(found.pods["a"], ["10.0.0.1", "fd00::1"]);
        assert_eq!(found.pods["b"], [""; 0]);
    }
}
