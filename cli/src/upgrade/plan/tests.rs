use meshwright_api::{
    Approval, MeshControlPlane, MeshRevision, NodeSlot, Profile, UpgradeMode, UpgradeResult, Window, labels,
};

use super::plan;
use crate::fixtures::{fresh, mesh, revisions};

/// Two Gateways.
const PODS: [i32; 2] = [2, 6];

#[test]
fn the_structure_for_programs_is_stable() {
    insta::assert_yaml_snapshot!("structure", plan(&fresh(), &revisions(), Some("0.2.0"), &PODS));
}

#[test]
fn a_plan_says_what_changes_and_what_happens() {
    let mut mesh = fresh();
    mesh.spec.upgrade.approval = Approval::EveryStep;
    let text = plan(&mesh, &revisions(), Some("0.2.0"), &PODS).text();
    assert!(text.lines().filter(|l| !l.contains("--type merge")).all(|l| l.chars().count() <= 100), "{text}");
    insta::assert_snapshot!("plan", text);
}

#[test]
fn without_a_wish_nothing_would_change() {
    let plan = plan(&fresh(), &revisions(), None, &PODS);
    assert!(plan.text().starts_with("Nothing would change: mesh/prod is at 0.1.1"), "{}", plan.text());
}

#[test]
fn a_setting_that_reaches_proxies_is_a_change_without_a_new_release() {
    let mut mesh = fresh();
    mesh.spec.certificates.workload_ttl = "12h".to_owned();
    let plan = plan(&mesh, &revisions(), None, &PODS);
    let fields: Vec<_> = plan.changes.iter().map(|c| (c.field.as_str(), c.to.as_str())).collect();
    assert_eq!(fields, [("workloadTTL", "12h")]);
    assert!(plan.command.is_none(), "it happens by itself");
}

#[test]
fn an_upgrade_under_way_is_planned_from_its_own_revisions() {
    let plan = plan(&mesh("shift"), &revisions(), None, &PODS);
    assert!(plan.under_way);
    let fields: Vec<_> = plan.changes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["images.controlPlane", "images.proxy", "version", "workloadTTL"]);
}

#[test]
fn an_automatic_upgrade_takes_the_newest_release_in_its_window() {
    let mut mesh = fresh();
    mesh.spec.upgrade.mode = UpgradeMode::Automatic;
    mesh.spec.upgrade.windows = vec![Window {
        schedule: "0 2 * * 1-5".to_owned(),
        duration: "2h".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
    }];
    let plan = plan(&mesh, &revisions(), None, &PODS);
    assert_eq!((plan.to.as_str(), plan.windows.len()), ("0.2.0", 1));
    mesh.status.as_mut().unwrap().available_versions.push("0.3.0".to_owned());
    assert_eq!(super::plan(&mesh, &revisions(), None, &PODS).to, "0.2.0", "no further than one step");
}

#[test]
fn what_would_stop_an_upgrade_is_known_before() {
    let stops = |mesh, to| {
        let obstacles = plan(&mesh, &revisions(), Some(to), &PODS).obstacles;
        obstacles.into_iter().find(|o| o.blocks).map(|o| o.message).unwrap_or_default()
    };
    assert!(stops(fresh(), "0.9.0").contains("does not know 0.9.0"));
    assert!(stops(mesh("drain"), "0.1.0").contains("end-keep-warm"));
    let mut far = fresh();
    far.status.as_mut().unwrap().available_versions.push("0.3.0".to_owned());
    assert!(stops(far, "0.3.0").contains("more than one minor"));
    assert_eq!(stops(fresh(), "0.2.0"), "");
}

#[test]
fn what_went_back_needs_a_retry_and_another_revision_of_its_version_does_not() {
    let is_held = |mesh: &MeshControlPlane, revisions: &[MeshRevision]| {
        let obstacles = plan(mesh, revisions, None, &PODS).obstacles;
        obstacles.iter().any(|o| o.blocks && o.message.contains("kubectl mesh retry"))
    };
    let mut mesh = mesh("rolled-back");
    mesh.spec.certificates.workload_ttl = "12h".to_owned();
    assert!(is_held(&mesh, &revisions()), "the revision that went back has this life");
    assert!(is_held(&mesh, &revisions()[..1]), "it is gone, and the operator waits");
    let mut asked = mesh.clone();
    asked.metadata.annotations =
        Some([(labels::RETRY.to_owned(), "prod-22222222/2026-11-21T12:00:00Z".to_owned())].into());
    assert!(!is_held(&asked, &revisions()));
    mesh.spec.certificates.workload_ttl = "6h".to_owned();
    assert!(!is_held(&mesh, &revisions()));
    mesh.metadata.generation = Some(5);
    assert!(!is_held(&mesh, &revisions()[..1]), "the operator has not looked at this spec");
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.rollback.as_mut().unwrap().cause = "Superseded".to_owned();
    mesh.spec.certificates.workload_ttl = "12h".to_owned();
    assert!(!is_held(&mesh, &revisions()), "nothing was wrong with it");
}

