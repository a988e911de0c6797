//! Pods of the mesh come and go, and leave nothing on the nodes; many at once start without waiting long for the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::figures::Figure;
use super::mesh::{namespaces, present};
use crate::testing::{
    DEADLINE, Env, Many, NodeProxy, OnNode, are_listed, eventually, mesh_nodes, node_metrics,
};

const NAMESPACE: &str = "churn";
/// What Envoy and the agent hold may differ by connections that others have opened meanwhile; of a leak there would be one for each pod.
const TOLERANCE: usize = 8;
/// Certificates of a service account that Envoy may keep, however many pods had it: as a server for as long as listeners drain, which is ten
/// minutes, and as a client.
const OF_AN_ACCOUNT: usize = 2;
/// Listeners end after their last connection, and pools a minute after that.
const SETTLED: Duration = DEADLINE;
/// The longest that the mesh may add to a pod's start, in seconds: 99 % of pods.
const LONGEST_WAIT: f64 = 0.1;
const WAITED: &str = "meshwright_agent_plugin_wait_seconds_bucket";

/// Creates so many pods on all nodes and deletes them again.
///
/// # Errors
/// When one does not join, or something of them stays on a node.
pub async fn churn(env: &Env, repetition: u32, count: u32) -> Result<Vec<Figure>> {
    ready(env).await?;
    let many = Many::of(NAMESPACE)?;
    let (nodes, held) = (OnNode::all(env).await?, held(env).await?);
    let group = format!("churn-{repetition}");
    let start = Instant::now();
    let pods = (0..count).map(|pod| many.pod(&format!("{group}-{pod}"), &group, None)).collect();
    many.create(env, pods).await?;
    let run = many.run(env, &group, count as usize).await?;
    let running = start.elapsed();
    are_listed(env, &run, true).await?;
    let with = OnNode::all(env).await?;
    let captured: usize = with.values().map(|node| node.listens.len()).sum();
    let before: usize = nodes.values().map(|node| node.listens.len()).sum();
    // Or there would be nothing to leak.
    ensure!(captured >= before + 2 * count as usize, "{captured} ports of proxies in pods, before {before}");
    many.delete(env, &group).await?;
    let deleted = Instant::now();
    let uids: Vec<&str> = run.iter().map(|pod| pod.uid.as_str()).collect();
    eventually("nothing of deleted pods on the nodes", SETTLED, || async {
        let left = left(env, &nodes, &held, &uids).await.map_err(|e| format!("{e:#}"))?;
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    })
    .await?;
    Ok(vec![
        Figure::count("pods created and deleted", u64::from(count), "pods"),
        Figure::count("left on nodes", 0, "things"),
        Figure::seconds("created to all running", running),
        Figure::seconds("deleted to nothing left", deleted.elapsed()),
    ])
}

/// The namespace in the mesh, without pods.
async fn ready(env: &Env) -> Result<()> {
    present(env).await?;
    if namespaces(env).get_opt(NAMESPACE).await?.is_some() {
        // Pods of a repetition that broke.
        env.delete_namespace(NAMESPACE).await?;
    }
    Many::namespace(env, NAMESPACE, true).await
}

