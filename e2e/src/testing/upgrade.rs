//! Upgrades as a person does them: asked for by the spec and by annotations, followed in the status.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{TryStreamExt, pin_mut};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use meshwright_api::{MeshControlPlane, MeshControlPlaneStatus, labels};
use serde_json::json;
use tokio::sync::watch;

use super::{Env, IN_PLACE, MESH, MESH_YAML, apply_yaml};

/// Settings of `spec.upgrade` that measure what the defaults measure, in less time.
pub const QUICK: &str = "{ steps: [ { percent: 25, hold: 10s }, { percent: 50, hold: 10s } ], bake: 10s, keepWarm: 20s, \
                         analysis: { deadline: 3m } }";
/// Generous, for one of these and for its last connections, which may take five minutes.
pub const LONGEST: Duration = Duration::from_secs(1200);
/// What a person asks for; more than one at once would be a contradiction, and one that was carried out must not be again.
const WISHES: [&str; 5] =
    [labels::APPROVE, labels::ACKNOWLEDGE, labels::ROLLBACK, labels::RETRY, labels::END_KEEP_WARM];
const LOOK: Duration = Duration::from_millis(100);

/// The mesh of all tests with this version and `spec.upgrade`.
pub fn mesh_yaml(version: Option<&str>, upgrade: &str) -> String {
    let version = version.map(|version| format!("  version: {version}\n")).unwrap_or_default();
    MESH_YAML.replace(IN_PLACE, upgrade) + &version
}

/// Makes the spec say so.
///
/// # Errors
/// With the API server's words.
pub async fn ask(env: &Env, version: Option<&str>, upgrade: &str) -> Result<()> {
    apply_yaml(&env.client, &mesh_yaml(version, upgrade), MESH).await
}

/// Makes this the only thing that annotations ask for.
///
/// # Errors
/// With the API server's words.
pub async fn wish(env: &Env, wish: Option<(&str, &str)>) -> Result<()> {
    let mut annotations: BTreeMap<&str, Option<&str>> = WISHES.into_iter().map(|key| (key, None)).collect();
    annotations.extend(wish.map(|(key, value)| (key, Some(value))));
    let patch = json!({"metadata": {"annotations": annotations}});
    let patched = meshes(env).patch(MESH, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.with_context(|| format!("annotate the mesh with {wish:?}")).map(drop)
}

/// Our own name, as the API server knows it.
///
/// # Errors
/// When it does not say.
pub async fn user(env: &Env) -> Result<String> {
    let reviews = Api::<SelfSubjectReview>::all(env.client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let info = review.context("ask who we are")?.status.and_then(|status| status.user_info);
    info.and_then(|info| info.username).context("a user without a name")
}

/// What is said of the mesh.
///
/// # Errors
/// When there is none.
pub async fn status(env: &Env) -> Result<MeshControlPlaneStatus> {
    let mesh = meshes(env).get(MESH).await.context("read the MeshControlPlane")?;
    Ok(mesh.status.unwrap_or_default())
}

/// Looks until there is something to find, or no more hope.
///
/// # Errors
/// After the deadline, or with what `look` says.
pub async fn follow<T>(
    env: &Env,
    what: &str,
    deadline: Duration,
    mut look: impl FnMut(&MeshControlPlaneStatus) -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        // An API server that is busy for a moment is no answer.
        let seen = status(env).await;
        if let Ok(status) = &seen {
            let found = look(status).with_context(|| format!("waiting for {what}: {}", describe(status)))?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if start.elapsed() > deadline {
            let seen = seen.as_ref().map_or_else(|e| format!("{e:#}"), describe);
            bail!("{what}: not after {} s; last seen: {seen}", deadline.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The newest status, each time that it changes.
pub fn watched(env: &Env) -> watch::Receiver<MeshControlPlaneStatus> {
    let (sender, receiver) = watch::channel(MeshControlPlaneStatus::default());
    let config = watcher::Config::default().fields(&format!("metadata.name={MESH}"));
    let changes = watcher(meshes(env), config).default_backoff().applied_objects();
    tokio::spawn(async move {
        pin_mut!(changes);
        loop {
            tokio::select! {
                () = sender.closed() => return,
                // After an error the next item is of a new watch.
                change = changes.try_next() => match change {
                    Ok(Some(mesh)) => drop(sender.send_replace(mesh.status.unwrap_or_default())),
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        }
    });
    receiver
}

fn meshes(env: &Env) -> Api<MeshControlPlane> {
    Api::namespaced(env.client.clone(), MESH)
}

fn describe(status: &MeshControlPlaneStatus) -> String {
    let upgrade = serde_json::to_string(&status.upgrade).unwrap_or_default();
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    format!("upgrade {upgrade}, conditions [{}]", conditions.join("; "))
}

#[cfg(test)]
mod tests {
    use meshwright_api::Upgrade;
    use serde::Deserialize;

    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn the_mesh_of_tests_takes_a_version_and_settings() {
        let steps = Upgrade::default().steps.len();
        for (version, upgrade, steps) in [(Some("0.3.0"), QUICK, 2), (None, IN_PLACE, steps)] {
            let objects = objects_in(&mesh_yaml(version, upgrade)).unwrap();
            let spec = &objects[1].data["spec"];
            assert_eq!(spec["version"].as_str(), version);
            assert_eq!(Upgrade::deserialize(&spec["upgrade"]).unwrap().steps.len(), steps);
            assert!(spec["controlPlane"].is_object());
        }
    }
}
