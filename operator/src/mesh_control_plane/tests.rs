//! Decisions and renders, from minimal objects through the real `validate`.

use std::collections::BTreeMap;

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    Images, MeshControlPlane, MeshRevision,
    conditions::{self, IN_USE, READY},
};
use serde_json::{Value, json};

use super::{
    Seen, build, upgrade, validate,
    validate::{ValidatedMesh, holder},
};
use crate::{apply::tests as apply_tests, gateway_api::Found, pods::Count};

mod refused;

fn images(tag: &str) -> Images {
    Images {
        control_plane: format!("registry.example/control-plane:{tag}"),
        proxy: format!("registry.example/proxy:{tag}"),
        pull_secrets: vec![],
    }
}

fn mesh(spec: Value) -> MeshControlPlane {
    let object = json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane", "spec": spec,
        "metadata": {"name": "mesh", "namespace": "prod", "uid": "mesh-uid", "generation": 3,
            "creationTimestamp": "2026-11-20T12:00:00Z"},
    });
    serde_json::from_value(object).unwrap()
}

fn seen(fresh: MeshControlPlane) -> Seen {
    Seen {
        meshes: vec![fresh.clone()],
        fresh,
        revisions: vec![],
        deployments: BTreeMap::new(),
        pods: BTreeMap::new(),
        root: None,
        gateway_api: Found::default(),
    }
}

fn valid(seen: &Seen, tag: &str) -> ValidatedMesh {
    validate(seen, &images(tag)).unwrap()
}

/// Does to `seen` what `apply` does to the cluster.
fn take(seen: &mut Seen, mesh: &ValidatedMesh, now: Timestamp) -> upgrade::Step {
    let step = upgrade::next(mesh, seen, now);
    seen.revisions.retain(|r| !step.retire.iter().any(|gone| gone.name_any() == r.name_any()));
    if let Some(snapshot) = &step.create {
        let mut revision = MeshRevision::new(&step.target, snapshot.clone());
        revision.metadata.namespace = Some("prod".to_owned());
        revision.metadata.uid = Some("revision-uid".to_owned());
        seen.revisions.push(revision);
    }
    for revision in &mut seen.revisions {
        let status = revision.status.get_or_insert_default();
        for finding in step.findings.get(revision.metadata.name.as_ref().unwrap()).into_iter().flatten() {
            conditions::set(&mut status.conditions, finding.clone(), None, now);
        }
    }
    if step.promote.is_some() {
        seen.fresh.status.get_or_insert_default().active_revision = Some(step.active.clone());
    }
    step
}

fn make_ready(seen: &mut Seen, revision: &str, pods: i32) {
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": revision, "generation": 1},
        "spec": {"selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "availableReplicas": pods, "updatedReplicas": pods},
    }))
    .unwrap();
    seen.deployments.insert(revision.to_owned(), deployment);
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[test]
fn the_first_revision_carries_the_traffic_at_once() {
    let mut seen = seen(mesh(json!({})));
    let mesh = valid(&seen, "1");
    let step = take(&mut seen, &mesh, at(0));
    assert!(step.create.is_some());
    assert_eq!(step.promote, Some(None));
    let again = take(&mut seen, &mesh, at(1));
    assert!(again.create.is_none() && again.promote.is_none());
    assert_eq!(again.target, step.target);
}

#[test]
fn a_new_revision_takes_over_when_ready_and_the_old_one_goes_when_unused() {
    let mut seen = seen(mesh(json!({})));
    let before = valid(&seen, "1");
    let old = take(&mut seen, &before, at(0)).target;
    make_ready(&mut seen, &old, 2);
    take(&mut seen, &before, at(1));
    seen.pods.insert(old.clone(), Count { proxies: 2, ..Count::default() });

    let after = valid(&seen, "2");
    let step = take(&mut seen, &after, at(10));
    let new = step.target.clone();
    assert_ne!(new, old);
    assert_eq!(step.active, old, "not before it is ready");
    assert_eq!(take(&mut seen, &after, at(11)).active, old);

    make_ready(&mut seen, &new, 2);
    assert_eq!(take(&mut seen, &after, at(20)).promote, Some(Some(old.clone())));
    for second in [21, 500] {
        let step = take(&mut seen, &after, at(second));
        assert!(step.retire.is_empty(), "proxies still use it");
        assert!(step.recheck.is_some());
    }
    seen.pods.remove(&old);
    assert!(take(&mut seen, &after, at(501)).retire.is_empty(), "not before the grace period");
    assert!(take(&mut seen, &after, at(530)).retire.is_empty());
    let step = take(&mut seen, &after, at(562));
    assert_eq!(step.retire.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), [old]);
    assert!(take(&mut seen, &after, at(563)).recheck.is_none());
}

