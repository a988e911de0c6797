//! Every way to take the mesh away ends, leaves users' objects, and the mesh can be installed again.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};

use super::figures::Figure;
use super::mesh::{OPERATOR, OPERATOR_NAMESPACE, delete, meshes, namespaces, operator, present};
use super::observe::settled;
use super::table::Target;
use super::under_load::NAMESPACE;
use crate::command;
use crate::product::workspace;
use crate::testing::{Backend, DEADLINE, Env, MESH, exists, get};

/// Deletes, looks at what is left, and installs again.
///
/// # Errors
/// When something hangs, or is gone that was the user's, or stays that was ours.
pub async fn run(env: &Env, target: Target) -> Result<Vec<Figure>> {
    present(env).await?;
    let mut backend = Backend::installed(env, NAMESPACE).await?;
    let start = Instant::now();
    match target {
        Target::Mesh => {
            delete(env).await?;
            exists(&meshes(env), MESH, false, DEADLINE).await?;
            settled(env, false).await?;
        }
        Target::MeshNamespace => {
            deleted(env, &[MESH]).await?;
            settled(env, false).await?;
        }
        Target::OperatorNamespace => deleted(env, &[OPERATOR_NAMESPACE]).await?,
        Target::BothNamespaces => deleted(env, &[MESH, OPERATOR_NAMESPACE]).await?,
        Target::InstallFile => uninstalled(env).await?,
    }
    let took = start.elapsed();
    users_objects(env).await?;
    if matches!(target, Target::OperatorNamespace | Target::InstallFile) {
        // Without an operator the mesh runs on, and nothing hangs on an operator that does not come back.
        unheld(env).await?;
        let answer = get(backend.address, &backend.host(), Backend::PATH).await?;
        ensure!(answer.status == 200, "without the operator the gateway answers {answer:?}");
        env.delete_namespace(MESH).await?;
    }
    let again = Instant::now();
    if !matches!(target, Target::Mesh | Target::MeshNamespace) {
        operator(env).await?;
    }
    present(env).await?;
    // Services were made anew, in any order: another Gateway may have the address now.
    backend.address = env.address(NAMESPACE, Backend::GATEWAY, 80).await?;
    backend.answers().await?;
    Ok(vec![Figure::seconds("gone", took), Figure::seconds("installed again", again.elapsed())])
}

/// Deletes namespaces at once, and waits until they are gone.
async fn deleted(env: &Env, names: &[&str]) -> Result<()> {
    for name in names {
        namespaces(env).delete(name, &DeleteParams::default()).await?;
    }
    for name in names {
        env.gone(name).await?;
    }
    Ok(())
}

/// `kubectl delete -f install.yaml`, and no operator afterwards.
async fn uninstalled(env: &Env) -> Result<()> {
    let mut kubectl = env.cluster.kubectl()?;
    kubectl.args(["delete", "--timeout=300s", "-f"]).arg(workspace().join("target/dist/install.yaml"));
    tokio::task::spawn_blocking(move || command::run(&mut kubectl)).await??;
    let deployments = env.api("apps/v1", "Deployment", "deployments", OPERATOR_NAMESPACE);
    exists(&deployments, OPERATOR, false, DEADLINE).await
}

/// The Gateway, its route and its backends are the user's.
async fn users_objects(env: &Env) -> Result<()> {
    let gateway = env.gateways(NAMESPACE).get_opt(Backend::GATEWAY).await?;
    ensure!(gateway.is_some(), "the user's Gateway is gone");
    ensure!(env.routes(NAMESPACE).get_opt(Backend::GATEWAY).await?.is_some(), "the user's HTTPRoute is gone");
    let parameters = env.api("meshwright.io/v1alpha1", "GatewayParameters", "gatewayparameters", NAMESPACE);
    ensure!(parameters.get_opt(Backend::GATEWAY).await?.is_some(), "the user's GatewayParameters are gone");
    for name in ["a", "b"] {
        let deployment = env.api("apps/v1", "Deployment", "deployments", NAMESPACE).get_opt(name).await?;
        ensure!(deployment.is_some(), "the user's Deployment {name} is gone");
    }
    Ok(())
}

/// No finalizer is left on what the operator kept.
async fn unheld(env: &Env) -> Result<()> {
    let revisions = env.api("meshwright.io/v1alpha1", "MeshRevision", "meshrevisions", MESH);
    for api in [meshes(env), revisions] {
        let api: Api<DynamicObject> = api;
        for object in api.list(&ListParams::default()).await? {
            let held = object.finalizers();
            ensure!(held.is_empty(), "{} keeps finalizers {held:?}", object.name_any());
        }
    }
    Ok(())
}
