use super::*;
use crate::fixtures::{fresh, mesh, waiting};

fn patch(mesh: &MeshControlPlane, wish: Wish) -> Value {
    decide(mesh, &wish, "oidc:anna/ops").unwrap().patch
}

fn refused(mesh: &MeshControlPlane, wish: Wish) -> String {
    decide(mesh, &wish, "oidc:anna/ops").unwrap_err().to_string()
}

fn annotation(patch: &Value, name: &str) -> String {
    patch["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_approval_names_revision_step_and_user() {
    let approve = |step: Option<&str>| Wish::Approve { step: step.map(str::to_owned) };
    let mesh = waiting("shift");
    let value = annotation(&patch(&mesh, approve(None)), labels::APPROVE);
    assert_eq!(value, "prod-22222222/3/oidc:anna/ops");
    assert!(refused(&mesh, approve(Some("2"))).contains("approval of step 3 (50 %), not of 2"));
    assert!(refused(&fresh(), approve(None)).contains("no upgrade of mesh prod is under way"));
    assert!(refused(&waiting("blocked"), approve(None)).contains("blocked"));
    let mut bake = waiting("shift");
    let upgrade = bake.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    (upgrade.phase, upgrade.awaits_approval) = (UpgradePhase::Bake, Some("promote".to_owned()));
    let value = annotation(&patch(&bake, approve(Some("promote"))), labels::APPROVE);
    assert_eq!(value, "prod-22222222/promote/oidc:anna/ops");
}

#[test]
fn nothing_is_approved_that_waits_for_no_approval() {
    assert!(refused(&mesh("shift"), Wish::Approve { step: None }).contains("waits for no approval"));
}

#[test]
fn a_pause_changes_one_field_and_is_not_repeated() {
    let mut mesh = mesh("shift");
    assert_eq!(patch(&mesh, Wish::Pause), json!({"spec": {"upgrade": {"paused": true}}}));
    assert!(refused(&mesh, Wish::Resume).contains("not paused"));
    mesh.spec.upgrade.paused = true;
    assert_eq!(patch(&mesh, Wish::Resume), json!({"spec": {"upgrade": {"paused": false}}}));
    assert!(refused(&mesh, Wish::Pause).contains("already"));
}

#[test]
fn going_back_is_possible_up_to_the_removal_of_the_old_revision() {
    for state in ["shift", "blocked", "drain"] {
        assert_eq!(annotation(&patch(&mesh(state), Wish::Rollback), labels::ROLLBACK), "prod-22222222");
    }
    assert!(refused(&mesh("rolled-back"), Wish::Rollback).contains("went back already"));
    assert!(refused(&fresh(), Wish::Rollback).contains("spec.version"));
    let mut retire = mesh("drain");
    retire.status.as_mut().unwrap().upgrade.as_mut().unwrap().phase = UpgradePhase::Retire;
    assert!(refused(&retire, Wish::Rollback).contains("being removed"));
}

#[test]
fn going_back_to_pods_that_end_is_not_promised_within_seconds() {
    let next = |mesh: &MeshControlPlane| decide(mesh, &Wish::Rollback, "anna").unwrap().next;
    let mut drain = mesh("drain");
    assert!(next(&drain).contains("within seconds"), "they are warm");
    let upgrade = drain.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.measured_since = Some(upgrade.since.clone());
    assert!(next(&drain).contains("start first"), "{}", next(&drain));
    assert!(!next(&drain).contains("within seconds"));
}

#[test]
fn only_what_was_seen_is_acknowledged() {
    let acknowledge = |plan: Option<&str>| Wish::Acknowledge { plan: plan.map(str::to_owned) };
    let blocked = mesh("blocked");
    assert_eq!(
        annotation(&patch(&blocked, acknowledge(None)), labels::ACKNOWLEDGE),
        "5f3a09c2/oidc:anna/ops"
    );
    assert!(refused(&blocked, acknowledge(Some("0000"))).contains("5f3a09c2 now"));
    assert!(refused(&mesh("shift"), acknowledge(None)).contains("nothing blocks"));
}

#[test]
fn only_what_went_back_is_tried_again() {
    assert_eq!(
        annotation(&patch(&mesh("rolled-back"), Wish::Retry), labels::RETRY),
        "prod-22222222/2026-11-21T12:00:00Z"
    );
    assert!(refused(&mesh("shift"), Wish::Retry).contains("is at Shift 2 of 3"));
}

#[test]
fn only_an_old_revision_after_promotion_is_let_go() {
    let value = annotation(&patch(&mesh("drain"), Wish::EndKeepWarm), labels::END_KEEP_WARM);
    assert_eq!(value, "prod-11111111");
    assert!(refused(&mesh("shift"), Wish::EndKeepWarm).contains("no old revision is kept warm"));
}

#[test]
fn everything_that_is_done_is_told_within_the_width() {
    let (shift, blocked) = (waiting("shift"), mesh("blocked"));
    let wishes = [
        (&shift, Wish::Approve { step: None }),
        (&shift, Wish::Pause),
        (&shift, Wish::Rollback),
        (&blocked, Wish::Acknowledge { plan: None }),
    ];
    let texts = wishes.map(|(mesh, wish)| decide(mesh, &wish, "anna@example.com").unwrap().text());
    assert!(texts.iter().flat_map(|t| t.lines()).all(|line| line.chars().count() <= 100));
    insta::assert_snapshot!("told", texts.join("\n"));
}
