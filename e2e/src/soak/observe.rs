//! Reads what the invariants are about, and waits until they hold.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::discovery::{Discovery, verbs};

use super::invariants::{Labelled, Mesh, Seen, violations};
use crate::testing::{DEADLINE, Env, MESH, eventually_each};

/// Kinds whose objects say nothing here: Events come and go, and the Gateway API's definitions stay when the mesh goes, or users'
/// Gateways would go with them.
const PASSED_OVER: [&str; 3] = ["Event", "ComponentStatus", "CustomResourceDefinition"];
/// metrics.k8s.io shows pods under their labels for a while after they are gone; Events carry no labels.
const NOT_OBJECTS: [&str; 2] = ["metrics.k8s.io", "events.k8s.io"];

/// A look lists every kind of object that there is.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until every invariant holds, and the mesh is Ready or gone.
///
/// # Errors
/// After the deadline, with what is still wrong.
pub async fn settled(env: &Env, mesh: bool) -> Result<()> {
    let what =
        if mesh { "a Ready mesh of which nothing is there twice" } else { "a mesh of which nothing is left" };
    let kinds = listable(env).await?;
    // A replaced revision stays for a minute after its last use, and pods take their time to end.
    eventually_each(LOOK, what, DEADLINE * 3, || async {
        let found = meshes(env).await?;
        match (&found, mesh) {
            (Some(object), true) if !is_ready(object) => {
                return Err(object.data["status"]["conditions"].to_string());
            }
            (None, true) => return Err("there is no mesh".to_owned()),
            (Some(object), false) => {
                return Err(format!("the mesh is there, finalizers {:?}", object.finalizers()));
            }
            _ => {}
        }
        let wrong = violations(&seen(env, &kinds, found).await.map_err(|e| format!("{e:#}"))?);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    })
    .await
}

/// Ready for the spec that it has now: Ready of an earlier spec is no convergence.
fn is_ready(mesh: &DynamicObject) -> bool {
    let conditions = mesh.data.pointer("/status/conditions").and_then(|c| c.as_array());
    mesh.data["status"]["observedGeneration"].as_i64() == mesh.metadata.generation
        && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

async fn meshes(env: &Env) -> Result<Option<DynamicObject>, String> {
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    meshes.get_opt(MESH).await.map_err(|e| e.to_string())
}

/// Every kind of object that the API server lists.
async fn listable(env: &Env) -> Result<Vec<ApiResource>> {
    let discovery = Discovery::new(env.client.clone()).exclude(&NOT_OBJECTS);
    let discovery = discovery.run().await.context("ask the API server which kinds it serves")?;
    let kinds = discovery.groups().flat_map(|group| group.recommended_resources());
    let listable = kinds.filter(|(resource, can)| {
        can.supports_operation(verbs::LIST) && !PASSED_OVER.contains(&resource.kind.as_str())
    });
    Ok(listable.map(|(resource, _)| resource).collect())
}

async fn seen(env: &Env, kinds: &[ApiResource], mesh: Option<DynamicObject>) -> Result<Seen> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=meshwright");
    let mut labelled = Vec::new();
    for kind in kinds {
        let api: Api<DynamicObject> = Api::all_with(env.client.clone(), kind);
        let list = api.list_metadata(&ours).await.with_context(|| format!("list every {}", kind.kind))?;
        labelled.extend(list.items.into_iter().map(|object| Labelled {
            kind: kind.kind.clone(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            labels: object.labels().clone(),
        }));
    }
    let revisions = all(env, "meshwright.io", "v1alpha1", "MeshRevision", "meshrevisions");
    let revisions = revisions.list(&ListParams::default()).await.context("list MeshRevisions")?;
    let mut gateways = Vec::new();
    // Before the first mesh there may be no such kind.
    if kinds.iter().any(|kind| kind.group == "gateway.networking.k8s.io" && kind.kind == "Gateway") {
        let all = all(env, "gateway.networking.k8s.io", "v1", "Gateway", "gateways");
        let list = all.list(&ListParams::default()).await.context("list Gateways")?;
        let ours = list.items.into_iter().filter(|g| g.data["spec"]["gatewayClassName"] == "meshwright");
        gateways.extend(ours.map(|g| (g.namespace().unwrap_or_default(), g.name_any())));
    }
    let nodes = all(env, "meshwright.io", "v1alpha1", "MeshNode", "meshnodes");
    let nodes = nodes.list(&ListParams::default()).await.context("list MeshNodes")?;
    let revision =
        |node: &DynamicObject| node.data["spec"]["revision"].as_str().unwrap_or_default().to_owned();
    let mesh = mesh.map(|object| {
        let active = object.data["status"]["activeRevision"].as_str().map(str::to_owned);
        let serving = revisions.iter().find(|revision| Some(revision.name_any()) == active);
        Mesh {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            on_nodes: serving.is_some_and(|revision| revision.data["spec"]["nodeSlot"].is_string()),
            active,
        }
    });
    Ok(Seen {
        mesh,
        revisions: revisions.items.iter().map(ResourceExt::name_any).collect(),
        gateways,
        mesh_nodes: nodes.items.iter().map(|node| (node.name_any(), revision(node))).collect(),
        labelled,
    })
}

fn all(env: &Env, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::all_with(env.client.clone(), &resource)
}