#[test]
fn going_back_needs_no_new_revision() {
    let mut seen = seen(mesh(json!({})));
    let first = valid(&seen, "1");
    let old = take(&mut seen, &first, at(0)).target;
    make_ready(&mut seen, &old, 2);
    take(&mut seen, &first, at(1));
    let second = valid(&seen, "2");
    take(&mut seen, &second, at(2));
    let step = take(&mut seen, &first, at(3));
    assert_eq!((step.target.as_str(), step.active.as_str()), (old.as_str(), old.as_str()));
    assert!(step.create.is_none());
}

#[test]
fn a_revision_that_never_came_up_does_not_hold_up_its_repair() {
    let mut seen = seen(mesh(json!({})));
    let broken = valid(&seen, "broken");
    take(&mut seen, &broken, at(0));
    take(&mut seen, &broken, at(1));
    let repaired = valid(&seen, "1");
    take(&mut seen, &repaired, at(2));
    let step = take(&mut seen, &repaired, at(3));
    assert!(step.promote.is_some());
}

#[test]
fn what_is_mended_in_place_makes_no_revision() {
    let mut seen = seen(mesh(json!({"profile": "Default"})));
    let before = valid(&seen, "1");
    seen.fresh.spec.control_plane.autoscaling = Some(meshwright_api::Autoscaling {
        min_replicas: Some(4),
        max_replicas: None,
        target_cpu_percent: None,
    });
    let after = valid(&seen, "1");
    assert_eq!(before.snapshot, after.snapshot);
    assert_ne!(before.control_plane, after.control_plane);
}

#[test]
fn a_second_mesh_is_a_conflict_and_the_first_is_not_disturbed() {
    let mut younger = mesh(json!({}));
    younger.metadata.namespace = Some("other".to_owned());
    younger.metadata.uid = Some("other-uid".to_owned());
    younger.metadata.creation_timestamp = Some(Time(at(999)));
    let both = vec![younger.clone(), mesh(json!({}))];
    let mut first = seen(mesh(json!({})));
    first.meshes = both.clone();
    assert!(validate(&first, &images("1")).is_ok());
    let mut second = seen(younger);
    second.meshes = both;
    let error = validate(&second, &images("1")).unwrap_err();
    assert_eq!(error.reason(), conditions::reason::CONFLICT);
    assert!(error.to_string().contains("prod/mesh"), "{error}");
}

#[test]
fn the_mesh_that_is_installed_comes_before_an_older_one() {
    let older = mesh(json!({}));
    let mut installed = mesh(json!({}));
    installed.metadata.namespace = Some("other".to_owned());
    installed.metadata.creation_timestamp = Some(Time(at(999)));
    let first = |meshes: &[MeshControlPlane]| holder(meshes).and_then(ResourceExt::namespace);
    assert_eq!(first(&[installed.clone(), older.clone()]).as_deref(), Some("prod"));
    let mut held = installed.clone();
    held.metadata.finalizers = Some(vec![super::FINALIZER.to_owned()]);
    assert_eq!(first(&[older.clone(), held]).as_deref(), Some("other"));
    installed.status.get_or_insert_default().active_revision = Some("mesh-0a1b2c3d".to_owned());
    assert_eq!(first(&[older, installed]).as_deref(), Some("other"));
}

#[test]
fn missing_pods_are_noticed_with_their_time() {
    let deployment = |status: &str| -> Deployment {
        let since = at(7).to_string();
        let condition = json!({"type": "Available", "status": status, "lastTransitionTime": since});
        serde_json::from_value(json!({"spec": {"selector": {}, "template": {}},
            "status": {"conditions": [condition]}}))
        .unwrap()
    };
    assert_eq!(upgrade::short_since(&deployment("False")), Some(at(7)));
    assert_eq!(upgrade::short_since(&deployment("True")), None);
}

/// A mesh that is installed and whose spec became one that cannot be carried out.
fn installed_and_invalid() -> Seen {
    let mut seen = seen(mesh(json!({})));
    let before = valid(&seen, "1");
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
    super::apply::hold(&ctx, &seen).await.unwrap_err();
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
    super::run(&seen, &ctx).await.unwrap_err();
    assert!(*ctx.gateway_api_served.borrow());
}

/// Answers to one pass of the cleaning up, in which this many autoscalers are found.
fn a_pass(found: &[Value]) -> Vec<apply_tests::Answer> {
    let list = |items: &[Value]| json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {}, "items": items});
    let paths = [
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
    answers[0].3 = list(found);
    (answers[6].2, answers[6].3) = (404, apply_tests::not_found());
    answers
}

#[tokio::test]
async fn a_mesh_is_let_go_only_when_nothing_was_left_to_delete() {
    let mut mesh = mesh(json!({}));
    mesh.metadata.finalizers = Some(vec![super::FINALIZER.to_owned()]);
    let scaler = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "web-meshwright", "namespace": "shop", "uid": "u", "resourceVersion": "1"}});
    const SCALER: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web-meshwright";
    let mut answers = a_pass(std::slice::from_ref(&scaler));
    answers.insert(1, apply_tests::Answer(http::Method::DELETE, SCALER, 404, apply_tests::not_found()));
    let deleted = json!({"kind": "Status", "apiVersion": "v1", "status": "Success"});
    (answers[1].2, answers[1].3) = (200, deleted);
    let (ctx, mock) = apply_tests::server(answers);
    let action = super::finish(&ctx, &mesh).await.unwrap();
    mock.finish();
    assert_ne!(action, kube::runtime::controller::Action::await_change(), "the finalizer is still there");
}

