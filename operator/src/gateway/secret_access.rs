//! Which namespaces' Secrets control planes may read: those that a listener of one of our Gateways names, in the
//! Gateway's own namespace or permitted there by a ReferenceGrant. The right goes as soon as the reference or the grant
//! does. It covers all Secrets of such a namespace, because RBAC cannot say less for a watch.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{api::rbac::v1::RoleBinding, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, ResourceExt, api::ListParams, core::ApiResource, runtime::controller::Action};
use meshwright_api::{
    CONTROLLER_NAME, MeshControlPlane, MeshRevision,
    gateway::{Gateway, GatewayClass, ReferenceGrant},
    labels,
};

use crate::{
    apply::{self, Desired, Error, prune},
    context::Context,
    error,
    mesh_control_plane::{build, holder},
    reconciler,
};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "secret-access";
/// The role, and the name of every binding to it.
pub const ROLE: &str = "meshwright-gateway-secrets";
/// Value of the component label of these bindings.
const COMPONENT: &str = "secret-access";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Brings the bindings to what Gateways and grants say.
pub async fn reconcile(mcp: Arc<MeshControlPlane>, ctx: Arc<Context>) -> Result<Action, Error> {
    let meshes =
        reconciler::list::<MeshControlPlane>(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let meshes = meshes.map_err(Error::request("list", "meshes"))?;
    let serves =
        holder(&meshes).is_some_and(|m| m.uid() == mcp.uid() && m.metadata.deletion_timestamp.is_none());
    if !serves || ctx.leaving.is_cancelled() {
        return Ok(error::settled(None));
    }
    let all = ListParams::default();
    let classes = reconciler::list::<GatewayClass>(Api::all(ctx.client.clone()), &all).await;
    let classes = classes.map_err(Error::request("list", "GatewayClasses"))?;
    let gateways = reconciler::list::<Gateway>(Api::all(ctx.client.clone()), &all).await;
    let gateways = gateways.map_err(Error::request("list", "Gateways"))?;
    let grants = reconciler::list::<ReferenceGrant>(Api::all(ctx.client.clone()), &all).await;
    let grants = grants.map_err(Error::request("list", "ReferenceGrants"))?;
    let ours: Vec<&Gateway> = gateways.iter().filter(|g| is_ours(g, &classes)).collect();
    let permitted = permitted(&ours, &grants);

    let mesh_namespace = mcp.namespace().unwrap_or_default();
    let revisions =
        Api::<kube::core::DeserializeGuard<MeshRevision>>::namespaced(ctx.client.clone(), &mesh_namespace);
    let revisions = reconciler::list(revisions, &all).await.map_err(Error::request("list", "revisions"))?;
    let mut readers: Vec<String> =
        revisions.iter().filter(|r| r.spec.mesh == mcp.name_any()).map(ResourceExt::name_any).collect();
    readers.sort();
    let desired = permitted
        .iter()
        .filter(|_| !readers.is_empty())
        .map(|namespace| Desired::new(&binding(&mcp, namespace, &readers)))
        .collect::<Result<Vec<_>, _>>()?;
    apply::apply(&ctx, &desired).await?;
    let selector = format!(
        "{}={},{}={},{}={COMPONENT}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::MESH_NAME,
        mcp.name_any(),
        labels::COMPONENT
    );
    let kind = ApiResource::erase::<RoleBinding>(&());
    prune(&ctx, &kind, None, &selector, |o| permitted.contains(&o.namespace().unwrap_or_default())).await?;
    Ok(error::settled(None))
}

fn is_ours(gateway: &Gateway, classes: &[GatewayClass]) -> bool {
    let class = classes.iter().find(|c| c.name_any() == gateway.spec.gateway_class_name);
    class.is_some_and(|c| c.spec.controller_name == CONTROLLER_NAME)
}

/// Namespaces with a Secret that a listener names and may name.
pub fn permitted(gateways: &[&Gateway], grants: &[ReferenceGrant]) -> BTreeSet<String> {
    let mut namespaces = BTreeSet::new();
    for gateway in gateways {
        let own = gateway.namespace().unwrap_or_default();
        let tls = gateway.spec.listeners.iter().filter_map(|l| l.tls.as_ref());
        for secret in tls.flat_map(|t| t.certificate_refs.iter().flatten()) {
            let is_secret = secret.group.as_deref().unwrap_or_default().is_empty()
                && secret.kind.as_deref().unwrap_or("Secret") == "Secret";
            let namespace = secret.namespace.as_deref().unwrap_or(&own);
            if is_secret && (namespace == own || granted(grants, &own, namespace, &secret.name)) {
                namespaces.insert(namespace.to_owned());
            }
        }
    }
    namespaces
}

fn granted(grants: &[ReferenceGrant], from: &str, namespace: &str, secret: &str) -> bool {
    grants.iter().filter(|g| g.namespace().as_deref() == Some(namespace)).any(|grant| {
        let from_gateways = grant
            .spec
            .from
            .iter()
            .any(|f| f.group == GATEWAY_GROUP && f.kind == "Gateway" && f.namespace == from);
        let to_secret = grant.spec.to.iter().any(|t| {
            t.group.is_empty()
                && t.kind == "Secret"
                && t.name.as_deref().is_none_or(|name| name.is_empty() || name == secret)
        });
        from_gateways && to_secret
    })
}

fn binding(mcp: &MeshControlPlane, namespace: &str, readers: &[String]) -> RoleBinding {
    let mesh_namespace = mcp.namespace().unwrap_or_default();
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(ROLE.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(build::shared::labels(
                &mcp.name_any(),
                &mesh_namespace,
                &[(labels::COMPONENT, COMPONENT)],
            )),
            ..ObjectMeta::default()
        },
        role_ref: build::role_ref(ROLE),
        subjects: Some(readers.iter().map(|r| build::subject(&mesh_namespace, r)).collect()),
    }
}
