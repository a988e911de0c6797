//! Reads Nodes and MeshNodes.

use k8s_openapi::{api::core::v1, jiff::Timestamp};
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::{MeshControlPlane, MeshNode};

use super::{Node, There};
use crate::{apply::Error, context::Context, mesh_control_plane::build::OS, reconciler};

/// Label of the nodes of Kubernetes' own control plane.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// All of them.
pub async fn read(ctx: &Context, mcp: &MeshControlPlane) -> Result<There, Error> {
    let linux = ListParams::default().labels(&format!("{}={}", OS.0, OS.1));
    let nodes = Api::<v1::Node>::all(ctx.client.clone()).list(&linux).await;
    let nodes = nodes.map_err(Error::request("list", "nodes"))?;
    Ok(There {
        nodes: nodes.items.iter().map(|n| (n.name_any(), node(n, ctx.now()))).collect(),
        mesh_nodes: mesh_nodes(ctx, mcp).await?.into_iter().map(|m| (m.name_any(), m)).collect(),
    })
}

/// Those of this very mesh, not of an earlier one of the same name. Where the kind is not served there is none.
pub async fn mesh_nodes(ctx: &Context, mcp: &MeshControlPlane) -> Result<Vec<MeshNode>, Error> {
    let namespace = mcp.namespace().unwrap_or_default();
    let list =
        reconciler::list(Api::namespaced(ctx.client.clone(), &namespace), &ListParams::default()).await;
    let list: Vec<MeshNode> = match list {
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        list => list.map_err(Error::request("list", format!("MeshNodes in {namespace}")))?,
    };
    let uid = mcp.uid();
    let is_ours = |m: &MeshNode| m.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref());
    Ok(list.into_iter().filter(is_ours).collect())
}

/// What matters of a Node.
pub fn node(node: &v1::Node, now: Timestamp) -> Node {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    let turned =
        ready.and_then(|c| c.last_transition_time.as_ref()).or(node.metadata.creation_timestamp.as_ref());
    Node {
        ready: ready.is_some_and(|c| c.status == "True"),
        since: turned.map_or(now, |t| t.0),
        control_plane: node.labels().contains_key(CONTROL_PLANE),
    }
}
