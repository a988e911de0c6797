//! Pods that join the mesh and leave it, and one of them that calls the others all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use meshwright_api::{MeshNode, labels};
use serde::Deserialize;
use serde_json::json;

use super::backend::image;
use super::{Backend, DEADLINE, Env, apply_yaml, eventually, mesh_nodes, rolled_out};

/// Name of the Deployment that calls.
const CALLER: &str = "caller";
/// Name of the DaemonSet that comes later.
const LATE: &str = "late";
/// Of the pods that are called.
const CALLED: &str = "app=a";
/// What the caller's user agents begin with, before the number of the connection.
pub const MARKER: &str = "readable-on-the-wire-";
/// Services before the same pods: an HTTP port, one of which nothing is known but that it is TCP, and addresses of pods themselves.
const CALLED_BY: [&str; 3] = ["a", "a-tcp", "a-headless"];

/// A [`Backend`] with the caller beside it, in a namespace with Pod Security `restricted`.
#[derive(Debug)]
pub struct Members {
    pub backend: Backend,
    /// All that can join, as they were installed.
    pods: Vec<Installed>,
}

/// A pod as it must stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub address: Ipv4Addr,
    /// Where it is in the API.
    pub namespace: String,
    restarts: i32,
    app: String,
}

/// What the caller says of its calls.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Calls {
    /// Number of its newest connection.
    pub connections: u64,
    pub targets: Vec<Called>,
}

/// What it says of one target.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Called {
    pub url: String,
    pub answered: u64,
    pub failed: u64,
    pub kept: u64,
    pub closed: u64,
    pub broken: u64,
    pub failures: Vec<String>,
}

impl Members {
    /// Namespace of all of them.
    pub const NAMESPACE: &'static str = "members";

    /// Installs them; the caller goes to a node that has one of the pods that it calls, others are on other nodes. It ends connections that it
    /// has kept for this many seconds, or none: a proxy that is replaced does not wait for ever for those that are no HTTP.
    ///
    /// # Errors
    /// Names what did not become ready, or is not spread.
    pub async fn installed(env: &Env, max_age: Option<u32>) -> Result<Self> {
        let backend = Backend::installed(env, Self::NAMESPACE).await?;
        let called = pods(&env.client, CALLED).await?;
        let node = &called.first().context("a pod to call")?.node;
        let nodes: BTreeSet<&String> = called.iter().map(|pod| &pod.node).collect();
        ensure!(nodes.len() > 1, "all pods to call are on {nodes:?}");
        apply_yaml(&env.client, &caller(&image()?, node, max_age), Self::NAMESPACE).await?;
        rolled_out(env, Self::NAMESPACE, CALLER).await?;
        let pods = pods(&env.client, &all()).await?;
        Ok(Self { backend, pods })
    }

