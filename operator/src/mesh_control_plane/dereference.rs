//! Every read of a reconcile, so that all later steps decide on one picture.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use meshwright_api::{MeshControlPlane, MeshRevision, NodeSlot, gateway::Gateway, labels};

use crate::{
    apply,
    certificates::{self, root::Root},
    context::Context,
    gateway_api, pods, reconciler,
};

use super::{
    nodes, slots,
    validate::{holder, is_installed},
};

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Read(#[from] apply::Error),
    /// Nobody knows whose the cluster is.
    #[error(
        "another MeshControlPlane cannot be read by this operator and may have the cluster; the operator's log names it: correct or delete it"
    )]
    UnreadableMesh,
    /// The root is there and cannot be used.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// The Gateway API's CRDs could not be looked at.
    #[error(transparent)]
    GatewayApi(#[from] gateway_api::Error),
}

/// What there is.
#[derive(Debug)]
pub struct Seen {
    /// The MeshControlPlane as the API server has it now, not as the cache had it.
    pub fresh: MeshControlPlane,
    /// Every MeshControlPlane in the cluster.
    pub meshes: Vec<MeshControlPlane>,
    /// Our revisions.
    pub revisions: Vec<MeshRevision>,
    /// Their control planes, by revision.
    pub deployments: BTreeMap<String, Deployment>,
    /// Their pods, counted by revision.
    pub pods: BTreeMap<String, pods::Count>,
    /// Those pods.
    pub items: Vec<Pod>,
    /// The Gateways' proxies and Services, by namespace and name of the Gateway.
    pub gateways: BTreeMap<(String, String), GatewaySeen>,
    /// The nodes, and who serves them; nothing where no revision has node proxies.
    pub nodes: nodes::There,
    /// Ports on the nodes that pods have, each with one such pod.
    pub slots: BTreeMap<NodeSlot, String>,
    /// The level of Pod Security at which the mesh's namespace refuses node proxies.
    pub pod_security: Option<String>,
    /// The root, if it was created.
    pub root: Option<Root>,
    /// The Gateway API's CRDs.
    pub gateway_api: gateway_api::Found,
}

/// What there is of a Gateway.
#[derive(Debug, Clone, Default)]
pub struct GatewaySeen {
    /// Its proxies, by revision.
    pub deployments: BTreeMap<String, Deployment>,
    /// Its address.
    pub service: Option<Service>,
}

