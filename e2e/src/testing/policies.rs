//! Pods for policies between them: one that is called, and who calls it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use meshwright_api::labels;

use super::backend::image;
use super::inside::{connect, within};
use super::members::Calls;
use super::{DEADLINE, Env, apply_yaml, eventually, mesh_nodes};

/// So many calls say how it is now.
const ENOUGH: u64 = 20;

/// A namespace of the mesh with Pod Security `restricted`, the pods [`Policies::CALLED`] and [`Policies::CALLERS`], and the Service of the
/// first. Each pod has a service account of its name.
#[derive(Debug)]
pub struct Policies {
    /// Node of the pod that is called.
    pub node: String,
    /// Its address, port 9080. The kubelet has no business there.
    pub called: SocketAddr,
    /// Its port of the kubelet's probes, which fail it after four seconds.
    pub probed: SocketAddr,
    /// Port of its Service on every node.
    pub node_port: u16,
    uid: String,
}

impl Policies {
    /// Namespace of all of them.
    pub const NAMESPACE: &'static str = "policies";
    /// The pod that is called.
    pub const CALLED: &'static str = "called";
    /// Two members of the mesh, and one that is none.
    pub const CALLERS: [&'static str; 3] = ["friend", "stranger", "outsider"];

    /// Installs them and waits until all are Ready, and the members listed.
    ///
    /// # Errors
    /// Names what did not become ready.
    pub async fn installed(env: &Env) -> Result<Self> {
        env.not_going(Self::NAMESPACE).await?;
        apply_yaml(&env.client, &manifests(&image()?), Self::NAMESPACE).await?;
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), Self::NAMESPACE);
        let all = eventually("pods that are Ready", DEADLINE, || async {
            let all = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            let waiting: Vec<_> =
                all.iter().filter(|pod| !is_ready(pod)).map(ResourceExt::name_any).collect();
            if all.len() == 4 && waiting.is_empty() { Ok(all) } else { Err(format!("{waiting:?} are not")) }
        })
        .await?;
        let members = all.iter().filter(|pod| !pod.labels().contains_key(labels::MESH));
        let members: BTreeSet<String> = members.filter_map(ResourceExt::uid).collect();
        eventually("members that are listed", DEADLINE, || async {
            let nodes = mesh_nodes(env).await.map_err(|e| format!("{e:#}"))?;
            let listed = nodes.iter().flat_map(|node| node.status.iter().flat_map(|status| &status.pods));
            let listed: BTreeSet<String> = listed.map(|pod| pod.uid.clone()).collect();
            let missing: Vec<_> = members.difference(&listed).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are not")) }
        })
        .await?;
        let called =
            all.iter().find(|pod| pod.name_any() == Self::CALLED).context("the pod that is called")?;
        let address = called.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let address: IpAddr = address.context("its address")?.parse().context("its address")?;
        let services: Api<Service> = Api::namespaced(env.client.clone(), Self::NAMESPACE);
        let service = services.get(Self::CALLED).await.context("read its Service")?;
        let port =
            service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).find_map(|port| port.node_port);
        Ok(Self {
            node: called.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("its node")?,
            called: (address, 9080).into(),
            probed: (address, 9081).into(),
            node_port: u16::try_from(port.context("a node port")?)?,
            uid: called.uid().context("its uid")?,
        })
    }

    /// Waits until all calls of this caller are answered, or none is.
    ///
    /// # Errors
    /// After the deadline, with what became of the last ones.
    pub async fn is_let_in(&self, env: &Env, caller: &str, wanted: bool) -> Result<()> {
        let what = if wanted { "be let in" } else { "be refused" };
        eventually(&format!("{caller} to {what}"), DEADLINE, || async {
            let (answered, failed) = recent(env, caller).await.map_err(|e| format!("{e:#}"))?;
            let is_so = if wanted { failed == 0 } else { answered == 0 };
            if is_so { Ok(()) } else { Err(format!("{answered} calls answered, {failed} failed")) }
        })
        .await
    }

    /// The pod that is called is the same as in the beginning, Ready, and was never started again.
    ///
    /// # Errors
    /// With what is different.
    pub async fn is_unharmed(&self, env: &Env) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), Self::NAMESPACE);
        let pod = pods.get(Self::CALLED).await.context("read the pod that is called")?;
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        ensure!(
            pod.uid().as_ref() == Some(&self.uid) && is_ready(&pod) && restarts == 0,
            "{restarts} restarts: {:?}",
            pod.status
        );
        Ok(())
    }
}

