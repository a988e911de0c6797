//! A TCPRoute for a Service: what a pod of the mesh opens to that Service is split by weight.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject};
use meshwright_e2e::testing::{Inside, Many, Open, apply_yaml, are_listed, eventually, keep_all};
use serde_json::Value;

use crate::env::{DEADLINE, Env, MESH};

const NAMESPACE: &str = "split";
/// Pods of the Service that is called, and of the two that routes lead to instead; each pod has its Service's name.
const PODS: [&str; 4] = ["caller", "own", "stable", "canary"];
/// Name of the route.
const ROUTE: &str = "split";
/// Connections that say where all of them go.
const FEW: usize = 20;
/// Connections that are split. Of 200 less than 4, or more than 42, go where one of ten is to go once in 100,000 runs.
const MANY: usize = 200;
const A_TENTH: std::ops::RangeInclusive<usize> = 4..=42;

#[tokio::test]
async fn connections_follow_the_weights_of_a_tcp_route_and_the_service_itself_when_it_is_gone() -> Result<()>
{
    let env = &Env::with_mesh().await?;
    let acted = tokio::time::timeout(DEADLINE * 4, split(env)).await;
    let acted = acted.context("it takes too long").and_then(|acted| acted);
    if acted.is_err() {
        keep_all(&env.client, "tcp-route", &[NAMESPACE, MESH]).await;
    }
    let removed = env.delete_namespace(NAMESPACE).await;
    acted.and(removed)
}