/// Reads. A list that cannot be read fails all of it: "none" and "unknown" must not look alike to a step that removes.
pub async fn dereference(ctx: &Context, mcp: &MeshControlPlane) -> Result<Seen, Error> {
    let name = mcp.name_any();
    let namespace = mcp.namespace().unwrap_or_default();
    let ours: Api<MeshControlPlane> = Api::namespaced(ctx.client.clone(), &namespace);
    let fresh = ours.get(&name).await.map_err(request("read", &namespace, &name))?;
    let meshes = reconciler::list_known(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let (meshes, all) = meshes.map_err(apply::Error::request("list", "meshes"))?;
    if !all && !is_installed(&fresh) {
        return Err(Error::UnreadableMesh);
    }
    let items = pods::list(ctx).await?;
    let slots = slots::held(&items, ctx.now());
    // After the pods: whose Gateway is not among these is not ours.
    let gateways = gateways(ctx, &namespace, &name).await?;
    let of_mesh = |p: &Pod| is_of_mesh(p, &namespace, &name) && is_ours(p, &namespace, &gateways);
    let items: Vec<Pod> = items.into_iter().filter(of_mesh).collect();
    let revisions = revisions(ctx, &fresh).await?;
    let has_nodes = revisions.iter().any(|r| r.spec.node_slot.is_some());
    Ok(Seen {
        nodes: if has_nodes { nodes::read::read(ctx, &fresh).await? } else { nodes::There::default() },
        slots,
        pod_security: pod_security(ctx, &namespace).await?,
        revisions,
        deployments: deployments(ctx, &namespace, &name).await?,
        pods: pods::tally(&items, ctx.now()),
        items,
        gateways,
        root: certificates::root::read(ctx, &namespace, &name).await?,
        gateway_api: gateway_api::find(ctx, fresh.spec.gateway_api.crds).await?,
        meshes,
        fresh,
    })
}

/// The mesh that has this cluster; none where one that does not decode may have it.
pub async fn mesh_of_cluster(ctx: &Context) -> Result<Option<MeshControlPlane>, apply::Error> {
    let meshes = reconciler::list_known(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let (meshes, all) = meshes.map_err(apply::Error::request("list", "meshes"))?;
    Ok(holder(&meshes).filter(|m| all || is_installed(m)).cloned())
}

/// The revisions of this very mesh, not of an earlier one of the same name.
pub async fn revisions(ctx: &Context, mcp: &MeshControlPlane) -> Result<Vec<MeshRevision>, apply::Error> {
    let namespace = mcp.namespace().unwrap_or_default();
    let api: Api<MeshRevision> = Api::namespaced(ctx.client.clone(), &namespace);
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(apply::Error::request("list", format!("revisions in {namespace}")))?;
    let uid = mcp.uid();
    Ok(list
        .items
        .into_iter()
        .filter(|r| r.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref()))
        .collect())
}

async fn pod_security(ctx: &Context, namespace: &str) -> Result<Option<String>, apply::Error> {
    let found = Api::<Namespace>::all(ctx.client.clone()).get_metadata_opt(namespace).await;
    let found = found.map_err(apply::Error::request("read", format!("Namespace {namespace}")))?;
    Ok(found.and_then(|namespace| nodes::missing::forbidding(namespace.labels())))
}

async fn deployments(
    ctx: &Context,
    namespace: &str,
    mesh: &str,
) -> Result<BTreeMap<String, Deployment>, apply::Error> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), namespace);
    let selector =
        format!("{}={mesh},{}={}", labels::MESH_NAME, labels::COMPONENT, labels::COMPONENT_CONTROL_PLANE);
    let list = api.list(&ListParams::default().labels(&selector)).await;
    let list = list.map_err(apply::Error::request("list", format!("deployments in {namespace}")))?;
    Ok(list.items.into_iter().map(|d| (d.name_any(), d)).collect())
}

fn request(action: &'static str, namespace: &str, name: &str) -> impl FnOnce(kube::Error) -> apply::Error {
    apply::Error::request(action, format!("MeshControlPlane {namespace}/{name}"))
}

async fn gateways(
    ctx: &Context,
    namespace: &str,
    mesh: &str,
) -> Result<BTreeMap<(String, String), GatewaySeen>, apply::Error> {
    let selector = format!(
        "{}={mesh},{}={namespace},{}={}",
        labels::MESH_NAME,
        labels::MESH_NAMESPACE,
        labels::COMPONENT,
        labels::COMPONENT_GATEWAY
    );
    let params = ListParams::default().labels(&selector);
    let failed = |kind: &'static str| apply::Error::request("list", format!("{kind} of gateways of {mesh}"));
    let deployments = Api::<Deployment>::all(ctx.client.clone()).list(&params).await;
    let services = Api::<Service>::all(ctx.client.clone()).list(&params).await;
    let mut gateways = BTreeMap::<(String, String), GatewaySeen>::new();
    for deployment in deployments.map_err(failed("deployments"))?.items {
        let (Some(gateway), Some(revision)) = (gateway_of(&deployment), label(&deployment, labels::REVISION))
        else {
            continue;
        };
        if is_of_gateway(&deployment) && deployment.metadata.deletion_timestamp.is_none() {
            gateways.entry(gateway).or_default().deployments.insert(revision, deployment);
        }
    }
    for service in services.map_err(failed("services"))?.items {
        let gateway = gateway_of(&service).filter(|_| is_of_gateway(&service));
        if let Some(gateway) = gateway.filter(|_| service.metadata.deletion_timestamp.is_none()) {
            gateways.entry(gateway).or_default().service = Some(service);
        }
    }
    Ok(gateways)
}