#[test]
fn only_what_has_something_to_do_is_stopped() {
    let mut paused = fresh();
    paused.spec.upgrade.paused = true;
    let stopped = |mesh: &MeshControlPlane, to| plan(mesh, &revisions(), to, &PODS).is_stopped();
    assert!(stopped(&paused, Some("0.2.0")) && !stopped(&paused, None));
    assert!(!stopped(&fresh(), Some("0.2.0")) && stopped(&fresh(), Some("0.9.0")));
}

#[test]
fn a_profile_that_asks_for_more_is_a_change() {
    let mut mesh = fresh();
    mesh.spec.profile = Profile::Production;
    let fields: Vec<_> =
        plan(&mesh, &revisions(), None, &PODS).changes.into_iter().map(|c| c.field).collect();
    assert!(fields.contains(&"gateways.resources.requests.cpu".to_owned()), "{fields:?}");
}

#[test]
fn a_share_is_told_in_whole_pods() {
    let text = |pods: &[i32]| plan(&fresh(), &revisions(), Some("0.2.0"), pods).phases[4].what.clone();
    assert_eq!(text(&[2, 6]), "10 % of new connections asked for, 14 to 33 % by whole pods: 2 new beside 8");
    assert_eq!(text(&[3]), "10 % of new connections asked for, 25 % by whole pods: 1 new beside 3");
    assert!(text(&[]).ends_with("whole pods may make it more or less"));
}

#[test]
fn nodes_go_over_in_waves_where_both_releases_have_proxies_of_nodes() {
    let names = |slot: Option<NodeSlot>, to: &str| {
        let mut revisions = revisions();
        revisions.iter_mut().for_each(|revision| revision.spec.node_slot = slot);
        let phases = plan(&fresh(), &revisions, Some(to), &PODS).phases;
        phases.into_iter().filter(|p| p.name.starts_with("ShiftNodes")).map(|p| p.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Some(NodeSlot::A), "0.2.0").len(), 3);
    assert_eq!(names(Some(NodeSlot::A), "0.2.0")[0], "ShiftNodes 1 of 3: one node");
    assert!(names(Some(NodeSlot::A), "0.1.0").is_empty() && names(None, "0.2.0").is_empty());
}

#[test]
fn a_release_that_is_named_does_not_wait_for_a_window() {
    let mut mesh = fresh();
    (mesh.spec.version, mesh.spec.upgrade.mode) = (None, UpgradeMode::Automatic);
    mesh.spec.upgrade.windows = vec![Window {
        schedule: "0 2 * * 1-5".to_owned(),
        duration: "2h".to_owned(),
        time_zone: "UTC".to_owned(),
    }];
    let named = plan(&mesh, &revisions(), Some("0.2.0"), &PODS);
    assert!(named.windows.is_empty() && named.phases[0].what == "begins at once");
    assert!(named.text().contains("until spec.version is removed"), "{}", named.text());
    assert!(plan(&mesh, &revisions(), None, &PODS).caution.is_none());
}

#[test]
fn what_went_back_is_not_taken_by_itself() {
    let mut mesh = fresh();
    (mesh.spec.version, mesh.spec.upgrade.mode) = (None, UpgradeMode::Automatic);
    let last = &mut mesh.status.as_mut().unwrap().history[0];
    (last.to_version, last.result) = ("0.2.0".to_owned(), UpgradeResult::RolledBack);
    assert!(plan(&mesh, &revisions(), None, &PODS).changes_nothing);
}

#[test]
fn a_spec_that_is_refused_is_told_also_where_nothing_would_change() {
    let mut mesh = fresh();
    let conditions = &mut mesh.status.as_mut().unwrap().conditions;
    let reconciled = conditions.iter_mut().find(|c| c.type_ == "Reconciled").unwrap();
    (reconciled.status, reconciled.reason) = ("False".to_owned(), "InvalidSpec".to_owned());
    reconciled.message = "bake \"soon\" is no duration".to_owned();
    let plan = plan(&mesh, &revisions(), None, &PODS);
    assert!(
        plan.changes_nothing && plan.is_stopped() && plan.text().contains("is no duration"),
        "{}",
        plan.text()
    );
}
