//! Whole passes, against an API server that refuses everything or answers as it is told.

use kube::ResourceExt;
use meshwright_api::conditions;
use serde_json::{Value, json};

use super::{Found, Seen, apply_tests, at, mesh, releases, seen, take, valid, validate};
use crate::mesh_control_plane as controller;

/// A mesh that is installed and whose spec became one that cannot be carried out.
fn installed_and_invalid() -> Seen {
    let mut seen = seen(mesh(json!({})));
    let before = valid(&seen);
    let name = take(&mut seen, &before, at(0)).target;
    let revision = &mut seen.revisions[0];
    revision.metadata.resource_version = Some("1".to_owned());
    let issued = json!({"secretName": format!("{name}-issuing-1"), "fingerprint": "f",
        "notAfter": "2000-01-01T00:00:00Z"});
    revision.status.get_or_insert_default().issuing_ca = Some(serde_json::from_value(issued).unwrap());
    seen.fresh.spec.version = Some("9.9.9".to_owned());
    seen
}

#[tokio::test]
async fn an_invalid_spec_does_not_stop_what_is_installed_from_being_kept() {
    let seen = installed_and_invalid();
    // Every request fails, and each object is asked for all the same.
    let (ctx, asked) = apply_tests::refusing();
    controller::apply::hold(&ctx, &seen).await.unwrap_err();
    let asked = asked.lock().unwrap().clone();
    let name = seen.revisions[0].name_any();
    let of_mesh = "GET /apis/rbac.authorization.k8s.io/v1/namespaces/prod/rolebindings/meshwright-issuing-ca";
    assert!(asked.iter().any(|a| a == of_mesh), "{asked:?}");
    assert!(asked.contains(&format!("GET /apis/apps/v1/namespaces/prod/deployments/{name}")), "{asked:?}");
}

#[tokio::test]
async fn the_gateway_controllers_do_not_wait_for_a_valid_spec() {
    let mut seen = installed_and_invalid();
    let there = crate::gateway_api::Definition {
        version: Some(meshwright_api::GATEWAY_API_VERSION.to_owned()),
        channel: None,
        ours: false,
        established: true,
    };
    let plurals = ["gatewayclasses", "gateways", "httproutes", "referencegrants"];
    seen.gateway_api =
        Found(plurals.map(|p| (format!("{p}.gateway.networking.k8s.io"), there.clone())).into());
    let (ctx, _) = apply_tests::refusing();
    controller::run(&seen, &ctx).await.unwrap_err();
    assert!(*ctx.gateway_api_served.borrow());
}

/// Answers to one pass of the cleaning up, in which this many autoscalers are found.
fn a_pass(found: &[Value]) -> Vec<apply_tests::Answer> {
    let list = |items: &[Value]| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items});
    let paths = [
        "/apis/meshwright.io/v1alpha1/namespaces/prod/meshnodes",
        "/apis/apps/v1/namespaces/prod/daemonsets",
        "/api/v1/namespaces/prod/pods",
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        "/apis/apps/v1/deployments",
        "/apis/policy/v1/poddisruptionbudgets",
        "/api/v1/services",
        "/api/v1/configmaps",
        "/api/v1/serviceaccounts",
        "/apis/gateway.networking.k8s.io/v1",
        "/apis/rbac.authorization.k8s.io/v1/rolebindings",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    ];
    let mut answers: Vec<_> = paths.map(|p| apply_tests::Answer(http::Method::GET, p, 200, list(&[]))).into();
    answers[3].3 = list(found);
    (answers[9].2, answers[9].3) = (404, apply_tests::not_found());
    answers
}

#[tokio::test]
async fn a_mesh_is_let_go_only_when_nothing_was_left_to_delete() {
    let mut mesh = mesh(json!({}));
    mesh.metadata.finalizers = Some(vec![controller::FINALIZER.to_owned()]);
    let scaler = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "web-meshwright", "namespace": "shop", "uid": "u", "resourceVersion": "1"}});
    const SCALER: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web-meshwright";
    let mut answers = a_pass(std::slice::from_ref(&scaler));
    answers.insert(4, apply_tests::Answer(http::Method::DELETE, SCALER, 404, apply_tests::not_found()));
    let deleted = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    (answers[4].2, answers[4].3) = (200, deleted);
    let (ctx, mock) = apply_tests::server(answers);
    let action = controller::finish(&ctx, &mesh).await.unwrap();
    mock.finish();
    assert_ne!(action, kube::runtime::controller::Action::await_change(), "the finalizer is still there");
}

#[tokio::test]
async fn certificates_are_looked_at_also_when_the_spec_is_invalid() {
    let seen = installed_and_invalid();
    let (ctx, _) = apply_tests::refusing();
    let invalid = validate(&seen, &releases("1"), &[], at(0)).unwrap_err();
    let before = seen.fresh.status.clone().unwrap();
    let status = controller::status::failed(&ctx, Some(3), before, &invalid.into(), Some(&seen));
    let of = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).unwrap();
    assert_eq!(of("Reconciled").reason, conditions::reason::UNKNOWN_VERSION);
    assert_eq!(of("CertificatesValid").reason, conditions::reason::EXPIRES_SOON);
    assert_eq!(status.observed_generation, Some(3));
}