async fn split(env: &Env) -> Result<()> {
    let (caller, to) = installed(env).await?;
    let routes = env.api("gateway.networking.k8s.io/v1", "TCPRoute", "tcproutes", NAMESPACE);
    all_go_to(&caller, to, "own").await?;
    let mut open = vec![("own", caller.open(to).await?)];

    apply_yaml(&env.client, &route([("stable", 9), ("canary", 1)]), NAMESPACE).await?;
    is_told(&routes, ("True", "ResolvedRefs")).await?;
    let begun = Instant::now();
    eventually("connections that follow the route", DEADLINE, || async {
        let found = caller.answers(to, FEW).await.map_err(|e| format!("{e:#}"))?;
        if found.keys().all(|name| is_backend(name)) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await?;
    let followed = begun.elapsed();
    let found = caller.answers(to, MANY).await?;
    println!("  in force {:.1} s after its status; {found:?}", followed.as_secs_f64());
    let of_canary = found.get("canary").copied().unwrap_or(0);
    ensure!(found.keys().all(|name| is_backend(name)) && A_TENTH.contains(&of_canary), "{found:?}");
    open.push(opened_to(&caller, to, "stable").await?);

    apply_yaml(&env.client, &route([("stable", 0), ("canary", 100)]), NAMESPACE).await?;
    is_told(&routes, ("True", "ResolvedRefs")).await?;
    all_go_to(&caller, to, "canary").await?;
    open.push(opened_to(&caller, to, "canary").await?);
    are_as_before(&open).await?;

    // What is not there has its share all the same, and refuses it.
    apply_yaml(&env.client, &route([("stable", 0), ("missing", 100)]), NAMESPACE).await?;
    is_told(&routes, ("False", "BackendNotFound")).await?;
    all_go_to(&caller, to, "").await?;
    are_as_before(&open).await?;

    routes.delete(ROUTE, &DeleteParams::default()).await.context("delete the route")?;
    all_go_to(&caller, to, "own").await?;
    are_as_before(&open).await
}

/// Pods and Services; gives the network of the one that calls, and where the Service is.
async fn installed(env: &Env) -> Result<(Inside, SocketAddr)> {
    Many::namespace(env, NAMESPACE, true).await?;
    for name in &PODS[1..] {
        apply_yaml(&env.client, &service(name), NAMESPACE).await?;
    }
    let many = Many::of(NAMESPACE)?;
    many.create(env, PODS.map(|name| many.pod(name, "split", None)).to_vec()).await?;
    let pods = many.run(env, "split", PODS.len()).await?;
    are_listed(env, &pods, true).await?;
    let caller = pods.iter().find(|pod| pod.name == "caller").context("the pod that calls")?;
    let services: Api<Service> = Api::namespaced(env.client.clone(), NAMESPACE);
    let address = services.get("own").await?.spec.and_then(|spec| spec.cluster_ip);
    let address: IpAddr = address.context("its address")?.parse().context("its address")?;
    Ok((Inside::of(env, caller).await?, (address, 9080).into()))
}

/// Waits until new connections go to one pod only, or are closed, and looks whether that is so for a while.
async fn all_go_to(caller: &Inside, to: SocketAddr, name: &str) -> Result<()> {
    let only = |found: &BTreeMap<String, usize>| found.keys().all(|other| other == name);
    eventually(&format!("connections to go to {name:?} only"), DEADLINE, || async {
        let found = caller.answers(to, FEW).await.map_err(|e| format!("{e:#}"))?;
        if only(&found) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await?;
    let found = caller.answers(to, FEW * 2).await?;
    ensure!(only(&found), "connections went to {name:?} only, and then {found:?}");
    Ok(())
}

/// Opens connections until one goes to this pod.
async fn opened_to<'a>(caller: &Inside, to: SocketAddr, name: &'a str) -> Result<(&'a str, Open)> {
    let what = format!("a connection to {name}");
    let open = eventually(&what, DEADLINE, || async {
        let open = caller.open(to).await.map_err(|e| format!("{e:#}"))?;
        let who = open.who().await.map_err(|e| format!("{e:#}"))?;
        if who == name { Ok(open) } else { Err(format!("one to {who}")) }
    });
    Ok((name, open.await?))
}

/// Whatever became of the route since.
async fn are_as_before(open: &[(&str, Open)]) -> Result<()> {
    for (name, open) in open {
        let who = open.who().await.with_context(|| format!("opened to {name}"))?;
        ensure!(who == *name, "a connection to {name} goes to {who}");
    }
    Ok(())
}

fn is_backend(name: &str) -> bool {
    ["stable", "canary"].contains(&name)
}

/// Waits until the status speaks of the route as it is now: that its Service has it, and this of its backends.
async fn is_told(routes: &Api<DynamicObject>, backends: (&str, &str)) -> Result<()> {
    let wanted = [("Accepted", ("True", "Accepted")), ("ResolvedRefs", backends)];
    eventually(&format!("{wanted:?} of the route"), DEADLINE, || async {
        let route = routes.get(ROUTE).await.map_err(|e| e.to_string())?;
        let parents = route.data.pointer("/status/parents").and_then(Value::as_array);
        let [parent] = parents.map(Vec::as_slice).unwrap_or_default() else {
            return Err(format!("{parents:?}"));
        };
        let is_so = |(type_, (status, reason)): &(&str, (&str, &str))| {
            parent["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == *type_
                    && condition["status"] == *status
                    && condition["reason"] == *reason
                    && condition["observedGeneration"].as_i64() == route.metadata.generation
            })
        };
        let is_own = parent["parentRef"]["kind"] == "Service" && parent["parentRef"]["name"] == "own";
        if is_own && wanted.iter().all(is_so) { Ok(()) } else { Err(parent.to_string()) }
    })
    .await
}

fn service(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec: {{ selector: {{ app: {name} }}, ports: [ {{ name: tcp, port: 9080 }} ] }}
"
    )
}

fn route(backends: [(&str, u32); 2]) -> String {
    let backends = backends.map(|(name, weight)| format!("{{ name: {name}, port: 9080, weight: {weight} }}"));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{ name: {ROUTE} }}
spec:
  parentRefs: [ {{ group: '', kind: Service, name: own, port: 9080 }} ]
  rules: [ {{ backendRefs: [ {} ] }} ]
",
        backends.join(", ")
    )
}