    /// Their addresses.
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.pods.iter().map(|pod| pod.address).collect()
    }

    /// The caller's address and those of the pods that it calls: first of its own node, then of others.
    ///
    /// # Errors
    /// When there is no caller.
    pub fn paths(&self) -> Result<(Ipv4Addr, Vec<Ipv4Addr>, Vec<Ipv4Addr>)> {
        let caller = self.caller()?;
        let called = self.pods.iter().filter(|pod| pod.app == "a");
        let (own, others): (Vec<&Installed>, Vec<_>) = called.partition(|pod| pod.node == caller.node);
        let addresses = |pods: Vec<&Installed>| pods.into_iter().map(|pod| pod.address).collect();
        Ok((caller.address, addresses(own), addresses(others)))
    }

    /// Nodes that have a pod which is called.
    pub fn nodes_called(&self) -> BTreeSet<String> {
        self.pods.iter().filter(|pod| pod.app == "a").map(|pod| pod.node.clone()).collect()
    }

    /// Addresses of the gateway's proxies, which are no members.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn gateways(&self, env: &Env) -> Result<BTreeSet<Ipv4Addr>> {
        let proxies = pods(&env.client, &format!("{}=gateway", labels::COMPONENT)).await?;
        Ok(proxies.iter().map(|pod| pod.address).collect())
    }

    fn caller(&self) -> Result<&Installed> {
        self.pods.iter().find(|pod| pod.app == CALLER).context("the caller")
    }

    /// Sets the namespace's label, or takes it off.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn label(&self, env: &Env, joins: bool) -> Result<()> {
        join(env, Self::NAMESPACE, joins).await
    }

    /// Waits until the MeshNodes list every one of them on its own node, or none at all.
    ///
    /// # Errors
    /// After the deadline, with those for which that is not so.
    pub async fn are_listed(&self, env: &Env, listed: bool) -> Result<()> {
        self::are_listed(env, &self.pods, listed).await
    }

    /// Starts one more pod on each node, waits until it runs and is listed, and removes them again.
    ///
    /// # Errors
    /// After the deadline, with those that did not start or are not listed.
    pub async fn more_can_join(&self, env: &Env) -> Result<()> {
        apply_yaml(&env.client, &late(&image()?), Self::NAMESPACE).await?;
        let sets = env.api("apps/v1", "DaemonSet", "daemonsets", Self::NAMESPACE);
        let count = i64::try_from(env.cluster.node_names().await?.len())?;
        eventually("a new pod of the mesh on every node", DEADLINE, || async {
            let set = sets.get(LATE).await.map_err(|e| e.to_string())?;
            let status = &set.data["status"];
            if status["numberAvailable"] == json!(count) { Ok(()) } else { Err(status.to_string()) }
        })
        .await?;
        let started = pods(&env.client, &format!("app={LATE}")).await?;
        are_listed(env, &started, true).await?;
        sets.delete(LATE, &DeleteParams::default()).await.context("delete the new pods")?;
        eventually("the end of the new pods", DEADLINE, || async {
            match pods(&env.client, &format!("app={LATE}")).await.map_err(|e| format!("{e:#}"))?.len() {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await
    }

    /// What the caller has counted.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn calls(&self, env: &Env) -> Result<Calls> {
        let (namespace, pod) = (Self::NAMESPACE, &self.caller()?.name);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9080/proxy/calls");
        let request = http::Request::get(&path).body(Vec::new())?;
        env.client.request(request).await.with_context(|| format!("GET {path}"))
    }

    /// Waits until so many more connections were opened; gives the calls then.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn more_connections(&self, env: &Env, more: u64) -> Result<Calls> {
        let before = self.calls(env).await?.connections;
        eventually(&format!("{more} more connections"), DEADLINE, || async {
            let calls = self.calls(env).await.map_err(|e| format!("{e:#}"))?;
            if calls.connections >= before + more { Ok(calls) } else { Err(format!("{calls:?}")) }
        })
        .await
    }

    /// The same pods as in the beginning, never started again, and no call failed and no connection was lost.
    ///
    /// # Errors
    /// With what is different.
    pub async fn are_unharmed(&self, env: &Env) -> Result<Calls> {
        let now = pods(&env.client, &all()).await?;
        ensure!(now == self.pods, "pods were {:?}, and now they are {now:?}", self.pods);
        let calls = self.calls(env).await?;
        for target in &calls.targets {
            let Called { url, answered, failed, kept, closed, broken, failures } = target;
            println!(
                "  {url}: {answered} calls answered, {failed} failed; {kept} connections kept, {closed} closed, {broken} lost"
            );
            ensure!(
                *failed == 0 && *broken == 0,
                "{url}: {failed} calls failed, {broken} connections lost: {failures:?}"
            );
            ensure!(*answered > 100 && *kept > 0, "{url}: next to nothing was called: {target:?}");
        }
        ensure!(calls.targets.len() == CALLED_BY.len(), "{calls:?}");
        Ok(calls)
    }
}

/// Sets a namespace's label, or takes it off.
///
/// # Errors
/// With the API server's words.
pub async fn join(env: &Env, namespace: &str, joins: bool) -> Result<()> {
    let value = joins.then_some(labels::MESH_ENABLED);
    let patch = json!({"metadata": {"labels": {(labels::MESH): value}}});
    let namespaces = Api::<Namespace>::all(env.client.clone());
    let patched = namespaces.patch(namespace, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.context("label a namespace").map(drop)
}

/// Waits until the MeshNodes list every one of these on its own node, or none at all.
///
/// # Errors
/// After the deadline, with those for which that is not so.
pub async fn are_listed(env: &Env, pods: &[Installed], listed: bool) -> Result<()> {
    let what = if listed { "every member to be listed" } else { "no former member to be listed" };
    eventually(what, DEADLINE, || async {
        let nodes = mesh_nodes(env).await.map_err(|e| format!("{e:#}"))?;
        let wrong = not_so(pods, &nodes, listed);
        if wrong.is_empty() { Ok(()) } else { Err(format!("{} of {}: {wrong:?}", wrong.len(), pods.len())) }
    })
    .await
}

/// Names of pods that are not on the lists of exactly their own nodes, or that are on one.
fn not_so<'a>(pods: &'a [Installed], nodes: &[MeshNode], listed: bool) -> Vec<&'a str> {
    let mut lists = BTreeMap::<&str, BTreeSet<String>>::new();
    for node in nodes {
        for pod in node.status.iter().flat_map(|status| &status.pods) {
            lists.entry(&pod.uid).or_default().insert(node.name_any());
        }
    }
    let right = |pod: &&Installed| match lists.get(pod.uid.as_str()) {
        Some(on) => listed && on.len() == 1 && on.contains(&pod.node),
        None => !listed,
    };
    pods.iter().filter(|pod| !right(pod)).map(|pod| pod.name.as_str()).collect()
}

/// Who can join: neither gateways nor what [`Backend::install_streams`] adds.
fn all() -> String {
    format!("{}!=gateway,app!={}", labels::COMPONENT, Backend::STREAMS)
}

async fn pods(client: &Client, selector: &str) -> Result<Vec<Installed>> {
    pods_of(client, Members::NAMESPACE, selector).await
}