/// What became of a caller's next calls: how many were answered, and how many failed.
async fn recent(env: &Env, caller: &str) -> Result<(u64, u64)> {
    let counted = async || {
        let path = format!("/api/v1/namespaces/{}/pods/{caller}:9080/proxy/calls", Policies::NAMESPACE);
        let request = http::Request::get(&path).body(Vec::new())?;
        let calls: Calls = env.client.request(request).await.with_context(|| format!("GET {path}"))?;
        let target = calls.targets.first().context("a target")?;
        Ok::<_, anyhow::Error>((target.answered, target.failed))
    };
    let (answered, failed) = counted().await?;
    eventually(&format!("calls of {caller}"), DEADLINE, || async {
        let (now_answered, now_failed) = counted().await.map_err(|e| format!("{e:#}"))?;
        let found = (now_answered - answered, now_failed - failed);
        if found.0 + found.1 >= ENOUGH { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Whether somebody takes a connection that a process in this network opens; false where it is refused.
///
/// # Errors
/// When the network cannot be entered, or neither happens.
pub async fn connects_from(network: &Path, to: SocketAddr) -> Result<bool> {
    match within(network, move || connect(to)).await? {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => bail!("connect to {to}: {error}"),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

fn manifests(image: &str) -> String {
    let (namespace, called) = (Policies::NAMESPACE, Policies::CALLED);
    let secure = "securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: [ALL] } }
    resources: { requests: { cpu: 5m, memory: 16Mi }, limits: { memory: 64Mi } }";
    let pod = |name: &str, more: &str, containers: &str| {
        format!(
            "---
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name} }}
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: {name}{more} }} }}
spec:
  serviceAccountName: {name}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  securityContext: {{ runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{ type: RuntimeDefault }} }}
  containers:
{containers}"
        )
    };
    let outside = format!(", {}: {}", labels::MESH, labels::MESH_DISABLED);
    let callers = Policies::CALLERS.map(|name| {
        let url = format!("http://{called}:9080/details/0");
        let container = format!(
            "  - name: caller
    image: {image}
    args: [caller]
    env: [ {{ name: CALL_URLS, value: '{url}' }}, {{ name: CALL_RATE, value: '5' }} ]
    readinessProbe: {{ httpGet: {{ path: /health, port: 9080 }}, periodSeconds: 1 }}
    {secure}
"
        );
        pod(name, if name == "outsider" { &outside } else { "" }, &container)
    });
    let probe = "{ httpGet: { path: /health, port: 9081 }, periodSeconds: 1, failureThreshold: 4 }";
    let containers = format!(
        "  - name: app
    image: {image}
    args: [details]
    {secure}
  - name: probed
    image: {image}
    args: [details]
    env: [ {{ name: LISTEN, value: '0.0.0.0:9081' }} ]
    livenessProbe: {probe}
    readinessProbe: {probe}
    {secure}
"
    );
    format!(
        "apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
  labels: {{ pod-security.kubernetes.io/enforce: restricted, {}: {} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {called} }}
spec: {{ type: NodePort, selector: {{ app: {called} }}, ports: [ {{ name: http, port: 9080 }} ] }}
{}{}",
        labels::MESH,
        labels::MESH_ENABLED,
        pod(called, "", &containers),
        callers.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn the_manifests_are_objects_and_one_pod_is_outside() {
        let objects = objects_in(&manifests("r.example/b@sha256:0")).unwrap();
        assert_eq!(objects.len(), 2 + 2 * 4);
        let outside = objects.iter().filter(|object| {
            let label = object.labels().get(labels::MESH);
            object.types.as_ref().unwrap().kind == "Pod"
                && label.is_some_and(|value| value == labels::MESH_DISABLED)
        });
        assert_eq!(outside.map(ResourceExt::name_any).collect::<Vec<_>>(), ["outsider"]);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses_and_another_one_does_not() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let here = Path::new("/proc/self/ns/net");
        // Only root enters networks, also its own.
        if !rustix::process::geteuid().is_root() {
            assert!(connects_from(here, to).await.is_err());
            return;
        }
        assert!(connects_from(here, to).await.unwrap());
        drop(listener);
        assert!(!connects_from(here, to).await.unwrap());
    }
}
