//! The control plane is away for minutes, and pods come and go: those that are in the mesh notice nothing, also when an Envoy ends meanwhile;
//! new ones wait and say why; those outside the mesh start.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::figures::Figure;
use super::kill::fresh;
use super::mesh::{OPERATOR, OPERATOR_NAMESPACE, installed, namespaces, present};
use super::node_proxies::{NODE_PROXIES, each_node, judged};
use super::observe::settled;
use crate::testing::{
    DEADLINE, Env, MESH, Many, Probes, active_revision, are_listed, eventually, kill_node_proxy, pods_of,
};

/// Namespaces of pods that come meanwhile, in the mesh and outside.
const MEMBERS: &str = "away-members";
const OUTSIDE: &str = "away-outside";
/// The kubelet's word for a network plugin that failed.
const WAITS: &str = "FailedCreatePodSandBox";
/// The plugin's own: what an event must have in it.
const PLUGIN: &str = "meshwright";
/// Of a pod that lives on while others come and go.
const OLD: &str = "old";

/// For so many minutes. An Envoy is killed when half of them are over.
///
/// # Errors
/// When somebody noticed who must not, or a new pod of the mesh does not wait, or for ever.
pub async fn run(env: &Env, repetition: u32, minutes: u64) -> Result<Vec<Figure>> {
    present(env).await?;
    fresh(env, MESH, NODE_PROXIES).await?;
    for namespace in [MEMBERS, OUTSIDE] {
        if namespaces(env).get_opt(namespace).await?.is_some() {
            env.delete_namespace(namespace).await?;
        }
        Many::namespace(env, namespace, namespace == MEMBERS).await?;
    }
    let each = each_node(env).await?;
    let members = Many::of(MEMBERS)?;
    // The nodes know the namespace by then: of one that they have never heard of pods may start.
    members.create(env, vec![members.pod(OLD, OLD, None)]).await?;
    are_listed(env, &members.run(env, OLD, 1).await?, true).await?;
    let revision = active_revision(env).await?;
    let probes = each.probes(env).await?;
    let start = Instant::now();
    let outcome = away(env, &revision, repetition, Duration::from_secs(60 * minutes), probes, &each).await;
    let back = Instant::now();
    // Whatever came of it.
    scale(env, MESH, &revision, 3).await?;
    scale(env, OPERATOR_NAMESPACE, OPERATOR, 2).await?;
    let mut figures = outcome?;
    figures.push(Figure::seconds("away", back.duration_since(start)));
    let waiting = members.run(env, "new", 3).await?;
    figures.push(Figure::seconds("control plane wanted again to waiting pods running", back.elapsed()));
    installed(env).await?;
    settled(env, true).await?;
    are_listed(env, &waiting, true).await?;
    are_listed(env, &each.pods, true).await?;
    let now = pods_of(&env.client, "each-node", "group=each").await?;
    ensure!(now == each.pods, "pods were {:?}, and now they are {now:?}", each.pods);
    for namespace in [MEMBERS, OUTSIDE, "each-node"] {
        env.delete_namespace(namespace).await?;
    }
    Ok(figures)
}

async fn away(
    env: &Env,
    revision: &str,
    repetition: u32,
    time: Duration,
    probes: Probes,
    each: &crate::testing::EachNode,
) -> Result<Vec<Figure>> {
    // The operator first: it would mend what is missing.
    scale(env, OPERATOR_NAMESPACE, OPERATOR, 0).await?;
    scale(env, MESH, revision, 0).await?;
    let start = Instant::now();
    let (members, outside) = (Many::of(MEMBERS)?, Many::of(OUTSIDE)?);
    members.create(env, (0..3).map(|pod| members.pod(&format!("new-{pod}"), "new", None)).collect()).await?;
    outside.create(env, (0..3).map(|pod| outside.pod(&format!("new-{pod}"), "new", None)).collect()).await?;
    outside.run(env, "new", 3).await?;
    let outside_run = start.elapsed();
    waits(env).await?;
    let said = start.elapsed();
    members.delete(env, OLD).await?;
    tokio::time::sleep((time / 2).saturating_sub(start.elapsed())).await;
    // Until now nothing of the mesh has ended but what tells it.
    let quiet = probes.stop().await?;
    for path in &quiet {
        let (from, to) = (&path.from, &path.to);
        ensure!(path.failed.is_empty(), "from {from} to {to}, nothing was killed: {:?}", path.failures);
    }
    let nodes = env.cluster.node_names().await?;
    let node = nodes.get(repetition as usize % nodes.len().max(1)).context("a node")?;
    let probes = each.probes(env).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let killed = Instant::now();
    let ready = kill_node_proxy(env, node, Some("envoy")).await;
    tokio::time::sleep(time.saturating_sub(start.elapsed()).max(Duration::from_secs(10))).await;
    let paths = probes.stop().await?;
    ready?;
    let mut figures = judged("Envoy", node, &paths, killed)?;
    let running = pods_of_group(env, "new").await?;
    ensure!(running == 0, "{running} pods of the mesh started without a control plane");
    let asked: u64 = quiet.iter().map(|path| path.asked).sum();
    figures.extend([
        Figure::count("questions while nothing was killed, none failed", asked, "questions"),
        Figure::seconds("pods outside created to running", outside_run),
        Figure::seconds("pods of the mesh created to an event", said),
    ]);
    Ok(figures)
}

/// Waits until every new pod of the mesh has an event that says what it waits for.
async fn waits(env: &Env) -> Result<()> {
    let events: Api<Event> = Api::namespaced(env.client.clone(), MEMBERS);
    let words = eventually("an event of every new pod that says what it waits for", DEADLINE, || async {
        let list = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let about = |pod: &str| {
            let mut all = list.items.iter().filter(|event| {
                event.involved_object.name.as_deref() == Some(pod) && event.reason.as_deref() == Some(WAITS)
            });
            all.find_map(|event| event.message.clone().filter(|text| text.contains(PLUGIN)))
        };
        let found: Vec<_> = (0..3).filter_map(|pod| about(&format!("new-{pod}"))).collect();
        if found.len() == 3 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await?;
    println!("  a new pod's event: {}", words.first().map_or("", String::as_str));
    Ok(())
}

async fn pods_of_group(env: &Env, group: &str) -> Result<usize> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(env.client.clone(), MEMBERS);
    let list = pods.list(&ListParams::default().labels(&format!("group={group}"))).await?;
    let runs = |pod: &&k8s_openapi::api::core::v1::Pod| {
        pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
    };
    Ok(list.items.iter().filter(runs).count())
}

/// Sets the replicas of a Deployment, and waits until none runs where none is wanted. Autoscalers leave one with none alone.
async fn scale(env: &Env, namespace: &str, name: &str, replicas: u32) -> Result<()> {
    let deployments = env.api("apps/v1", "Deployment", "deployments", namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch(name, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("scale {namespace}/{name} to {replicas}"))?;
    if replicas > 0 {
        return Ok(());
    }
    let selector = deployments.get(name).await?.data["spec"]["selector"]["matchLabels"].clone();
    let labels = selector.as_object().context("labels of a Deployment's pods")?;
    let labels: Vec<_> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let pods = env.api("v1", "Pod", "pods", namespace);
    let ours = ListParams::default().labels(&labels.join(","));
    eventually(&format!("no pod of {namespace}/{name}"), DEADLINE, || async {
        match pods.list_metadata(&ours).await.map_err(|e| e.to_string())?.items.len() {
            0 => Ok(()),
            left => Err(format!("{left} pods")),
        }
    })
    .await
}
