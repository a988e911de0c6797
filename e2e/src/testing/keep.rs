//! A namespace per test; when the test fails, what a person would ask for is kept before the namespace goes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{ListParams, LogParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};

use super::Env;
use crate::product::workspace;

/// Runs the test in a fresh namespace `<prefix>-<random>`, deletes that afterwards and waits for its end.
///
/// # Panics
/// When the test does.
///
/// # Errors
/// What the test returns, or when its namespace does not end.
pub async fn with_namespace<F, Fut>(env: &Env, prefix: &str, test: F) -> Result<()>
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let client = &env.client;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
    let namespace = namespaces
        .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
        .await
        .with_context(|| format!("create a namespace for {prefix}"))?
        .name_any();
    let outcome = AssertUnwindSafe(test(namespace.clone())).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        for kept in [namespace.as_str(), "mesh", "meshwright-system"] {
            if let Err(error) =
                keep(client, kept, &workspace().join("target/kept").join(&namespace).join(kept)).await
            {
                eprintln!("could not keep logs of namespace {kept}: {error:#}");
            }
        }
    }
    // To its end: what is written in it meanwhile would count in the next test.
    let gone = env.delete_namespace(&namespace).await;
    match outcome {
        Ok(result) => result.and(gone),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Keeps events, pods and logs of a namespace in a folder.
///
/// # Errors
/// When they cannot be read or written.
pub async fn keep(client: &Client, namespace: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut lines = String::new();
    for event in events.list(&ListParams::default()).await? {
        let about = event.involved_object;
        lines += &format!(
            "{} {}/{} {} {}\n",
            event.type_.unwrap_or_default(),
            about.kind.unwrap_or_default(),
            about.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
    std::fs::write(folder.join("events.txt"), lines)?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&ListParams::default()).await? {
        let name = pod.name_any();
        let log = pods.logs(&name, &LogParams::default()).await.unwrap_or_else(|e| e.to_string());
        std::fs::write(folder.join(format!("{name}.log")), log)?;
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&pod)?)?;
    }
    eprintln!("kept events, pods and logs of {namespace} in {}", folder.display());
    Ok(())
}
