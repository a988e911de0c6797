//! What nobody may notice: under load, no request fails.

use std::pin::pin;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use rustix::process::Signal;
use serde_json::json;

use super::figures::Figure;
use super::kill::{delete, fresh, pods, replaced, signal};
use super::leaders::replicas;
use super::mesh::{CONTROL_PLANE_PODS, present};
use super::table::Action;
use crate::testing::{
    Backend, DEADLINE, Env, LoadReport, Loads, MESH, apply_yaml, drain, eventually, rolled_out, uncordon,
};

/// Namespace of the Gateway that gets the load.
pub const NAMESPACE: &str = "soak";

/// Acts while the load runs: for `seconds`, and again as long where the action takes longer than that.
///
/// # Errors
/// When a request failed, or the action did.
pub async fn run(env: &Env, action: Action, seconds: u32, repetition: u32) -> Result<Vec<Figure>> {
    present(env).await?;
    if action == Action::ControlPlaneKilled {
        fresh(env, MESH, CONTROL_PLANE_PODS).await?;
    }
    let backend = Backend::installed(env, NAMESPACE).await?;
    let start = Instant::now();
    let mut acting = pin!(async { act(env, &backend, action, repetition).await.map(|()| start.elapsed()) });
    let (mut acted, mut reports) = (None, Vec::new());
    while acted.is_none() {
        let loads = Loads::start(env, backend.address, &backend.host(), Backend::PATH, seconds)?;
        let what = format!("  {action:?}");
        let mut loaded = pin!(loads.reports(&what));
        let round = loop {
            tokio::select! {
                outcome = &mut acting, if acted.is_none() => acted = Some(outcome),
                // Also after a failure: the next repetition must not begin under the load of this one.
                round = &mut loaded => break round,
            }
        };
        match round {
            Ok(round) => reports.extend(round),
            Err(error) => {
                // What was begun is ended: a node must not stay cordoned.
                if acted.is_none() {
                    acting.as_mut().await?;
                }
                return Err(error);
            }
        }
    }
    let took = acted.context("the action did not end")??;
    let mut figures = none_failed(&reports)?;
    figures.push(Figure::seconds("took", took));
    Ok(figures)
}

/// What loads counted.
///
/// # Errors
/// When a request failed.
pub fn none_failed(reports: &[LoadReport]) -> Result<Vec<Figure>> {
    let failed: u64 = reports.iter().map(LoadReport::failed).sum();
    let total: u64 = reports.iter().map(LoadReport::total).sum();
    ensure!(failed == 0, "{failed} of {total} requests failed: {reports:?}");
    Ok(vec![Figure::count("requests", total, "requests"), Figure::count("failed", failed, "requests")])
}

async fn act(env: &Env, backend: &Backend, action: Action, repetition: u32) -> Result<()> {
    match action {
        Action::RouteFlips { flips } => {
            for flip in 0..flips {
                let to = if flip.is_multiple_of(2) { "b" } else { "a" };
                apply_yaml(&env.client, &Backend::route(NAMESPACE, to), NAMESPACE).await?;
            }
            Ok(())
        }
        Action::RollingRestart => {
            // What `kubectl rollout restart` does.
            let annotations = json!({"kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string()});
            let stamp = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
            let deployments = env.api("apps/v1", "Deployment", "deployments", NAMESPACE);
            for proxies in backend.proxies(env).await? {
                let name = proxies.name_any();
                deployments.patch(&name, &PatchParams::default(), &Patch::Strategic(&stamp)).await?;
            }
            backend.proxies_rolled_out(env).await
        }
        Action::Autoscale { replicas } => {
            for replicas in replicas.iter().copied() {
                apply_yaml(&env.client, &Backend::gateway(replicas), NAMESPACE).await?;
                autoscaled(env, backend, replicas).await?;
            }
            Ok(())
        }
        Action::Drain => {
            let nodes = env.cluster.node_names().await?;
            let node = nodes.get(repetition as usize % nodes.len().max(1)).context("a node")?;
            let drained = drain(env, node).await;
            uncordon(env, node).await?;
            drained?;
            for name in ["a", "b"] {
                rolled_out(env, NAMESPACE, name).await?;
            }
            backend.proxies_rolled_out(env).await
        }
        Action::ControlPlaneKilled => {
            let control_plane = pods(env, MESH, CONTROL_PLANE_PODS).await?;
            let leader = replicas(env).await?.leader;
            // All of them at once, before any is replaced.
            for pod in control_plane.iter().chain([&leader]) {
                signal(pod, Signal::KILL)?;
            }
            for pod in control_plane.iter().chain([&leader]) {
                delete(&env.client, pod).await?;
            }
            replaced(env, MESH, CONTROL_PLANE_PODS, &control_plane, control_plane.len()).await
        }
    }
}

/// Waits until the Gateway has exactly this many proxies, all of them available.
async fn autoscaled(env: &Env, backend: &Backend, replicas: u8) -> Result<()> {
    // Scaling down waits until the load has been low for five minutes.
    eventually(&format!("{replicas} proxies"), DEADLINE * 3, || async {
        let proxies = backend.proxies(env).await.map_err(|e| format!("{e:#}"))?;
        let all = ["replicas", "availableReplicas", "updatedReplicas"];
        let scaled = |d: &DynamicObject| all.iter().all(|f| d.data["status"][f] == replicas);
        let seen: Vec<String> = proxies.iter().map(|d| d.data["status"].to_string()).collect();
        if proxies.len() == 1 && proxies.iter().all(scaled) { Ok(()) } else { Err(seen.join("; ")) }
    })
    .await
}
