//! The operator's own end. When its namespace or Deployment goes while a mesh exists, nobody would be left to take our
//! finalizers off: a deletion under way is finished, and otherwise the finalizers go and the mesh runs on.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, controller::Action, watcher},
};
use meshwright_api::{MeshControlPlane, MeshRevision};

use crate::{apply::Error, context::Context, error, mesh_control_plane, mesh_revision, reconciler};

/// Rights may be going too: few and quick attempts.
const ATTEMPTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(250);
/// Longest time for one of them; a read has no limit of its own.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Longest wait for an answer on SIGTERM: the Lease must still be released.
const ANSWER: Duration = Duration::from_secs(3);
/// So long the process waits for its end after it has let go of everything.
pub const WAIT: Duration = Duration::from_secs(60);

/// Returns when the operator's namespace or Deployment is being deleted.
pub async fn noticed(ctx: &Context) {
    let settings = &ctx.settings;
    let namespace: Api<PartialObjectMeta<Namespace>> = Api::all(ctx.client.clone());
    let deployment: Api<PartialObjectMeta<Deployment>> =
        Api::namespaced(ctx.client.clone(), &settings.namespace);
    tokio::select! {
        () = gone(namespace, &settings.namespace) => {}
        () = gone(deployment, &settings.deployment) => {}
    }
    tracing::warn!("the operator is being removed");
}

async fn gone<K>(api: Api<PartialObjectMeta<K>>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    // Out of a cluster there is no such Deployment: what was never there cannot go.
    let mut seen = false;
    loop {
        match stream.try_next().await {
            Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                seen = true;
                if object.metadata.deletion_timestamp.is_some() {
                    return;
                }
            }
            Ok(Some(watcher::Event::Delete(_))) if seen => return,
            Ok(Some(_)) => {}
            Ok(None) => return std::future::pending().await,
            Err(error) => tracing::debug!(%error, name, "watch of our own objects"),
        }
    }
}

/// On SIGTERM: was it a restart, or the end? The watch may not have had the time to say.
pub async fn is_the_end(ctx: &Context) -> bool {
    tokio::time::timeout(ANSWER, is_going_away(ctx)).await.unwrap_or_default()
}

async fn is_going_away(ctx: &Context) -> bool {
    let settings = &ctx.settings;
    let namespace: Api<Namespace> = Api::all(ctx.client.clone());
    let namespace = namespace.get_metadata_opt(&settings.namespace).await;
    let deployment: Api<Deployment> = Api::namespaced(ctx.client.clone(), &settings.namespace);
    let deployment = deployment.get_metadata_opt(&settings.deployment).await;
    matches!(namespace, Ok(Some(n)) if n.metadata.deletion_timestamp.is_some())
        || matches!(deployment, Ok(Some(d)) if d.metadata.deletion_timestamp.is_some())
}

/// Lets go of everything.
pub async fn say(ctx: &Arc<Context>) {
    ctx.leaving.cancel();
    for attempt in 1..=ATTEMPTS {
        match tokio::time::timeout(ATTEMPT, let_go(ctx)).await {
            Ok(Ok(())) => {
                tracing::info!("no finalizer of ours is left");
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error::chain(&error), attempt, "could not let go of a mesh");
                tokio::time::sleep(BETWEEN).await;
            }
            Err(_) => tracing::warn!(attempt, "could not let go of a mesh: the API server does not answer"),
        }
    }
}

// With both namespaces deleted at once, the mesh's own deletion may not have reached the MeshControlPlane yet.
async fn is_going(ctx: &Context, mesh: &MeshControlPlane) -> bool {
    let namespaces: Api<Namespace> = Api::all(ctx.client.clone());
    let namespace = namespaces.get_metadata_opt(&mesh.namespace().unwrap_or_default()).await;
    mesh.metadata.deletion_timestamp.is_some()
        || matches!(namespace, Ok(Some(n)) if n.metadata.deletion_timestamp.is_some())
}

// The first pass deletes, the second finds nothing more; no third, because our rights may be going.
async fn finish(ctx: &Context, mesh: &MeshControlPlane) -> Result<(), mesh_control_plane::DeletionError> {
    if mesh_control_plane::finish(ctx, mesh).await? != Action::await_change() {
        mesh_control_plane::finish(ctx, mesh).await?;
    }
    Ok(())
}

async fn let_go(ctx: &Context) -> Result<(), Error> {
    for mesh in mesh_control_plane::held(ctx).await? {
        // The finalizer goes whether or not the cleaning up succeeds: nothing must hang.
        if is_going(ctx, &mesh).await
            && let Err(error) = finish(ctx, &mesh).await
        {
            tracing::warn!(mesh = %mesh.name_any(), error = %error::chain(&error), "objects of the mesh stay");
        }
        mesh_control_plane::release(ctx, &mesh).await?;
    }
    let revisions =
        reconciler::list::<MeshRevision>(Api::all(ctx.client.clone()), &ListParams::default()).await;
    for revision in revisions.map_err(Error::request("list", "revisions"))? {
        mesh_revision::release(ctx, &revision).await?;
    }
    Ok(())
}