fn is_of_mesh(pod: &Pod, namespace: &str, mesh: &str) -> bool {
    let said = |name: &str| pod.labels().get(name).map(String::as_str);
    said(labels::MESH_NAME) == Some(mesh) && said(labels::MESH_NAMESPACE) == Some(namespace)
}

// Labels can be copied by anybody. A control plane is in the mesh's namespace, and a proxy belongs to a Gateway that has some; one that
// ends may have lost its Gateway just now.
fn is_ours(pod: &Pod, mesh: &str, gateways: &BTreeMap<(String, String), GatewaySeen>) -> bool {
    match label(pod, labels::COMPONENT).as_deref() {
        Some(labels::COMPONENT_GATEWAY) => {
            let ends = pod.metadata.deletion_timestamp.is_some();
            ends || gateway_of(pod).is_some_and(|gateway| gateways.contains_key(&gateway))
        }
        _ => pod.metadata.namespace.as_deref() == Some(mesh),
    }
}

// Who claims an owner that there is not has it removed by Kubernetes.
fn is_of_gateway<K: ResourceExt>(object: &K) -> bool {
    let is = |o: &OwnerReference| {
        o.controller == Some(true)
            && o.kind == Gateway::kind(&())
            && o.api_version.split_once('/').is_some_and(|(group, _)| group == Gateway::group(&()))
    };
    object.owner_references().iter().any(is)
}

fn label<K: ResourceExt>(object: &K, label: &str) -> Option<String> {
    object.labels().get(label).cloned()
}

fn gateway_of<K: ResourceExt>(object: &K) -> Option<(String, String)> {
    Some((object.namespace()?, label(object, labels::GATEWAY_NAME)?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(namespace: &str, component: &str, ends: bool) -> Pod {
        let labels = json!({labels::COMPONENT: component, labels::GATEWAY_NAME: "web"});
        let mut pod = json!({"metadata": {"name": "p", "namespace": namespace, "labels": labels}});
        if ends {
            pod["metadata"]["deletionTimestamp"] = "2026-11-20T12:00:00Z".into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_that_only_look_like_ours_do_not_count() {
        let gateways = BTreeMap::from([(("shop".to_owned(), "web".to_owned()), GatewaySeen::default())]);
        let ours = |namespace, component, ends| is_ours(&pod(namespace, component, ends), "mesh", &gateways);
        assert!(ours("mesh", labels::COMPONENT_CONTROL_PLANE, false));
        assert!(!ours("tenant", labels::COMPONENT_CONTROL_PLANE, false));
        assert!(ours("shop", labels::COMPONENT_GATEWAY, false));
        assert!(!ours("tenant", labels::COMPONENT_GATEWAY, false));
        assert!(ours("gone", labels::COMPONENT_GATEWAY, true), "its Gateway was deleted, and it drains");
    }

    #[test]
    fn workloads_without_a_gateway_do_not_count() {
        let owned = |kind: &str, version: &str, controller: bool| {
            let owner = json!({"apiVersion": version, "kind": kind, "name": "web", "uid": "u", "controller": controller});
            let object: Value = json!({"metadata": {"name": "d", "ownerReferences": [owner]}});
            is_of_gateway(&serde_json::from_value::<Deployment>(object).unwrap())
        };
        assert!(owned("Gateway", "gateway.networking.k8s.io/v1", true));
        assert!(!owned("Gateway", "gateway.networking.k8s.io/v1", false));
        assert!(!owned("Gateway", "gateway.networking.k8s.io.example/v1", true));
        assert!(!owned("ReplicaSet", "apps/v1", true));
    }
}
