//! Decisions and renders, from minimal objects through the real `validate`.

use std::collections::BTreeMap;

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    Comparison, MeshControlPlane, MeshRevision, UpgradePhase, UpgradeResult, Verdict, VerdictResult,
    conditions::{self, DRAINING, IN_USE, READY},
};
use serde_json::{Value, json};

use super::{
    Seen, build,
    measure::Measured,
    step, validate,
    validate::{ValidatedMesh, holder},
};
use crate::{
    apply::tests as apply_tests,
    catalogue::{Catalogue, Version},
    gateway_api::Found,
    pods::Count,
};

mod automatic;
mod gateways;
mod nodes;
mod passes;
mod refused;
mod telemetry;
mod troubled;

/// Releases 0.1.0 and 0.2.0, whose images have this tag.
fn releases(tag: &str) -> Catalogue {
    let variables = ["0.1.0", "0.2.0"].into_iter().flat_map(|version| {
        let (control_plane, proxy) = Catalogue::variables(version.parse::<Version>().unwrap());
        let image = |name: &str| format!("registry.example/{name}:{version}-{tag}");
        [(control_plane, image("control-plane")), (proxy, image("proxy"))]
    });
    Catalogue::from_env(variables).unwrap()
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
        items: vec![],
        gateways: BTreeMap::new(),
        nodes: super::nodes::There::default(),
        slots: BTreeMap::new(),
        pod_security: None,
        root: None,
        gateway_api: Found::default(),
    }
}

fn valid(seen: &Seen) -> ValidatedMesh {
    validate(seen, &releases("1"), &[], at(0)).unwrap()
}

/// Everything that can be asked answers, and well.
fn measured(seen: &Seen) -> Measured {
    let reason = "nothing rose".to_owned();
    Measured {
        comparison: Some(Ok(Comparison::default())),
        verdict: Some(Verdict {
            result: VerdictResult::Pass,
            reason,
            canary_requests: 9,
            baseline_requests: 9,
        }),
        streams: seen.revisions.iter().map(|r| (r.name_any(), Some(0))).collect(),
        ..Measured::default()
    }
}

/// Does to `seen` what `apply` does to the cluster.
fn take(seen: &mut Seen, mesh: &ValidatedMesh, now: Timestamp) -> step::Step {
    let step = step::next(mesh, seen, &measured(seen), now);
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
    let status = seen.fresh.status.get_or_insert_default();
    status.active_revision = Some(step.active().to_owned());
    status.version = Some(step.decision.active.version.clone());
    status.upgrade.clone_from(&step.decision.position);
    step.decision.ended.iter().for_each(|ended| status.history.insert(0, ended.clone()));
    step
}

fn phase(seen: &Seen) -> Option<UpgradePhase> {
    seen.fresh.status.as_ref()?.upgrade.as_ref().map(|p| p.phase)
}

/// A mesh of 0.1.0 that serves, and its revision.
fn installed() -> (Seen, String) {
    let mut seen = seen(mesh(json!({"version": "0.1.0"})));
    let mesh = valid(&seen);
    let name = take(&mut seen, &mesh, at(0)).target;
    make_ready(&mut seen, &name, 2);
    take(&mut seen, &mesh, at(1));
    take(&mut seen, &mesh, at(2));
    (seen, name)
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
    let mesh = valid(&seen);
    let step = take(&mut seen, &mesh, at(0));
    assert!(step.create.is_some());
    assert_eq!(step.active(), step.target);
    let again = take(&mut seen, &mesh, at(1));
    assert!(again.create.is_none() && again.decision.told.is_empty());
    assert_eq!(again.target, step.target);
}

