//! What somebody must notice, and how much: a gateway pod is killed, a node loses its power.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use rustix::process::Signal;

use super::figures::Figure;
use super::kill::{fresh, is_ready, pods, restarts, signal};
use super::mesh::present;
use super::random::Random;
use super::under_load::NAMESPACE;
use crate::testing::{Backend, DEADLINE, Env, Loads, RATE, eventually, rolled_out};

/// Of load before anything happens, so that connections are open.
const LEAD_IN: Duration = Duration::from_secs(5);
/// Connections of one load.
const CONNECTIONS: u64 = 16;
/// Until kube-proxies have heard of what the API server knows.
const PROPAGATION: Duration = Duration::from_secs(2);

/// SIGKILL of one gateway pod. Each connection to it may lose one request, and until its endpoint is gone new ones fail.
///
/// # Errors
/// When more requests failed than that.
pub async fn gateway_killed(env: &Env, mut random: Random, seconds: u32) -> Result<Vec<Figure>> {
    present(env).await?;
    let backend = Backend::installed(env, NAMESPACE).await?;
    fresh(env, NAMESPACE, Backend::PROXIES).await?;
    let pods = pods(env, NAMESPACE, Backend::PROXIES).await?;
    let victim = pods.get(random.below(pods.len() as u64) as usize).context("a gateway pod")?;
    let loads = Loads::start(env, backend.address, &backend.host(), Backend::PATH, seconds)?;
    tokio::time::sleep(LEAD_IN).await;
    let start = Instant::now();
    let noticed = match signal(victim, Signal::KILL) {
        Ok(_) => out_of_service(env, victim).await.map(|()| start.elapsed()),
        Err(error) => Err(error),
    };
    let reports = loads.reports("  SIGKILL of a gateway pod").await;
    let (noticed, reports) = (noticed?, reports?);
    let failed: u64 = reports.iter().map(|report| report.failed()).sum();
    let bound = bound(noticed);
    ensure!(failed <= bound, "{failed} requests failed, more than {bound}: {reports:?}");
    backend.proxies_rolled_out(env).await?;
    Ok(vec![
        Figure::count("failed", failed, "requests"),
        Figure::count("requests", reports.iter().map(|report| report.total()).sum(), "requests"),
        Figure::seconds("out of service", noticed),
    ])
}

/// Failures of both loads that the loss of one pod explains.
fn bound(noticed: Duration) -> u64 {
    let seconds = (noticed + PROPAGATION).as_secs_f64();
    2 * CONNECTIONS + (2.0 * f64::from(RATE) * seconds).ceil() as u64
}

/// Waits until the pod gets no traffic any more, or runs again.
async fn out_of_service(env: &Env, pod: &Pod) -> Result<()> {
    let api: Api<Pod> = Api::namespaced(env.client.clone(), NAMESPACE);
    eventually("the killed pod to be out of service", DEADLINE, || async {
        let now = api.get_opt(&pod.name_any()).await.map_err(|e| e.to_string())?;
        let gone = now.is_none_or(|now| !is_ready(&now) || restarts(&now) > 0);
        if gone { Ok(()) } else { Err("it is Ready".to_owned()) }
    })
    .await
}

/// A node goes without a word. What fails until its endpoints are gone is counted; then nothing may fail.
///
/// # Errors
/// When something does.
pub async fn node_lost(env: &Env, repetition: u32, seconds: u32) -> Result<Vec<Figure>> {
    present(env).await?;
    let backend = Backend::installed(env, NAMESPACE).await?;
    let names = env.cluster.node_names().await?;
    let index = repetition as usize % names.len().max(1);
    let name = names.get(index).context("a node")?;
    let number = u8::try_from(index + 1).context("number of a node")?;
    let outcome = without_node(env, &backend, number, name, seconds).await;
    let started = env.cluster.start_node(number).await.with_context(|| format!("start {name}"));
    let figures = outcome?;
    started?;
    for deployment in ["a", "b"] {
        rolled_out(env, NAMESPACE, deployment).await?;
    }
    backend.proxies_rolled_out(env).await?;
    Ok(figures)
}

async fn without_node(
    env: &Env,
    backend: &Backend,
    number: u8,
    name: &str,
    seconds: u32,
) -> Result<Vec<Figure>> {
    let loads = || Loads::start(env, backend.address, &backend.host(), Backend::PATH, seconds);
    let during = loads()?;
    tokio::time::sleep(LEAD_IN).await;
    let start = Instant::now();
    let cluster = env.cluster.clone();
    let stopped = tokio::task::spawn_blocking(move || cluster.stop_node(number)).await?;
    let noticed = match stopped {
        Ok(()) => no_endpoints(env, name).await.map(|()| start.elapsed()),
        Err(error) => Err(error),
    };
    let during = during.reports(&format!("  loss of {name}")).await;
    let (noticed, during) = (noticed?, during?);
    let cluster = env.cluster.clone();
    tokio::task::spawn_blocking(move || cluster.forget_pods_of(number)).await??;
    let after = loads()?.reports(&format!("  after the loss of {name}")).await?;
    let still: u64 = after.iter().map(|report| report.failed()).sum();
    ensure!(still == 0, "{still} requests failed after the endpoints of {name} were gone: {after:?}");
    Ok(vec![
        Figure::count("failed", during.iter().map(|report| report.failed()).sum(), "requests"),
        Figure::count("requests", during.iter().map(|report| report.total()).sum(), "requests"),
        Figure::seconds("endpoints gone", noticed),
    ])
}

/// Waits until no ready endpoint is on the node.
async fn no_endpoints(env: &Env, node: &str) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(env.client.clone(), NAMESPACE);
    eventually(&format!("no endpoint on {node}"), DEADLINE, || async {
        let list = slices.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let endpoints = list.items.iter().flat_map(|slice| slice.endpoints.as_deref().unwrap_or_default());
        let ready = endpoints.filter(|e| {
            let conditions = e.conditions.as_ref();
            e.node_name.as_deref() == Some(node) && conditions.is_none_or(|c| c.ready != Some(false))
        });
        match ready.count() {
            0 => Ok(()),
            count => Err(format!("{count} endpoints")),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_with_the_time_that_a_dead_endpoint_is_used() {
        assert_eq!(bound(Duration::ZERO), 32 + 400);
        assert_eq!(bound(Duration::from_millis(1500)), 32 + 700);
    }
}
