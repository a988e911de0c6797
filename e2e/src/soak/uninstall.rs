//! The mesh is installed and taken away again, under pods that run on: on the nodes everything is as before.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use kube::api::ListParams;
use meshwright_api::labels;

use super::figures::Figure;
use super::mesh::{absent, namespaces, present};
use super::observe::settled;
use crate::testing::{
    DEADLINE, EachNode, Env, Installed, MESH, Many, OnNode, are_listed, eventually, pods_of,
};

const NAMESPACE: &str = "uninstalled";
/// In the name of the network plugin's program.
const PROGRAM: &str = "meshwright-cni";

/// Every other time by deleting the mesh's namespace.
///
/// # Errors
/// When something is not as before, or a pod is not the same.
pub async fn run(env: &Env, repetition: u32) -> Result<Vec<Figure>> {
    absent(env).await?;
    if namespaces(env).get_opt(NAMESPACE).await?.is_some() {
        env.delete_namespace(NAMESPACE).await?;
    }
    Many::namespace(env, NAMESPACE, true).await?;
    // They know nothing of a mesh when they start.
    let each = EachNode::installed(env, NAMESPACE).await?;
    let before = quiet(env).await?;
    let tables = before.values().flat_map(|node| &node.tables);
    let ours: Vec<_> = tables.filter(|(_, table)| table.contains("meshwright")).collect();
    ensure!(ours.is_empty(), "without a mesh there are nftables of it: {ours:?}");
    let start = Instant::now();
    present(env).await?;
    are_listed(env, &each.pods, true).await?;
    let there = start.elapsed();
    ensure!(OnNode::all(env).await? != before, "a mesh that captures pods leaves no trace on nodes");
    let start = Instant::now();
    if repetition.is_multiple_of(2) {
        absent(env).await?;
    } else {
        env.delete_namespace(MESH).await?;
        settled(env, false).await?;
    }
    let kept = eventually("nodes as before", DEADLINE, || async {
        let now = OnNode::all(env).await.map_err(|e| format!("{e:#}"))?;
        let (program, others): (Vec<_>, Vec<_>) = OnNode::differences_of_all(&before, &now)
            .into_iter()
            .partition(|what| what.contains(PROGRAM) && what.contains("/bin/"));
        if others.is_empty() { Ok(program) } else { Err(others.join("; ")) }
    })
    .await?;
    let gone = start.elapsed();
    // It stays for the end of pods that began with it, where the container runtime would look for it then.
    kept.iter().for_each(|what| println!("  {what}"));
    let now: Vec<Installed> = pods_of(&env.client, NAMESPACE, "group=each").await?;
    ensure!(now == each.pods, "pods were {:?}, and now they are {now:?}", each.pods);
    answers(env, &each).await?;
    env.delete_namespace(NAMESPACE).await?;
    Ok(vec![
        Figure::count("installed and taken away", 1, "times"),
        Figure::count("program kept on a node for pods that began with it", kept.len() as u64, "times"),
        Figure::seconds("applied to pods captured", there),
        Figure::seconds("deleted to nodes as before", gone),
    ])
}

/// What is on the nodes, twice the same.
async fn quiet(env: &Env) -> Result<BTreeMap<String, OnNode>> {
    eventually("nodes on which nothing comes or goes", DEADLINE, || async {
        let first = OnNode::all(env).await.map_err(|e| format!("{e:#}"))?;
        let pods = env.api("v1", "Pod", "pods", MESH);
        let ours = ListParams::default().labels(labels::COMPONENT);
        let left = pods.list_metadata(&ours).await.map_err(|e| e.to_string())?.items.len();
        let second = OnNode::all(env).await.map_err(|e| format!("{e:#}"))?;
        let changed = OnNode::differences_of_all(&first, &second);
        if changed.is_empty() && left == 0 { Ok(second) } else { Err(format!("{left} pods; {changed:?}")) }
    })
    .await
}

/// Every pod still reaches every other one.
async fn answers(env: &Env, each: &EachNode) -> Result<()> {
    let probes = each.probes(env).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    for path in probes.stop().await? {
        let (from, to) = (&path.from, &path.to);
        ensure!(path.failed.is_empty(), "without the mesh, from {from} to {to}: {:?}", path.failures);
    }
    Ok(())
}