#[test]
fn a_new_version_is_installed_beside_the_old_one_which_goes_when_nothing_uses_it() {
    let (mut seen, old) = installed();
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    let mesh = valid(&seen);
    assert!(take(&mut seen, &mesh, at(10)).create.is_none(), "first the plan");
    let (mut second, mut new) = (11, String::new());
    while phase(&seen) != Some(UpgradePhase::Drain) {
        let step = take(&mut seen, &mesh, at(second));
        if step.create.is_some() {
            new.clone_from(&step.target);
            make_ready(&mut seen, &new, 2);
        }
        assert!(step.retire.is_empty());
        second += 30;
        assert!(second < 3000, "{:?}", phase(&seen));
    }
    assert_eq!(seen.fresh.status.as_ref().unwrap().active_revision.as_deref(), Some(new.as_str()));
    seen.pods.insert(old.clone(), Count { proxies: 2, ..Count::default() });
    for more in [700, 730, 900] {
        assert!(take(&mut seen, &mesh, at(second + more)).retire.is_empty(), "proxies still use it");
    }
    seen.pods.remove(&old);
    assert!(take(&mut seen, &mesh, at(second + 901)).retire.is_empty(), "not before the grace period");
    take(&mut seen, &mesh, at(second + 970));
    take(&mut seen, &mesh, at(second + 971));
    take(&mut seen, &mesh, at(second + 972));
    assert_eq!((seen.revisions.len(), phase(&seen)), (1, None));
    let history = &seen.fresh.status.as_ref().unwrap().history;
    assert_eq!((history[0].result, history[0].to_version.as_str()), (UpgradeResult::Succeeded, "0.2.0"));
}

#[test]
fn a_proxy_on_a_lost_node_is_unknown_until_somebody_has_looked() {
    let (mut seen, _) = installed();
    seen.revisions.push(MeshRevision::new("left", seen.revisions[0].spec.clone()));
    seen.pods.insert("left".to_owned(), Count { lost: ["shop/p".to_owned()].into(), ..Count::default() });
    let in_use = |seen: &Seen| {
        let findings = step::findings(1, seen, Some(&measured(seen))).remove("left").unwrap();
        findings.into_iter().find(|f| f.type_ == IN_USE).unwrap()
    };
    let unknown = in_use(&seen);
    assert_eq!(unknown.status, None);
    assert!(unknown.message.contains("shop/p"), "{}", unknown.message);
    seen.revisions[1].metadata.deletion_timestamp = Some(Time(at(5)));
    assert_eq!(in_use(&seen).status, Some(false));
}

#[test]
fn an_operator_with_other_images_changes_nothing_that_is_installed() {
    let (mut seen, old) = installed();
    seen.fresh.spec.version = None;
    let mesh = validate(&seen, &releases("2"), &["other".to_owned()], at(0)).unwrap();
    assert_eq!(take(&mut seen, &mesh, at(10)).target, old);
    assert_eq!((phase(&seen), mesh.newer.map(|v| v.to_string()).as_deref()), (None, Some("0.2.0")));
}

#[test]
fn a_step_too_far_is_refused_with_the_way_there() {
    let (mut seen, _) = installed();
    seen.revisions[0].spec.version = "0.0.9".to_owned();
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    assert!(
        validate(&seen, &releases("1"), &[], at(0)).is_ok(),
        "from what is no longer rendered every way leads forward"
    );
    seen.fresh.spec.version = Some("0.3.0".to_owned());
    let error = validate(&seen, &releases("1"), &[], at(0)).unwrap_err();
    assert_eq!(error.reason(), conditions::reason::UNKNOWN_VERSION);
    assert!(error.to_string().contains("0.1.0, 0.2.0"), "{error}");
}

#[test]
fn a_revision_that_never_came_up_does_not_hold_up_its_repair() {
    let mut seen = seen(mesh(json!({"version": "0.1.0"})));
    let broken = valid(&seen);
    let old = take(&mut seen, &broken, at(0)).target;
    take(&mut seen, &broken, at(1));
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    let repaired = valid(&seen);
    for second in 2..20 {
        let step = take(&mut seen, &repaired, at(second));
        if step.create.is_some() {
            make_ready(&mut seen, &step.target, 2);
        }
    }
    let active = seen.fresh.status.as_ref().unwrap().active_revision.clone().unwrap();
    assert_ne!(active, old, "within seconds, measured by nobody");
}