/// The pods with these labels, in the order of their names.
///
/// # Errors
/// When they cannot be listed, or one has no address yet.
pub async fn pods_of(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Installed>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(selector)).await.context("list pods")?;
    let there = list.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let mut pods = there.map(installed).collect::<Result<Vec<_>>>()?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

fn installed(pod: &Pod) -> Result<Installed> {
    let name = pod.name_any();
    let status = pod.status.as_ref().context("a pod without a status")?;
    let address = status.pod_ip.as_deref().with_context(|| format!("pod {name} without an address"))?;
    let restarts = status.container_statuses.iter().flatten().map(|s| s.restart_count).sum();
    Ok(Installed {
        uid: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        address: address.parse().with_context(|| format!("address {address} of pod {name}"))?,
        app: pod.labels().get("app").cloned().unwrap_or_default(),
        name,
        restarts,
    })
}

fn caller(image: &str, node: &str, max_age: Option<u32>) -> String {
    let max_age =
        max_age.map(|seconds| format!(", {{ name: CALL_MAX_AGE, value: '{seconds}' }}")).unwrap_or_default();
    let urls = CALLED_BY.map(|service| format!("http://{service}:9080{}", Backend::PATH)).join(",");
    let user_agent = MARKER.trim_end_matches('-');
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: a-tcp }}
spec: {{ selector: {{ app: a }}, ports: [ {{ name: tcp, port: 9080 }} ] }}
---
apiVersion: v1
kind: Service
metadata: {{ name: a-headless }}
spec: {{ clusterIP: None, selector: {{ app: a }}, ports: [ {{ name: http, port: 9080 }} ] }}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {CALLER} }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {CALLER} }}
spec:
  selector: {{ matchLabels: {{ app: {CALLER} }} }}
  template:
    metadata: {{ labels: {{ app: {CALLER} }} }}
    spec:
      nodeSelector: {{ kubernetes.io/hostname: {node} }}
      serviceAccountName: {CALLER}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext: {{ runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{ type: RuntimeDefault }} }}
      containers:
      - name: {CALLER}
        image: {image}
        args: [{CALLER}]
        env: [ {{ name: CALL_URLS, value: '{urls}' }}, {{ name: CALL_USER_AGENT, value: {user_agent} }}{max_age} ]
        ports: [ {{ containerPort: 9080 }} ]
        readinessProbe: {{ httpGet: {{ path: /health, port: 9080 }}, periodSeconds: 2 }}
        resources: {{ requests: {{ cpu: 20m, memory: 16Mi }}, limits: {{ memory: 64Mi }} }}
        securityContext:
          {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
"
    )
}

/// Pods that come later, one on each node.
fn late(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {{ name: {LATE} }}
spec:
  selector: {{ matchLabels: {{ app: {LATE} }} }}
  template:
    metadata: {{ labels: {{ app: {LATE} }} }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 1
      securityContext: {{ runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{ type: RuntimeDefault }} }}
      containers:
      - name: details
        image: {image}
        args: [details]
        readinessProbe: {{ httpGet: {{ path: /health, port: 9080 }}, periodSeconds: 2 }}
        resources: {{ requests: {{ cpu: 5m, memory: 16Mi }}, limits: {{ memory: 64Mi }} }}
        securityContext:
          {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn the_manifests_are_objects_and_the_marker_ends_where_the_number_begins() {
        let objects = objects_in(&caller("r.example/b@sha256:0", "node-1", Some(30))).unwrap();
        assert_eq!(objects.len(), 4);
        let env = &objects[3].data["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(env[2]["value"], "30");
        let value = |at: usize| env[at]["value"].as_str().unwrap().to_owned();
        assert_eq!(value(0).split(',').count(), 3);
        assert_eq!(format!("{}-", value(1)), MARKER);
        assert_eq!(objects_in(&late("r.example/b@sha256:0")).unwrap().len(), 1);
    }

    #[test]
    fn a_pod_is_listed_by_its_own_node_and_by_no_other() {
        let pod = |name: &str, node: &str| Installed {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            node: node.to_owned(),
            address: Ipv4Addr::LOCALHOST,
            namespace: String::new(),
            restarts: 0,
            app: String::new(),
        };
        let node = |name: &str, uids: &[&str]| -> MeshNode {
            let pods: Vec<_> = uids.iter().map(|uid| json!({"uid": uid, "addresses": []})).collect();
            let status = json!({"revision": "m-1", "epoch": 1, "pods": pods});
            from_value(
                json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshNode", "metadata": {"name": name},
                "spec": {"revision": "m-1", "epoch": 1}, "status": status}),
            )
            .unwrap()
        };
        let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n2")];
        let all = [node("n1", &["uid-a"]), node("n2", &["uid-b", "uid-c", "uid-x"])];
        assert_eq!(not_so(&pods, &all, true), Vec::<&str>::new());
        assert_eq!(
            not_so(&pods, &[node("n1", &["uid-a", "uid-b"]), node("n2", &["uid-b"])], true),
            ["b", "c"]
        );
        assert_eq!(not_so(&pods, &all[..1], false), ["a"]);
        assert_eq!(not_so(&pods, &[], false), Vec::<&str>::new());
    }
}
