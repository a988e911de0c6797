//! Decisions and renders, from minimal objects through the real `validate`.

use std::collections::BTreeMap;

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    Images, MeshControlPlane, MeshRevision,
    conditions::{self, IN_USE, READY},
};
use serde_json::{Value, json};

use super::{Seen, build, upgrade, validate, validate::ValidatedMesh};
use crate::{gateway_api::Found, pods::Count};

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
