//! What platform engineers do all day, under steady load: no request fails.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use meshwright_e2e::testing::{Backend, Loads, apply_yaml, drain, eventually, rolled_out, uncordon};
use serde_json::json;

use crate::env::{DEADLINE, Env, MESH, file};

const HOST: &str = "bookinfo.example";
const PATH: &str = "/reviews/0";

async fn ready(env: &Env) -> Result<SocketAddr> {
    let gateway = crate::bookinfo::installed(env).await?;
    apply_yaml(&env.client, &file("e2e/bookinfo/manifests/walkthrough/5-thirds.yaml")?, "bookinfo").await?;
    eventually("reviews to answer", DEADLINE, || async {
        let answer = meshwright_e2e::testing::get(gateway, HOST, PATH).await.map_err(|e| format!("{e:#}"))?;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await?;
    Ok(gateway)
}

#[tokio::test]
async fn route_flips_fail_no_request() -> Result<()> {
    let env = Env::with_mesh().await?;
    let gateway = ready(&env).await?;
    let loads = Loads::start(&env, gateway, HOST, PATH, 30)?;
    let (one, other) = (
        file("e2e/bookinfo/manifests/walkthrough/1-all-v1.yaml")?,
        file("e2e/bookinfo/manifests/walkthrough/5-thirds.yaml")?,
    );
    for _ in 0..100 {
        apply_yaml(&env.client, &one, "bookinfo").await?;
        apply_yaml(&env.client, &other, "bookinfo").await?;
    }
    loads.none_failed("200 route flips").await
}

#[tokio::test]
async fn a_rolling_restart_of_the_gateway_fails_no_request() -> Result<()> {
    let env = Env::with_mesh().await?;
    let gateway = ready(&env).await?;
    let name = "bookinfo-meshwright";
    rolled_out(&env, "bookinfo", name).await?;
    let loads = Loads::start(&env, gateway, HOST, PATH, 90)?;
    let deployments = env.api("apps/v1", "Deployment", "deployments", "bookinfo");
    // What `kubectl rollout restart` does.
    let stamp = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-20T00:00:00Z"}}}}});
    deployments.patch(name, &PatchParams::default(), &Patch::Strategic(&stamp)).await?;
    rolled_out(&env, "bookinfo", name).await?;
    loads.none_failed("rolling restart of the gateway").await
}

#[tokio::test]
async fn killing_every_control_plane_pod_and_the_operators_leader_fails_no_request() -> Result<()> {
    let env = Env::with_mesh().await?;
    let gateway = ready(&env).await?;
    let loads = Loads::start(&env, gateway, HOST, PATH, 45)?;
    kill(&env, MESH, "meshwright.io/component=control-plane").await?;
    kill(&env, "meshwright-system", "app.kubernetes.io/name=meshwright-operator").await?;
    loads.none_failed("SIGKILL of control plane and operator").await?;
    Env::with_mesh().await.context("after the kills").map(drop)
}

/// SIGKILL: deletion with no grace.
async fn kill(env: &Env, namespace: &str, selector: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(selector)).await?;
    ensure!(!list.items.is_empty(), "no pod {selector} in {namespace}");
    for pod in list {
        pods.delete(&pod.metadata.name.unwrap_or_default(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn scaling_the_gateway_up_and_down_fails_no_request() -> Result<()> {
    let env = Env::with_mesh().await?;
    let gateway = ready(&env).await?;
    let loads = Loads::start(&env, gateway, HOST, PATH, 60)?;
    let hpas = env.api("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "bookinfo");
    let parameters = |fewest: u8| {
        format!(
            "apiVersion: meshwright.io/v1alpha1\nkind: GatewayParameters\nmetadata: {{ name: bookinfo, namespace: bookinfo }}\nspec: {{ autoscaling: {{ minReplicas: {fewest}, maxReplicas: 10 }} }}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: bookinfo, namespace: bookinfo }}\nspec: {{ gatewayClassName: meshwright, infrastructure: {{ parametersRef: {{ group: meshwright.io, kind: GatewayParameters, name: bookinfo }} }}, listeners: [ {{ name: http, port: 80, protocol: HTTP }} ] }}\n"
        )
    };
    for fewest in [5, 3] {
        apply_yaml(&env.client, &parameters(fewest), "bookinfo").await?;
        eventually(&format!("an autoscaler with at least {fewest}"), DEADLINE, || async {
            let hpa = hpas.get("bookinfo-meshwright").await.map_err(|e| e.to_string())?;
            let (min, now) =
                (&hpa.data["spec"]["minReplicas"], hpa.data["status"]["currentReplicas"].as_i64());
            if *min == fewest && (fewest == 3 || now >= Some(5)) { Ok(()) } else { Err(hpa.data.to_string()) }
        })
        .await?;
    }
    loads.none_failed("scale up and down of the gateway").await
}

#[tokio::test]
async fn draining_a_node_fails_no_request() -> Result<()> {
    let env = Env::with_mesh().await?;
    // Bookinfo's services are single pods: their loss would say nothing about the mesh.
    let backend = Backend::installed(&env, "drained").await?;
    let node = env.cluster.node_names().await?.pop().context("a node")?;
    let loads = Loads::start(&env, backend.address, &backend.host(), Backend::PATH, 90)?;
    let drained = drain(&env, &node).await;
    uncordon(&env, &node).await?;
    drained?;
    loads.none_failed("drain of a node").await
}