#[test]
fn what_is_mended_in_place_makes_no_revision() {
    let mut seen = seen(mesh(json!({"profile": "Default"})));
    let before = valid(&seen);
    seen.fresh.spec.control_plane.autoscaling = Some(meshwright_api::Autoscaling {
        min_replicas: Some(4),
        max_replicas: None,
        target_cpu_percent: None,
    });
    let after = valid(&seen);
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
    assert!(validate(&first, &releases("1"), &[], at(0)).is_ok());
    let mut second = seen(younger);
    second.meshes = both;
    let error = validate(&second, &releases("1"), &[], at(0)).unwrap_err();
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
    assert_eq!(step::short_since(&deployment("False")), Some(at(7)));
    assert_eq!(step::short_since(&deployment("True")), None);
}

#[test]
fn an_unset_version_stays_at_what_was_installed_and_an_unknown_one_is_refused() {
    let mut seen = seen(mesh(json!({})));
    assert_eq!(valid(&seen).snapshot.version, "0.2.0");
    seen.fresh.status.get_or_insert_default().version = Some("0.0.9".to_owned());
    let error = validate(&seen, &releases("1"), &[], at(0)).unwrap_err();
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
    let error = validate(&seen, &releases("1"), &[], at(0)).unwrap_err().to_string();
    assert!(error.contains("prod.mesh.root") && error.contains("replace-lost-root=abc"), "{error}");
    seen.fresh.annotations_mut().insert("meshwright.io/replace-lost-root".to_owned(), "abc".to_owned());
    assert!(validate(&seen, &releases("1"), &[], at(0)).unwrap().root_is_new);
}

#[test]
fn revisions_are_rendered_as_released() {
    for profile in ["Demo", "Default", "Production"] {
        let mut seen = seen(mesh(json!({"profile": profile})));
        let mesh = valid(&seen);
        take(&mut seen, &mesh, at(0));
        let mut revision = seen.revisions[0].clone();
        revision.metadata.name = Some("mesh-0a1b2c3d".to_owned());
        let around = build::Around { operator: "meshwright-system", anchors: Some("PEM") };
        let objects =
            build::revision(&revision, "mesh-0a1b2c3d-issuing-1", &mesh.control_plane, around).unwrap();
        let desired = objects.into_desired(&mesh.control_plane).unwrap();
        let bodies: Vec<_> = desired.into_iter().map(|d| d.body).collect();
        insta::assert_yaml_snapshot!(format!("revision_{}", profile.to_lowercase()), bodies);
    }
}

#[test]
fn conditions_of_a_revision_are_complete() {
    let mut seen = seen(mesh(json!({})));
    let mesh = valid(&seen);
    take(&mut seen, &mesh, at(0));
    let step = take(&mut seen, &mesh, at(1));
    let types: Vec<_> = step.findings[&step.target].iter().map(|f| f.type_).collect();
    assert_eq!(types, [READY, IN_USE, DRAINING]);
}

#[test]
fn an_upgrade_goes_on_as_it_was_asked_for_while_the_spec_is_invalid() {
    let (mut seen, _) = installed();
    seen.root = Some(crate::certificates::tests::root(3650));
    assert!(validate::going(&seen, &releases("1")).is_none(), "there is no upgrade");
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    let mesh = valid(&seen);
    for second in 10..20 {
        let step = take(&mut seen, &mesh, at(second));
        if step.create.is_some() {
            break;
        }
    }
    seen.fresh.spec.version = Some("9.9.9".to_owned());
    seen.fresh.spec.upgrade.bake = "soon".to_owned();
    let going = validate::going(&seen, &releases("1")).unwrap();
    assert_eq!(going.snapshot, mesh.snapshot);
    let step = step::next(&going, &seen, &measured(&seen), at(30));
    assert_eq!(step.decision.position.unwrap().rollback, None, "nothing else is asked for");
}