#[tokio::test]
async fn a_conflict_is_told_when_it_goes_on() {
    let object = mesh(json!({}));
    let conflict = || {
        let status = json!({"status": "Failure", "reason": "Conflict", "code": 409});
        let error = kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()));
        let error = crate::apply::Error::request("write", "something")(error);
        Err(controller::Error::from(controller::apply::Error::from(error)))
    };
    let (ctx, asked) = apply_tests::refusing();
    for _ in 0..2 {
        controller::status::write(&ctx, &object, None, &conflict()).await.unwrap();
        ctx.failed(&crate::reconciler::key(controller::CONTROLLER, &object));
    }
    assert!(asked.lock().unwrap().is_empty(), "it passes by itself");
    controller::status::write(&ctx, &object, None, &conflict()).await.unwrap_err();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_revision_of_somebody_else_is_left_alone_and_named() {
    const PATH: &str = "/apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions";
    const ONE: &str = "/apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions/mesh-0a1b2c3d";
    let mesh = mesh(json!({}));
    let snapshot = valid(&seen(mesh.clone())).snapshot;
    let taken = json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409});
    let there = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "mesh-0a1b2c3d", "namespace": "prod"}});
    let answers = vec![
        apply_tests::Answer(http::Method::POST, PATH, 409, taken),
        apply_tests::Answer(http::Method::GET, ONE, 200, there),
    ];
    let (ctx, mock) = apply_tests::server(answers);
    let reference = controller::reference(&mesh);
    let created =
        controller::apply::create_revision(&ctx, &reference, "mesh-0a1b2c3d", &snapshot, &mesh).await;
    mock.finish();
    let problems = created.unwrap().problems;
    assert!(matches!(&problems[..], [crate::apply::Problem::NotOurs { .. }]), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn node_proxies_end_after_their_agents_know_that_the_nodes_are_not_theirs_and_before_the_rest() {
    let mut mesh = mesh(json!({}));
    mesh.metadata.finalizers = Some(vec![controller::FINALIZER.to_owned()]);
    let owner = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane", "name": "mesh", "uid": "mesh-uid"});
    let stage = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (now, let_go) = (stage.clone(), serde_json::to_value(&mesh).unwrap());
    let (ctx, asked) = apply_tests::answering(meshwright_k8s::lease::Leadership::always(), move |what| {
        let list = |items: Vec<Value>| (200, json!({"metadata": {}, "items": items}));
        let when = |is: bool, item: Value| list(if is { vec![item] } else { Vec::new() });
        let stage = now.load(std::sync::atomic::Ordering::SeqCst);
        match what {
            "GET /apis/meshwright.io/v1alpha1/namespaces/prod/meshnodes" => when(
                stage == 0,
                json!({"metadata": {"name": "n1", "namespace": "prod", "uid": "u", "ownerReferences": [owner]},
                    "spec": {"revision": "mesh-1", "epoch": 1}}),
            ),
            "GET /apis/apps/v1/namespaces/prod/daemonsets" => when(
                stage == 1,
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                    "metadata": {"name": "mesh-1-node", "namespace": "prod", "uid": "d"}}),
            ),
            "GET /api/v1/namespaces/prod/pods" => {
                when(stage == 2, json!({"metadata": {"name": "mesh-1-node-x", "namespace": "prod"}}))
            }
            "GET /apis/gateway.networking.k8s.io/v1" => (404, apply_tests::not_found()),
            "PATCH /apis/meshwright.io/v1alpha1/namespaces/prod/meshcontrolplanes/mesh" => {
                (200, let_go.clone())
            }
            _ if what.starts_with("GET") && what.contains("secrets") => (404, apply_tests::not_found()),
            _ => list(Vec::new()),
        }
    });
    let deletions = || -> Vec<String> {
        let all = std::mem::take(&mut *asked.lock().unwrap());
        all.into_iter()
            .filter(|a| a.starts_with("DELETE") || a.contains("horizontalpodautoscalers"))
            .collect()
    };
    let started = tokio::time::Instant::now();
    controller::finish(&ctx, &mesh).await.unwrap();
    assert_eq!(deletions(), ["DELETE /apis/meshwright.io/v1alpha1/namespaces/prod/meshnodes/n1"]);
    assert!(started.elapsed() >= std::time::Duration::from_secs(30), "agents have to hear of it");
    stage.store(1, std::sync::atomic::Ordering::SeqCst);
    controller::finish(&ctx, &mesh).await.unwrap();
    assert_eq!(deletions(), ["DELETE /apis/apps/v1/namespaces/prod/daemonsets/mesh-1-node"]);
    stage.store(2, std::sync::atomic::Ordering::SeqCst);
    controller::finish(&ctx, &mesh).await.unwrap();
    assert_eq!(deletions(), Vec::<String>::new(), "pods are left");
    stage.store(3, std::sync::atomic::Ordering::SeqCst);
    controller::finish(&ctx, &mesh).await.unwrap();
    assert_eq!(deletions(), ["GET /apis/autoscaling/v2/horizontalpodautoscalers"], "now the rest");
}