#[tokio::test]
async fn certificates_are_looked_at_also_when_the_spec_is_invalid() {
    let seen = installed_and_invalid();
    let (ctx, _) = apply_tests::refusing();
    let invalid = validate(&seen, &images("1")).unwrap_err();
    let before = seen.fresh.status.clone().unwrap();
    let status = super::status::failed(&ctx, Some(3), before, &invalid.into(), Some(&seen));
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
        Err(super::Error::from(super::apply::Error::from(error)))
    };
    let (ctx, asked) = apply_tests::refusing();
    for _ in 0..2 {
        super::status::write(&ctx, &object, None, &conflict()).await.unwrap();
        ctx.failed(&crate::reconciler::key(super::CONTROLLER, &object));
    }
    assert!(asked.lock().unwrap().is_empty(), "it passes by itself");
    super::status::write(&ctx, &object, None, &conflict()).await.unwrap_err();
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_revision_of_somebody_else_is_left_alone_and_named() {
    const PATH: &str = "/apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions";
    const ONE: &str = "/apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions/mesh-0a1b2c3d";
    let mesh = mesh(json!({}));
    let snapshot = valid(&seen(mesh.clone()), "1").snapshot;
    let taken = json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409});
    let there = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "mesh-0a1b2c3d", "namespace": "prod"}});
    let answers = vec![
        apply_tests::Answer(http::Method::POST, PATH, 409, taken),
        apply_tests::Answer(http::Method::GET, ONE, 200, there),
    ];
    let (ctx, mock) = apply_tests::server(answers);
    let reference = super::reference(&mesh);
    let created = super::apply::create_revision(&ctx, &reference, "mesh-0a1b2c3d", &snapshot, &mesh).await;
    mock.finish();
    let problems = created.unwrap().problems;
    assert!(matches!(&problems[..], [crate::apply::Problem::NotOurs { .. }]), "{problems:?}");
}

#[test]
fn an_unset_version_stays_at_what_was_installed_and_an_unknown_one_is_refused() {
    let mut seen = seen(mesh(json!({})));
    assert_eq!(valid(&seen, "1").snapshot.version, "0.1.0");
    seen.fresh.status.get_or_insert_default().version = Some("0.0.9".to_owned());
    let error = validate(&seen, &images("1")).unwrap_err();
    assert_eq!(error.reason(), conditions::reason::UNKNOWN_VERSION);
    assert!(error.to_string().contains("0.1.0"), "{error}");
}

#[test]
fn a_lost_root_is_not_replaced_without_consent() {
    let mut seen = seen(mesh(json!({})));
    let certificates = json!({
        "rootFingerprint": "abc", "rootNotAfter": "2036-01-01T00:00:00Z",
        "earliest": "root", "earliestNotAfter": "2036-01-01T00:00:00Z"});
    seen.fresh.status.get_or_insert_default().certificates =
        Some(serde_json::from_value(certificates).unwrap());
    let error = validate(&seen, &images("1")).unwrap_err().to_string();
    assert!(error.contains("prod.mesh.root") && error.contains("replace-lost-root=abc"), "{error}");
    seen.fresh.annotations_mut().insert("meshwright.io/replace-lost-root".to_owned(), "abc".to_owned());
    assert!(validate(&seen, &images("1")).unwrap().root_is_new);
}

#[test]
fn revisions_are_rendered_as_released() {
    for profile in ["Demo", "Default", "Production"] {
        let mut seen = seen(mesh(json!({"profile": profile})));
        let mesh = valid(&seen, "1");
        take(&mut seen, &mesh, at(0));
        let mut revision = seen.revisions[0].clone();
        revision.metadata.name = Some("mesh-0a1b2c3d".to_owned());
        let objects = build::revision(&revision, "mesh-0a1b2c3d-issuing-1", &mesh.control_plane).unwrap();
        let desired = objects.into_desired(&mesh.control_plane).unwrap();
        let bodies: Vec<_> = desired.into_iter().map(|d| d.body).collect();
        insta::assert_yaml_snapshot!(format!("revision_{}", profile.to_lowercase()), bodies);
    }
}

#[test]
fn conditions_of_a_revision_are_complete() {
    let mut seen = seen(mesh(json!({})));
    let mesh = valid(&seen, "1");
    take(&mut seen, &mesh, at(0));
    let step = take(&mut seen, &mesh, at(1));
    let types: Vec<_> = step.findings[&step.target].iter().map(|f| f.type_).collect();
    assert_eq!(types, [READY, IN_USE]);
}