type Held = BTreeMap<(String, &'static str), BTreeMap<String, usize>>;

/// What each container of each node's proxy holds.
async fn held(env: &Env) -> Result<Held> {
    let mut held = Held::new();
    for node in env.cluster.node_names().await? {
        let proxy = NodeProxy::of(env, &node).await?;
        for container in ["agent", "envoy"] {
            held.insert((node.clone(), container), proxy.held(container)?);
        }
    }
    Ok(held)
}

/// What is there that was not, in words.
async fn left(
    env: &Env,
    nodes: &BTreeMap<String, OnNode>,
    held_before: &Held,
    uids: &[&str],
) -> Result<Vec<String>> {
    let mut left = OnNode::differences_of_all(nodes, &OnNode::all(env).await?);
    left.extend(more(held_before, &held(env).await?));
    for node in mesh_nodes(env).await? {
        let pods = node.status.iter().flat_map(|status| &status.pods);
        let listed = pods.filter(|pod| uids.contains(&pod.uid.as_str())).count();
        left.extend((listed > 0).then(|| format!("MeshNode {:?} lists {listed}", node.metadata.name)));
    }
    for node in env.cluster.node_names().await? {
        let proxy = NodeProxy::of(env, &node).await?;
        let listeners = proxy.admin("/listeners").await.context("ask Envoy for its listeners")?;
        let certificates =
            proxy.admin("/config_dump?resource=dynamic_active_secrets").await.context("its secrets")?;
        let open = uids.iter().filter(|uid| listeners.contains(**uid)).count();
        left.extend((open > 0).then(|| format!("Envoy of {node} has listeners of {open}")));
        let account = format!("/ns/{NAMESPACE}/sa/");
        let names = certificates.lines().map(str::trim).filter(|line| line.starts_with("\"name\""));
        let known: BTreeSet<&str> = names.filter(|line| line.contains(&account)).collect();
        left.extend(
            (known.len() > OF_AN_ACCOUNT).then(|| format!("Envoy of {node} has certificates {known:?}")),
        );
    }
    Ok(left)
}

/// Files that are held now and were not before: network namespaces, and far more sockets or others than before.
fn more(before: &Held, now: &Held) -> Vec<String> {
    let mut found = Vec::new();
    for (place, kinds) in now {
        for (kind, count) in kinds {
            let was = before.get(place).and_then(|kinds| kinds.get(kind)).copied().unwrap_or(0);
            let tolerance = if kind == "net" { 0 } else { TOLERANCE };
            if *count > was + tolerance {
                found.push(format!("{} of {} holds {count} {kind}s, before {was}", place.1, place.0));
            }
        }
    }
    found
}

/// So many pods at once on one node: how long each waited in the network plugin until its agent had captured it. What starting the plugin
/// takes besides, a process of some milliseconds, is not counted.
///
/// # Errors
/// When a pod did not wait at all.
pub async fn burst(env: &Env, repetition: u32, count: u32) -> Result<Vec<Figure>> {
    ready(env).await?;
    let nodes = env.cluster.node_names().await?;
    let node = nodes.get(repetition as usize % nodes.len().max(1)).context("a node")?;
    let many = Many::of(NAMESPACE)?;
    let before = waits(env, node).await?;
    let start = Instant::now();
    let pods = (0..count).map(|pod| many.pod(&format!("burst-{pod}"), "burst", Some(node))).collect();
    many.create(env, pods).await?;
    many.run(env, "burst", count as usize).await?;
    let running = start.elapsed();
    let waited = since(&before, &waits(env, node).await?);
    many.delete(env, "burst").await?;
    let all = waited.last().map_or(0, |(_, count)| *count);
    println!("  waits of {all} pods on {node}, in seconds and at most: {waited:?}");
    ensure!(all >= u64::from(count), "{all} of {count} pods waited for their capture: {waited:?}");
    let (p50, p99) = (at_most(&waited, 50.0)?, at_most(&waited, 99.0)?);
    println!("  99 % of them for up to {p99} s; the bar is {LONGEST_WAIT} s");
    Ok(vec![
        Figure::count("pods", all, "pods"),
        Figure::milliseconds("plugin waited at most, p50", p50),
        Figure::milliseconds("plugin waited at most, p99", p99),
        Figure::seconds("created to all running", running),
    ])
}

/// Upper bounds in seconds, and how many waited no longer than that.
type Waits = Vec<(f64, u64)>;

async fn waits(env: &Env, node: &str) -> Result<Waits> {
    let all = node_metrics(env).await?;
    Ok(waits_in(all.get(node).with_context(|| format!("metrics of {node}"))?))
}

fn waits_in(metrics: &str) -> Waits {
    let buckets = metrics.lines().filter_map(|line| {
        let (labels, count) = line.strip_prefix(WAITED)?.rsplit_once(' ')?;
        let bound = labels.split_once("le=\"")?.1.split_once('"')?.0;
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
        Some((bound, count.parse().ok()?))
    });
    buckets.collect()
}

fn since(before: &Waits, now: &Waits) -> Waits {
    let was = |bound: f64| before.iter().find(|(known, _)| *known == bound).map_or(0, |(_, count)| *count);
    now.iter().map(|(bound, count)| (*bound, count.saturating_sub(was(*bound)))).collect()
}

/// The least bound that so many percent did not exceed.
fn at_most(waits: &Waits, percent: f64) -> Result<f64> {
    let all = waits.last().map_or(0, |(_, count)| *count);
    let rank = (percent / 100.0 * all as f64).ceil() as u64;
    let bound = waits.iter().find(|(_, count)| *count >= rank.max(1));
    bound.map(|(bound, _)| *bound).context("nobody waited")
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE meshwright_agent_plugin_wait_seconds histogram
meshwright_agent_plugin_wait_seconds_sum 1.5
meshwright_agent_plugin_wait_seconds_count 100
meshwright_agent_plugin_wait_seconds_bucket{le=\"0.05\"} 60
meshwright_agent_plugin_wait_seconds_bucket{le=\"0.1\"} 99
meshwright_agent_plugin_wait_seconds_bucket{le=\"+Inf\"} 100
";

    #[test]
    fn waits_are_those_of_the_burst_alone() {
        let now = waits_in(METRICS);
        assert_eq!(now.len(), 3);
        assert_eq!((at_most(&now, 50.0).unwrap(), at_most(&now, 99.0).unwrap()), (0.05, 0.1));
        assert_eq!(at_most(&now, 100.0).unwrap(), f64::INFINITY);
        let before = vec![(0.05, 60), (0.1, 60), (f64::INFINITY, 60)];
        assert_eq!(at_most(&since(&before, &now), 50.0).unwrap(), 0.1);
        assert!(at_most(&since(&now, &now), 50.0).is_err());
    }

    #[test]
    fn a_namespace_that_is_held_is_a_leak_and_some_sockets_are_not() {
        let held = |sockets: usize, networks: usize| -> Held {
            let kinds = [("socket".to_owned(), sockets), ("net".to_owned(), networks)];
            [(("n1".to_owned(), "envoy"), kinds.into())].into()
        };
        assert!(more(&held(10, 3), &held(10 + TOLERANCE, 3)).is_empty());
        assert_eq!(more(&held(10, 3), &held(11 + TOLERANCE, 4)).len(), 2);
    }
}
