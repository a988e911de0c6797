//! The proxies of the nodes: which revision's serve, and what they have counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use meshwright_api::{MeshNode, MeshRevision, names};

use super::{DEADLINE, Env, MESH, NodeProxy, eventually, exists, get};

/// Every MeshNode.
///
/// # Errors
/// When they cannot be listed.
pub async fn mesh_nodes(env: &Env) -> Result<Vec<MeshNode>> {
    let nodes: Api<MeshNode> = Api::namespaced(env.client.clone(), MESH);
    Ok(nodes.list(&ListParams::default()).await.context("list MeshNodes")?.items)
}

/// Waits until every Node has a MeshNode that this revision serves, on the newest epoch.
///
/// # Errors
/// After the deadline, with what is said of those for which that is not so.
pub async fn serve_all_nodes(env: &Env, revision: &str) -> Result<()> {
    let names: BTreeSet<String> = env.cluster.node_names().await?.into_iter().collect();
    eventually(&format!("node proxies of {revision} to serve every node"), DEADLINE, || async {
        let nodes = mesh_nodes(env).await.map_err(|e| format!("{e:#}"))?;
        let serving: BTreeSet<String> =
            nodes.iter().filter(|node| is_served_by(node, revision)).map(ResourceExt::name_any).collect();
        if serving == names {
            return Ok(());
        }
        let said: Vec<_> = nodes.iter().map(|node| (node.name_any(), &node.spec, &node.status)).collect();
        Err(format!("{said:?}"))
    })
    .await
}

fn is_served_by(node: &MeshNode, revision: &str) -> bool {
    let status = node.status.as_ref();
    let by = status.map(|status| (status.revision.as_str(), status.epoch));
    node.spec.revision == revision && by == Some((revision, node.spec.epoch))
}

/// Waits until a revision has no node proxies any more. With clients that keep their connections they may take minutes to end.
///
/// # Errors
/// After the deadline.
pub async fn node_proxies_gone(env: &Env, revision: &str) -> Result<()> {
    let sets = env.api("apps/v1", "DaemonSet", "daemonsets", MESH);
    exists(&sets, &names::node_resources(revision), false, DEADLINE * 3).await?;
    let pods = env.api("v1", "Pod", "pods", MESH);
    let of_revision = format!("meshwright.io/component=node,meshwright.io/revision={revision}");
    eventually(&format!("the end of the node proxies of {revision}"), DEADLINE * 3, || async {
        let left = pods.list_metadata(&ListParams::default().labels(&of_revision)).await;
        let left = left.map_err(|e| e.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
    })
    .await
}

/// Kills every process of one container, or of all, of the node proxies of one node; gives when it is Ready again, by its own restart.
///
/// # Errors
/// When there is nothing to kill, or it does not come back.
pub async fn kill_node_proxy(env: &Env, node: &str, container: Option<&str>) -> Result<Duration> {
    let proxy = NodeProxy::of(env, node).await?;
    let (name, before, start) = (proxy.pod.name_any(), restarts(&proxy.pod), Instant::now());
    proxy.kill(container)?;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), MESH);
    eventually(&format!("{name} to be ready again"), DEADLINE, || async {
        let pod = pods.get(&name).await.map_err(|e| e.to_string())?;
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
        let restarted = restarts(&pod) - before;
        if ready && restarted > 0 { Ok(()) } else { Err(format!("ready: {ready}, {restarted} restarts")) }
    })
    .await?;
    Ok(start.elapsed())
}

/// Addresses of all nodes.
///
/// # Errors
/// When they cannot be listed.
pub async fn node_addresses(env: &Env) -> Result<Vec<IpAddr>> {
    let nodes: Api<Node> = Api::all(env.client.clone());
    let nodes = nodes.list(&ListParams::default()).await.context("list nodes")?.items;
    Ok(nodes.iter().filter_map(address).collect())
}

fn restarts(pod: &Pod) -> i32 {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).map(|s| s.restart_count).sum()
}

/// TLS handshakes that the proxy of each node has done with clients of its pods, by node.
///
/// # Errors
/// When a proxy does not say.
pub async fn handshakes(env: &Env) -> Result<BTreeMap<String, u64>> {
    let said = node_metrics(env).await?;
    Ok(said.into_iter().map(|(node, metrics)| (node, inbound_handshakes(&metrics))).collect())
}

/// What Prometheus would read from the proxy of each node, by node.
///
/// # Errors
/// When a proxy does not say.
pub async fn node_metrics(env: &Env) -> Result<BTreeMap<String, String>> {
    let revisions: Api<MeshRevision> = Api::namespaced(env.client.clone(), MESH);
    let nodes: Api<Node> = Api::all(env.client.clone());
    let mut all = BTreeMap::new();
    for mesh_node in mesh_nodes(env).await? {
        let (name, revision) = (mesh_node.name_any(), &mesh_node.spec.revision);
        let slot = revisions.get(revision).await.with_context(|| format!("read {revision}"))?.spec.node_slot;
        let port = slot.with_context(|| format!("{revision} has no node proxies"))?.ports().metrics;
        let node = nodes.get(&name).await.with_context(|| format!("read node {name}"))?;
        let to = address(&node).with_context(|| format!("node {name} without an address"))?;
        all.insert(name.clone(), get((to, port).into(), &name, "/metrics").await?.body);
    }
    Ok(all)
}

fn address(node: &Node) -> Option<IpAddr> {
    let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}

/// Of a proxy's listeners only those that take mutual TLS have any.
fn inbound_handshakes(metrics: &str) -> u64 {
    let samples = metrics.lines().filter(|line| line.starts_with("envoy_listener_"));
    let of_handshakes = samples.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split('{').next()?;
        (name.ends_with("_ssl_handshake") && !series.contains("worker")).then_some(value)
    });
    of_handshakes.filter_map(|value| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn handshakes_of_all_listeners_are_added_and_those_of_clusters_are_not() {
        let metrics = "# TYPE envoy_listener_ssl_handshake counter
envoy_listener_ssl_handshake{envoy_listener_address=\"inbound\"} 7
envoy_listener_pod_inbound_ssl_handshake{} 5
envoy_listener_ssl_handshake_error{} 100
envoy_listener_downstream_cx_total{} 100
envoy_cluster_ssl_handshake{envoy_cluster_name=\"x\"} 100
";
        assert_eq!((inbound_handshakes(metrics), inbound_handshakes("")), (12, 0));
    }

    #[test]
    fn a_node_is_served_when_the_report_is_of_the_wanted_epoch() {
        let node = |wanted: (&str, i64), by: Option<(&str, i64)>| -> MeshNode {
            let status = by.map(|(revision, epoch)| json!({"revision": revision, "epoch": epoch}));
            from_value(
                json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshNode", "metadata": {"name": "n"},
                "spec": {"revision": wanted.0, "epoch": wanted.1}, "status": status}),
            )
            .unwrap()
        };
        assert!(is_served_by(&node(("m-2", 2), Some(("m-2", 2))), "m-2"));
        assert!(!is_served_by(&node(("m-2", 2), Some(("m-1", 1))), "m-2"));
        assert!(!is_served_by(&node(("m-2", 3), Some(("m-2", 2))), "m-2"));
        assert!(!is_served_by(&node(("m-1", 1), Some(("m-1", 1))), "m-2"));
        assert!(!is_served_by(&node(("m-2", 1), None), "m-2"));
    }
}
