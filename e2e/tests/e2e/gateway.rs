//! Gateways and routes where something is wrong: the answer is clear, and nothing else suffers.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use kube::api::ListParams;
use meshwright_e2e::testing::{apply_yaml, condition, delete_yaml, eventually, get, with_namespace};
use serde_json::Value;

use crate::env::{DEADLINE, Env};

/// Not a label: what is made for it is found by its owner.
const EDGE: &str = "edge.v1";
const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: edge.v1 }
spec:
  gatewayClassName: meshwright
  infrastructure: { parametersRef: { group: meshwright.io, kind: GatewayParameters, name: small } }
  listeners:
  - { name: http, port: 80, protocol: HTTP }
  - { name: https, port: 443, protocol: HTTPS, tls: { certificateRefs: [ { name: nobody-made-this } ] } }
---
apiVersion: meshwright.io/v1alpha1
kind: GatewayParameters
metadata: { name: small }
spec: { autoscaling: { minReplicas: 1, maxReplicas: 2 }, resources: { requests: { cpu: 10m, memory: 32Mi } } }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: to-nowhere }
spec:
  parentRefs: [ { name: edge.v1, sectionName: http } ]
  rules:
  - matches: [ { path: { value: /nowhere } } ]
    backendRefs: [ { name: no-such-service, port: 80 } ]
  - matches: [ { path: { value: /redirect } } ]
    filters: [ { type: RequestRedirect, requestRedirect: { hostname: example.org, statusCode: 302 } } ]
";

#[tokio::test]
async fn a_missing_secret_fails_its_listener_only_and_a_missing_backend_answers_500() -> Result<()> {
    let env = &Env::with_mesh().await?;
    with_namespace(env, "gateway", |namespace| async move {
        apply_yaml(&env.client, GATEWAY, &namespace).await?;
        let http = env.address(&namespace, EDGE, 80).await?;
        eventually("500 for a backend that does not exist", DEADLINE, || async {
            let answer = get(http, "any.example", "/nowhere").await.map_err(|e| format!("{e:#}"))?;
            if answer.status == 500 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await?;
        let redirect = get(http, "any.example", "/redirect").await?;
        ensure!(
            redirect.status == 302
                && redirect.headers.get("location").is_some_and(|l| l.starts_with("http://example.org/")),
            "{redirect:?}"
        );
        ensure!(get(http, "any.example", "/else").await?.status == 404);
        eventually("the listeners' conditions", DEADLINE, || async {
            let gateway = env.gateways(&namespace).get(EDGE).await.map_err(|e| e.to_string())?;
            let listeners = gateway.data.pointer("/status/listeners").cloned().unwrap_or_default();
            let says = |listener: &str, type_: &str| {
                let of = listeners.as_array().into_iter().flatten().find(|l| l["name"] == listener);
                of.and_then(|l| {
                    l["conditions"]
                        .as_array()?
                        .iter()
                        .find(|c| c["type"] == type_)
                        .map(|c| c["status"].clone())
                })
            };
            let right = says("https", "ResolvedRefs") == Some(Value::from("False"))
                && says("http", "Programmed") == Some(Value::from("True"));
            if right { Ok(()) } else { Err(listeners.to_string()) }
        })
        .await?;
        eventually("the route's condition", DEADLINE, || async {
            let route = env.routes(&namespace).get("to-nowhere").await.map_err(|e| e.to_string())?;
            let conditions = route.data.pointer("/status/parents/0/conditions").cloned().unwrap_or_default();
            if conditions.to_string().contains("BackendNotFound") {
                Ok(())
            } else {
                Err(conditions.to_string())
            }
        })
        .await?;
        refused_parameters_are_told(env, &namespace).await?;
        lost_parameters_freeze_nothing(env, &namespace, http).await
    })
    .await
}

// The API server refuses the Deployment: only the operator knows.
async fn refused_parameters_are_told(env: &Env, namespace: &str) -> Result<()> {
    let wrong = "apiVersion: meshwright.io/v1alpha1\nkind: GatewayParameters\nmetadata: { name: small }\nspec: { scheduling: { tolerations: [ { \
                 operator: Wrong } ] } }\n";
    apply_yaml(&env.client, wrong, namespace).await?;
    let events = env.api("events.k8s.io/v1", "Event", "events", namespace);
    eventually("an Event that names the refusal", DEADLINE, || async {
        let all = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let notes = all.items.iter().filter(|e| e.data["reason"] == "ObjectRefused");
        let notes: Vec<_> = notes.map(|e| e.data["note"].to_string()).collect();
        if notes.iter().any(|n| n.contains("tolerations")) { Ok(()) } else { Err(format!("{notes:?}")) }
    })
    .await
}

// The Gateway is not accepted any more, and what it serves goes on to follow its routes.
async fn lost_parameters_freeze_nothing(env: &Env, namespace: &str, http: SocketAddr) -> Result<()> {
    let parameters =
        "apiVersion: meshwright.io/v1alpha1\nkind: GatewayParameters\nmetadata: { name: small }\n";
    delete_yaml(&env.client, parameters, namespace).await?;
    condition(&env.gateways(namespace), EDGE, "Accepted", "False", DEADLINE).await?;
    let changed = GATEWAY.rsplit("---").next().unwrap_or_default().replace("example.org", "example.net");
    apply_yaml(&env.client, &changed, namespace).await?;
    eventually("the changed redirect", DEADLINE, || async {
        let answer = get(http, "any.example", "/redirect").await.map_err(|e| format!("{e:#}"))?;
        let to = answer.headers.get("location").cloned().unwrap_or_default();
        if to.starts_with("http://example.net/") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await
}
