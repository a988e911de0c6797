//! A namespace per test; when the test fails, what a person would ask for is kept before the namespace goes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{ListParams, LogParams, ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use meshwright_api::labels;

use super::node_proxy::{ADMIN, ADMIN_OF_GATEWAYS};
use super::{Env, get_on_socket, processes};
use crate::command::{run, search_path};
use crate::product::workspace;

/// What Envoy is asked for, and the files that the answers are kept in.
const DUMPS: [(&str, &str); 4] = [
    ("/config_dump?include_eds", "config.json"),
    ("/clusters", "clusters.txt"),
    ("/listeners", "listeners.txt"),
    ("/stats?usedonly", "stats.txt"),
];

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
        keep_all(client, &namespace, &[&namespace, "mesh", "meshwright-system"]).await;
    }
    // To its end: what is written in it meanwhile would count in the next test.
    let gone = env.delete_namespace(&namespace).await;
    match outcome {
        Ok(result) => result.and(gone),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Keeps what can tell later why something failed, under this name; what cannot be kept is said.
pub async fn keep_all(client: &Client, name: &str, namespaces: &[&str]) {
    for namespace in namespaces {
        let folder = workspace().join("target/kept").join(name).join(namespace);
        if let Err(error) = keep(client, namespace, &folder).await {
            eprintln!("could not keep logs of namespace {namespace}: {error:#}");
        }
    }
}

/// Keeps events, pods and logs of a namespace in a folder; of pods on this machine also their nftables, and of proxies what Envoy says.
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
        for (container, previous) in containers(&pod) {
            let of_container =
                LogParams { container: Some(container.clone()), previous, ..LogParams::default() };
            let log = pods.logs(&name, &of_container).await.unwrap_or_else(|e| e.to_string());
            let before = if previous { ".before" } else { "" };
            std::fs::write(folder.join(format!("{name}.{container}{before}.log")), log)?;
        }
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&pod)?)?;
        keep_network(&pod, folder).await?;
    }
    eprintln!("kept events, pods and logs of {namespace} in {}", folder.display());
    Ok(())
}

/// Containers of a pod, and again those that ran before and ended.
fn containers(pod: &Pod) -> Vec<(String, bool)> {
    let statuses = pod.status.iter().flat_map(|status| {
        let containers = status.container_statuses.iter();
        containers.chain(status.init_container_statuses.iter()).flatten()
    });
    let all = statuses.flat_map(|status| {
        let before = (status.restart_count > 0).then(|| (status.name.clone(), true));
        std::iter::once((status.name.clone(), false)).chain(before)
    });
    all.collect()
}

/// What of the mesh is in the pod's network, and what Envoy says where the pod is a proxy.
async fn keep_network(pod: &Pod, folder: &Path) -> Result<()> {
    let name = pod.name_any();
    let process = |container| processes(pod, container).map(|all| all.first().map(|pid| pid.as_raw_pid()));
    let own_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true));
    if let Some(pid) = process(None)?.filter(|_| own_network) {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net=/proc/{pid}/ns/net")).args(["--", "nft", "list", "ruleset"]);
        let rules = run(nft.env("PATH", search_path())).unwrap_or_else(|e| format!("{e:#}"));
        std::fs::write(folder.join(format!("{name}.nft")), rules)?;
    }
    let (container, admin) = match pod.labels().get(labels::COMPONENT).map(String::as_str) {
        Some(labels::COMPONENT_NODE) => ("envoy", ADMIN),
        Some(labels::COMPONENT_GATEWAY) => ("proxy", ADMIN_OF_GATEWAYS),
        _ => return Ok(()),
    };
    let Some(pid) = process(Some(container))? else { return Ok(()) };
    let socket = PathBuf::from(format!("/proc/{pid}/root/{admin}"));
    for (path, file) in DUMPS {
        let said = get_on_socket(&socket, path).await;
        let said = said.map_or_else(|e| format!("{e:#}"), |answer| answer.body);
        std::fs::write(folder.join(format!("{name}.{file}")), said)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn every_container_is_kept_and_what_it_was_before_it_ended() {
        let status = |name: &str, restarts: i32| json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": restarts});
        let statuses = json!({"containerStatuses": [status("agent", 0), status("envoy", 2)]});
        let pod: Pod = from_value(json!({"metadata": {}, "status": statuses})).unwrap();
        let expected = [("agent", false), ("envoy", false), ("envoy", true)];
        assert_eq!(containers(&pod), expected.map(|(name, before)| (name.to_owned(), before)));
    }
}
