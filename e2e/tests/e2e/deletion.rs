//! Deleting the mesh ends, leaves users' objects and nothing of ours.

use anyhow::{Result, ensure};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use meshwright_e2e::testing::{eventually, exists};

use crate::env::{DEADLINE, Env, MESH};

#[tokio::test]
async fn deleting_the_mesh_leaves_users_objects_and_nothing_of_ours() -> Result<()> {
    let env = Env::with_mesh().await?;
    crate::bookinfo::installed(&env).await?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    meshes.delete(MESH, &DeleteParams::default()).await?;
    exists(&meshes, MESH, false, DEADLINE).await?;
    ensure!(env.gateways("bookinfo").get_opt("bookinfo").await?.is_some(), "the user's Gateway is gone");
    ensure!(env.routes("bookinfo").get_opt("bookinfo").await?.is_some(), "the user's HTTPRoute is gone");
    let kinds = [
        ("apps", "Deployment", "deployments"),
        ("autoscaling", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
        ("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings"),
        ("", "Service", "services"),
        ("", "Secret", "secrets"),
        ("", "ConfigMap", "configmaps"),
    ];
    for (group, kind, plural) in kinds {
        let version = if group == "autoscaling" { "v2" } else { "v1" };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let all: Api<DynamicObject> = Api::all_with(env.client.clone(), &resource);
        eventually(&format!("every {kind} of the mesh to be gone"), DEADLINE, || async {
            let ours = ListParams::default()
                .labels("app.kubernetes.io/managed-by=meshwright,meshwright.io/mesh-name=mesh");
            let left: Vec<_> = all
                .list(&ours)
                .await
                .map_err(|e| e.to_string())?
                .into_iter()
                .filter_map(|o| o.metadata.name)
                .collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn deleting_the_meshs_and_the_operators_namespace_at_once_ends() -> Result<()> {
    let env = Env::with_mesh().await?;
    let gvk = GroupVersionKind::gvk("", "v1", "Namespace");
    let namespaces: Api<DynamicObject> =
        Api::all_with(env.client.clone(), &ApiResource::from_gvk_with_plural(&gvk, "namespaces"));
    for name in [MESH, "meshwright-system"] {
        namespaces.delete(name, &DeleteParams::default()).await?;
    }
    for name in [MESH, "meshwright-system"] {
        exists(&namespaces, name, false, DEADLINE).await?;
    }
    Ok(())
}
