use k8s_openapi::jiff::Timestamp;

use meshwright_api::UpgradePhase;

use super::{Progress, describe, history};
use crate::fixtures::{NOW, fresh, mesh, waiting};

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

#[test]
fn every_state_of_an_upgrade_is_told_on_a_screen() {
    for state in ["shift", "blocked", "rolled-back", "drain"] {
        let text = Progress::new(&mesh(state)).text(now());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(state, text);
    }
    insta::assert_snapshot!("none", Progress::new(&fresh()).text(now()));
}

#[test]
fn a_wait_for_a_person_names_the_command() {
    let progress = Progress::new(&waiting("shift"));
    assert!(progress.text(now()).contains("kubectl mesh approve 3\n"));
    let blocked = Progress::new(&waiting("blocked"));
    assert!(blocked.text(now()).contains("kubectl mesh acknowledge 5f3a09c2\n"));
}

#[test]
fn going_on_without_a_verdict_is_a_question_of_its_own() {
    let mut mesh = mesh("shift");
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.awaits_approval = Some("3-unmeasured".to_owned());
    let text = Progress::new(&mesh).text(now());
    assert!(text.contains("kubectl mesh approve 3-unmeasured\n"), "{text}");
    assert_eq!(
        crate::upgrade::describe_step("3-unmeasured", &[10, 25, 50]),
        "step 3 (50 %, without a good verdict)"
    );
}

#[test]
fn calls_of_nodes_are_told_against_those_before() {
    let mut mesh = mesh("shift");
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    let verdict = upgrade.verdict.clone().unwrap();
    assert!(describe(upgrade.phase, &verdict).contains("of the new revision"));
    let text = describe(UpgradePhase::ShiftNodes, &verdict);
    assert!(text.ends_with("(120 requests and connections since they went over, 431 before)"), "{text}");
}

#[test]
fn blockers_that_were_accepted_do_not_block() {
    let mut mesh = mesh("blocked");
    let accepted = ("meshwright.io/acknowledge".to_owned(), "5f3a09c2/anna".to_owned());
    mesh.metadata.annotations = Some([accepted].into());
    let progress = Progress::new(&mesh);
    assert!(!progress.blocked && progress.accepted);
    assert!(progress.text(now()).contains("\nIn the way, and accepted\n"));
}

#[test]
fn what_nobody_accepted_is_not_called_accepted_when_it_went_back() {
    let mut went_back = mesh("rolled-back");
    let blocked = mesh("blocked").status.unwrap().upgrade.unwrap();
    went_back.status.as_mut().unwrap().upgrade.as_mut().unwrap().blockers = blocked.blockers;
    let text = Progress::new(&went_back).text(now());
    assert!(text.contains("\nIn the way when it went back\n") && !text.contains("accepted"), "{text}");
}

#[test]
fn a_spec_that_is_refused_is_told_with_and_without_an_upgrade() {
    for mut mesh in [fresh(), mesh("shift")] {
        let reconciled = &mut mesh.status.as_mut().unwrap().conditions[0];
        (reconciled.status, reconciled.message) = ("False".to_owned(), "0.9.0 is not known".to_owned());
        let progress = Progress::new(&mesh);
        assert!(progress.text(now()).contains("it is not carried out: 0.9.0 is not known\n"));
        assert!(progress.line().ends_with("the spec is not carried out: 0.9.0 is not known"));
        mesh.metadata.generation = Some(5);
        assert_eq!(Progress::new(&mesh).not_reconciled, None, "it was said of the spec before");
    }
}

#[test]
fn the_history_tells_who_agreed_and_what_was_measured() {
    insta::assert_snapshot!("history", history::text(&fresh().status.unwrap().history));
    assert_eq!(history::text(&[]), "No upgrade has ended yet.\n");
}

#[test]
fn the_structure_for_programs_is_stable() {
    insta::assert_yaml_snapshot!("structure", Progress::new(&waiting("shift")));
}
