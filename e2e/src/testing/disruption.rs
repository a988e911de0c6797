//! What platform engineers do all day, and the load that must not notice it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::load::{PATIENCE, SHORT_PATIENCE};
use super::{DEADLINE, Env, Load, LoadReport, MESH, eventually};

/// Requests a second of each of the two loads.
pub const RATE: u32 = 100;

/// In seconds, of a load that lasts as long as what is done under it.
const LONGEST: u32 = 3600;

/// Two loads, 100 requests/s each: one on kept connections, one with a new connection for each request.
#[derive(Debug)]
pub struct Loads(Load, Load);

impl Loads {
    /// Starts both.
    ///
    /// # Errors
    /// When oha cannot be started.
    pub fn start(env: &Env, gateway: SocketAddr, host: &str, path: &str, seconds: u32) -> Result<Self> {
        Self::begin(env, gateway, host, path, seconds, PATIENCE)
    }

    fn begin(
        env: &Env,
        gateway: SocketAddr,
        host: &str,
        path: &str,
        seconds: u32,
        patience: Duration,
    ) -> Result<Self> {
        let oha = env.oha()?;
        let start = |keep_alive| Load::start(&oha, gateway, host, path, seconds, patience, keep_alive);
        Ok(Self(start(true)?, start(false)?))
    }

    /// Starts both, until [`Self::stop`]: connections are kept for as long as the gateway lets them be.
    ///
    /// # Errors
    /// When oha cannot be started.
    pub fn endless(env: &Env, gateway: SocketAddr, host: &str, path: &str) -> Result<Self> {
        Self::begin(env, gateway, host, path, LONGEST, SHORT_PATIENCE)
    }

    /// Ends both, which were started as [`Self::endless`], when every request that was under way could have failed, and says what they counted.
    ///
    /// # Errors
    /// As [`Self::reports`].
    pub async fn stop(self, what: &str) -> Result<[LoadReport; 2]> {
        tokio::time::sleep(SHORT_PATIENCE).await;
        self.0.interrupt()?;
        self.1.interrupt()?;
        self.reports(what).await
    }

    /// Waits for both and prints what they counted: keep-alive first, then new connections.
    ///
    /// # Errors
    /// When a load itself broke, or made next to no requests.
    pub async fn reports(self, what: &str) -> Result<[LoadReport; 2]> {
        let reports = [self.0.report().await?, self.1.report().await?];
        for (report, kind) in reports.iter().zip(["keep-alive", "new connections"]) {
            println!("{what}, {kind}: {} of {} requests failed", report.failed(), report.total());
            ensure!(report.total() > 100, "{what}, {kind}: only {} requests were made", report.total());
        }
        Ok(reports)
    }

    /// Waits for both; not one request may have failed.
    ///
    /// # Errors
    /// With the report, when one did.
    pub async fn none_failed(self, what: &str) -> Result<()> {
        for report in self.reports(what).await? {
            ensure!(report.failed() == 0, "{what}: {report:?}");
        }
        Ok(())
    }
}

/// Waits until every replica of the Deployment is of its newest template, and available.
///
/// # Errors
/// After the deadline, with the status seen last.
pub async fn rolled_out(env: &Env, namespace: &str, name: &str) -> Result<()> {
    let deployments = env.api("apps/v1", "Deployment", "deployments", namespace);
    eventually(&format!("the rollout of {namespace}/{name}"), DEADLINE * 2, || async {
        is_rolled_out(&deployments.get(name).await.map_err(|e| e.to_string())?)
    })
    .await
}

/// Whether every replica of the Deployment is of its newest template, and available; its status where that is not so.
pub(super) fn is_rolled_out(deployment: &DynamicObject) -> Result<(), String> {
    let status = &deployment.data["status"];
    let wanted = &deployment.data["spec"]["replicas"];
    let done = status["observedGeneration"] == json!(deployment.metadata.generation)
        && ["updatedReplicas", "availableReplicas", "replicas"].iter().all(|f| status[f] == *wanted);
    if done { Ok(()) } else { Err(status.to_string()) }
}

/// What `kubectl drain` does: cordon, then evict what no DaemonSet owns.
///
/// # Errors
/// With kubectl's words.
pub async fn drain(env: &Env, node: &str) -> Result<()> {
    let mut kubectl = env.cluster.kubectl()?;
    kubectl.args([
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=240s",
    ]);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await??;
    ensure!(output.status.success(), "drain of {node}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Lets pods be scheduled to the node again.
///
/// # Errors
/// When the API server refuses it.
pub async fn uncordon(env: &Env, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(env.client.clone());
    let schedulable = Patch::Merge(json!({"spec": {"unschedulable": null}}));
    nodes
        .patch(node, &PatchParams::default(), &schedulable)
        .await
        .with_context(|| format!("uncordon {node}"))
        .map(drop)
}

/// The pod that a Lease names as its holder.
pub fn holder(lease: &DynamicObject) -> Option<String> {
    let holder = lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str);
    holder.filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Name of the mesh's active revision, which is that of its control plane's objects too.
///
/// # Errors
/// When there is no mesh, or it has none yet.
pub async fn active_revision(env: &Env) -> Result<String> {
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    let mesh = meshes.get(MESH).await.context("read the MeshControlPlane")?;
    Ok(mesh.data["status"]["activeRevision"].as_str().context("an active revision")?.to_owned())
}
