//! A Gateway of which nothing is to be had follows the mesh's revisions all the same.

use std::sync::Arc;

use meshwright_api::{CONTROLLER_NAME, UpgradePhase, gateway::Gateway, names};
use meshwright_k8s::lease::Leadership;
use serde_json::{Value, json};

use super::{reconcile, tests::revision};
use crate::apply::tests::answering;

fn mesh(phase: UpgradePhase) -> Value {
    let moment = "2026-11-20T12:00:00Z";
    json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane", "spec": {"profile": "Production"},
        "metadata": {"name": "mesh", "namespace": "prod", "uid": "mesh-uid", "finalizers": ["meshwright.io/mesh"]},
        "status": {"activeRevision": "mesh-1", "version": "0.1.0", "upgrade": {
            "from": "mesh-1", "fromVersion": "0.1.0", "to": "mesh-2", "toVersion": "0.2.0", "strategy": "Canary",
            "phase": phase, "steps": [10], "started": moment, "since": moment, "plan": "1",
            "rollback": {"phase": "Bake", "cause": "ErrorsRose", "message": "m", "decided": moment},
        }},
    })
}

fn class() -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "gone"},
        "spec": {"controllerName": CONTROLLER_NAME}})
}

fn list(kind: &str, items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": format!("{kind}List"), "metadata": {}, "items": items})
}

/// What is had of the Gateway under test.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    /// No class.
    Nothing,
    /// Everything; the API server refuses what is to be made of it.
    Refused,
}

/// Reconciles a Gateway whose Service is limited to a revision; what was changed.
async fn changed(phase: UpgradePhase, behind: &'static str, has: Has) -> Vec<String> {
    changed_with(phase, Some(behind), has, [6, 6]).await
}

/// The same with so many ready pods of either revision; without a limit the Service is for both.
async fn changed_with(
    phase: UpgradePhase,
    behind: Option<&'static str>,
    has: Has,
    ready: [i32; 2],
) -> Vec<String> {
    let gateway: Gateway = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "gateway-uid"},
        "spec": {"gatewayClassName": "gone", "listeners": []},
    }))
    .unwrap();
    let owners = json!([{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web",
        "uid": "gateway-uid", "controller": true}]);
    let (ctx, asked) = answering(Leadership::always(), move |what| {
        let deployment = |revision: &str| {
            json!({"metadata": {"name": names::gateway_workload("web", revision), "namespace": "shop", "uid": revision,
                "resourceVersion": "1", "labels": {"meshwright.io/revision": revision}, "ownerReferences": owners},
                "spec": {"replicas": 6, "selector": {}, "template": {}},
                "status": {"readyReplicas": if revision == "mesh-1" { ready[0] } else { ready[1] }}})
        };
        let service = json!({"metadata": {"name": "web-meshwright", "namespace": "shop", "resourceVersion": "1",
            "ownerReferences": owners}, "spec": {"selector": behind.map(|b| json!({"meshwright.io/revision": b}))}});
        let absent = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        let refused = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "denied by a policy"});
        let of_new = names::gateway_workload("web", "mesh-2");
        match what {
            what if has == Has::Refused && what.starts_with("PATCH") && !what.ends_with(&of_new) => {
                (403, refused)
            }
            "GET /apis/gateway.networking.k8s.io/v1/gatewayclasses/gone" if has == Has::Refused => {
                (200, class())
            }
            "GET /apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions/mesh-1"
                if has == Has::Refused =>
            {
                (200, revision("mesh-1"))
            }
            "GET /api/v1/namespaces/shop/configmaps/web-meshwright" if has == Has::Refused => (
                200,
                json!({
                "metadata": {"name": "web-meshwright", "namespace": "shop", "ownerReferences": owners},
                "data": {"ca.crt": "PEM"}}),
            ),
            "GET /apis/meshwright.io/v1alpha1/meshcontrolplanes" => {
                (200, list("MeshControlPlane", &[mesh(phase)]))
            }
            "GET /apis/apps/v1/namespaces/shop/deployments" => {
                (200, list("Deployment", &[deployment("mesh-1"), deployment("mesh-2")]))
            }
            "GET /apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers" => {
                (200, list("HorizontalPodAutoscaler", &[]))
            }
            what if what.contains("/services/web-meshwright") => (200, service),
            what if what.starts_with("PATCH") => (200, deployment("mesh-2")),
            _ => (404, absent),
        }
    });
    let outcome = reconcile(Arc::new(gateway), Arc::new(ctx)).await;
    assert_eq!(outcome.is_err(), has == Has::Refused, "{outcome:?}");
    let asked = asked.lock().unwrap();
    asked.iter().filter(|a| a.starts_with("PATCH") || a.starts_with("DELETE")).cloned().collect()
}

#[tokio::test]
async fn it_loses_the_connections_of_a_bad_revision_and_then_its_pods() {
    let redirected = changed(UpgradePhase::RollingBack, "mesh-2", Has::Nothing).await;
    assert_eq!(redirected, ["PATCH /api/v1/namespaces/shop/services/web-meshwright"]);
    let ended = changed(UpgradePhase::RolledBack, "mesh-1", Has::Nothing).await;
    let new = names::gateway_workload("web", "mesh-2");
    assert_eq!(ended, [format!("PATCH /apis/apps/v1/namespaces/shop/deployments/{new}")]);
}

#[tokio::test]
async fn proxies_end_also_where_what_is_to_be_there_is_refused() {
    let asked = changed(UpgradePhase::RolledBack, "mesh-1", Has::Refused).await;
    let end = format!(
        "PATCH /apis/apps/v1/namespaces/shop/deployments/{}",
        names::gateway_workload("web", "mesh-2")
    );
    assert_eq!(asked.last(), Some(&end), "{asked:?}");
    assert!(asked.len() > 1, "nothing was refused: {asked:?}");
}

#[tokio::test]
async fn what_serves_ends_only_behind_what_serves_in_its_place() {
    let back = UpgradePhase::RolledBack;
    let new = names::gateway_workload("web", "mesh-2");
    let ends = |asked: Vec<String>| asked.iter().any(|a| a.ends_with(&new));
    let nothing = Has::Nothing;
    assert!(ends(changed_with(back, Some("mesh-1"), nothing, [6, 6]).await));
    assert!(!ends(changed_with(back, None, nothing, [1, 6]).await), "the Service is for both");
    assert!(!ends(changed_with(back, Some("mesh-1"), nothing, [0, 6]).await), "nothing else serves");
    assert!(ends(changed_with(back, Some("mesh-1"), nothing, [0, 0]).await), "nobody misses it");
}

#[tokio::test]
async fn nothing_is_written_while_it_follows() {
    assert_eq!(changed(UpgradePhase::Shift, "mesh-1", Has::Nothing).await, Vec::<String>::new());
    assert_eq!(changed(UpgradePhase::RollingBack, "mesh-1", Has::Nothing).await, Vec::<String>::new());
}
