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
