//! The operator's own end. When its namespace or Deployment goes while a mesh exists, nobody would be left to take our
//! finalizers off: a deletion under way is finished, and otherwise the finalizers go and the mesh runs on.

use std::{sync::Arc, time::Duration};

use futures::{TryStreamExt, future::join_all};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Namespace};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use meshwright_api::{MeshControlPlane, MeshRevision};

use crate::{
    apply::Error,
    context::Context,
    error::{self, Class},
    mesh_control_plane, mesh_revision, reconciler,
};

/// Rights may be going too: few and quick attempts.
const ATTEMPTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(250);
/// Longest time for one of them; a read has no limit of its own.
const ATTEMPT: Duration = Duration::from_secs(20);
/// Longest wait for an answer on SIGTERM: the Lease must still be released.
const ANSWER: Duration = Duration::from_secs(3);
/// What the leader has not let go of by then, a replica that stands by does: the leader may have ended in between.
const LEADERS: Duration = Duration::from_secs(10);
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
                // Somebody wrote in between: at once, because the rights go too.
                if error.class() != Class::Conflict {
                    tokio::time::sleep(BETWEEN).await;
                }
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

/// For a replica that stands by: only what the leader leaves undone.
pub async fn after_the_leader(ctx: &Arc<Context>) {
    let done = async {
        while !matches!(mesh_control_plane::held(ctx).await, Ok(held) if held.is_empty()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    if tokio::time::timeout(LEADERS, done).await.is_err() {
        say(ctx).await;
    }
}

async fn clear(ctx: &Context, mesh: &MeshControlPlane) {
    if let Err(error) = mesh_control_plane::clear(ctx, mesh).await {
        tracing::warn!(mesh = %mesh.name_any(), error = %error::chain(&error), "objects of the mesh stay");
    }
}

// What fails for one does not keep the others waiting: the rights may be gone before the next attempt.
async fn let_go(ctx: &Context) -> Result<(), Error> {
    let (meshes, revisions) = tokio::join!(let_go_of_meshes(ctx), let_go_of_revisions(ctx));
    for mesh in &meshes? {
        // What a reconcile that was under way wrote in between.
        clear(ctx, mesh).await;
    }
    revisions
}

// Returns those that are going.
async fn let_go_of_meshes(ctx: &Context) -> Result<Vec<MeshControlPlane>, Error> {
    let mut going = Vec::new();
    for mesh in mesh_control_plane::held(ctx).await? {
        // The finalizer goes whether or not the cleaning up succeeds, and after one pass of it: nothing must hang.
        let goes = is_going(ctx, &mesh).await;
        if goes {
            clear(ctx, &mesh).await;
        }
        mesh_control_plane::release(ctx, &mesh).await?;
        going.extend(goes.then_some(mesh));
    }
    Ok(going)
}

async fn let_go_of_revisions(ctx: &Context) -> Result<(), Error> {
    let revisions =
        reconciler::list::<MeshRevision>(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let revisions = revisions.map_err(Error::request("list", "revisions"))?;
    let released = join_all(revisions.iter().map(|r| mesh_revision::release(ctx, r))).await;
    released.into_iter().try_for_each(|released| released.map(drop))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::apply::tests::{answering, standing_by};

    const MESH: &str = "/apis/meshwright.io/v1alpha1/namespaces/prod/meshcontrolplanes/mesh";

    fn answer(what: &str) -> (u16, Value) {
        let mesh = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane", "spec": {},
            "metadata": {"name": "mesh", "namespace": "prod", "resourceVersion": "7", "uid": "u",
                "deletionTimestamp": "2026-11-20T12:00:00Z", "finalizers": [mesh_control_plane::FINALIZER]}});
        let list =
            |items: &[&Value]| json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items});
        match what {
            "GET /apis/meshwright.io/v1alpha1/meshcontrolplanes" => (200, list(&[&mesh])),
            _ if what.contains(MESH) => (200, mesh),
            _ if what.contains("/secrets/") || what.ends_with("gateway.networking.k8s.io/v1") => {
                (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}))
            }
            _ => (200, list(&[])),
        }
    }

    #[tokio::test]
    async fn who_leaves_lets_go_after_one_pass_and_without_a_lease() {
        let (ctx, asked) = answering(standing_by(), answer);
        let ctx = Arc::new(ctx);
        assert!(let_go(&ctx).await.is_err(), "a replica that stands by must not");
        asked.lock().unwrap().clear();
        say(&ctx).await;
        let asked = asked.lock().unwrap().clone();
        let place =
            |what: &str| asked.iter().position(|a| a == what).unwrap_or_else(|| panic!("{what}: {asked:?}"));
        let passes = asked.iter().filter(|a| *a == "GET /apis/apps/v1/deployments").count();
        assert_eq!(passes, 2, "{asked:?}");
        let let_go = place(&format!("PATCH {MESH}"));
        assert!(place("GET /apis/apps/v1/deployments") < let_go);
        assert!(asked[let_go..].contains(&"GET /apis/apps/v1/deployments".to_owned()), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_by_does_what_the_leader_leaves_undone() {
        let (ctx, asked) = answering(standing_by(), answer);
        after_the_leader(&Arc::new(ctx)).await;
        assert!(asked.lock().unwrap().contains(&format!("PATCH {MESH}")));
        let nothing =
            |_: &str| (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}));
        let (ctx, asked) = answering(standing_by(), nothing);
        after_the_leader(&Arc::new(ctx)).await;
        assert_eq!(asked.lock().unwrap().len(), 1, "the leader has done it all");
    }
}
