use k8s_openapi::jiff::Timestamp;

use super::{Progress, history};
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
    assert_eq!(progress.awaits_approval.as_deref(), Some("3"));
    assert!(progress.text(now()).contains("kubectl mesh approve 3\n"));
    let blocked = Progress::new(&waiting("blocked"));
    assert_eq!(blocked.awaits_approval, None, "an approval does not help here");
    assert!(blocked.text(now()).contains("kubectl mesh acknowledge 5f3a09c2\n"));
}

#[test]
fn blockers_that_were_accepted_do_not_block() {
    let mut mesh = mesh("blocked");
    let accepted = ("meshwright.io/acknowledge".to_owned(), "5f3a09c2".to_owned());
    mesh.metadata.annotations = Some([accepted].into());
    assert!(!Progress::new(&mesh).blocked);
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
