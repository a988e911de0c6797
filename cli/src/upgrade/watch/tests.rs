use meshwright_api::UpgradeResult;

use super::*;
use crate::fixtures::{NOW, fresh, mesh};

fn see(screen: &mut Screen, mesh: &MeshControlPlane) -> (usize, Option<ExitCode>) {
    let (text, code) = screen.changed(mesh, NOW.parse().unwrap()).unwrap();
    (text.lines().count(), code)
}

#[test]
fn following_ends_with_the_upgrade_that_was_seen_and_not_before() {
    let mut screen = Screen::new(Format::Json, false);
    assert_eq!(see(&mut screen, &mesh("rolled-back")), (1, None), "an old one is none to follow");
    assert_eq!(see(&mut screen, &mesh("shift")), (1, None));
    assert_eq!(see(&mut screen, &mesh("shift")), (0, None), "nothing changed");
    assert_eq!(see(&mut screen, &mesh("rolled-back")), (1, Some(ExitCode::FAILURE)));
    assert_eq!(see(&mut screen, &mesh("drain")), (1, None));
    assert_eq!(see(&mut screen, &fresh()).1, None, "that ended before this one began");
    assert_eq!(see(&mut screen, &ended()), (1, Some(ExitCode::SUCCESS)));
}

/// No upgrade is under way; the last one is the one of the fixtures.
fn ended() -> MeshControlPlane {
    let mut ended = fresh();
    let started = mesh("shift").status.unwrap().upgrade.unwrap().started;
    ended.status.as_mut().unwrap().history[0].started = started;
    ended
}

#[test]
fn what_stays_at_rest_is_followed_no_longer() {
    assert_eq!(at_rest(&fresh()), Some(ExitCode::SUCCESS));
    assert_eq!(at_rest(&mesh("rolled-back")), Some(ExitCode::FAILURE));
    assert_eq!(at_rest(&mesh("shift")), None);
    let mut newer = fresh();
    newer.metadata.generation = Some(5);
    assert_eq!(at_rest(&newer), None, "the operator has not looked at it");
}

#[test]
fn a_screen_that_hears_nothing_says_so_and_its_clock_stands_still() {
    let mut screen = Screen::new(Format::Text, true);
    see(&mut screen, &mesh("shift"));
    let at = |second: i64| {
        NOW.parse::<Timestamp>().unwrap() + k8s_openapi::jiff::SignedDuration::from_secs(second)
    };
    screen.broken = Some((at(0), "connection refused".to_owned()));
    let (first, later) = (screen.screen(at(1)).unwrap(), screen.screen(at(90)).unwrap());
    assert!(first.contains("NOT UPDATED since") && first.contains("connection refused"), "{first}");
    assert_eq!(first, later);
    see(&mut screen, &mesh("shift"));
    assert!(!screen.screen(at(91)).unwrap().contains("NOT UPDATED"));
}

/// The spec asks for another revision in the middle of an upgrade; and so it looks when it has gone back.
fn superseded(instead: &str) -> (MeshControlPlane, MeshControlPlane) {
    let mut going_back = mesh("rolled-back");
    let upgrade = going_back.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.rollback.as_mut().unwrap().cause = "Superseded".to_owned();
    let mut gone = ended();
    let last = &mut gone.status.as_mut().unwrap().history[0];
    last.result = UpgradeResult::Superseded;
    last.reason = format!("revision {instead} was asked for instead");
    (going_back, gone)
}

/// The spec is changed, and the operator says this of it.
fn refused(mut mesh: MeshControlPlane, reason: &str) -> MeshControlPlane {
    let conditions = &mut mesh.status.as_mut().unwrap().conditions;
    let reconciled = conditions.iter_mut().find(|c| c.type_ == "Reconciled").unwrap();
    (reconciled.status, reconciled.reason) = ("False".to_owned(), reason.to_owned());
    reconciled.message = "spec.version 0.9.0 is not known to this operator".to_owned();
    mesh
}

#[test]
fn one_that_is_superseded_is_followed_into_the_next() {
    let (going_back, gone) = superseded("prod-33333333");
    let mut screen = Screen::new(Format::Text, false);
    see(&mut screen, &mesh("blocked"));
    assert_eq!(see(&mut screen, &going_back).1, None);
    assert_eq!(see(&mut screen, &gone), (1, None), "one line for each change");
    assert_eq!(see(&mut screen, &mesh("shift")), (1, None));
    assert_eq!(see(&mut screen, &mesh("rolled-back")).1, Some(ExitCode::FAILURE));
}

#[test]
fn one_that_the_spec_takes_back_ends_well_as_soon_as_it_is_gone() {
    let (going_back, gone) = superseded("prod-11111111");
    let mut screen = Screen::new(Format::Json, false);
    assert_eq!(see(&mut screen, &going_back).1, None, "what goes back is followed, too");
    let mut newer = gone.clone();
    newer.metadata.generation = Some(5);
    assert_eq!(see(&mut screen, &newer).1, None, "the spec asks for something else again");
    assert_eq!(see(&mut screen, &gone).1, Some(ExitCode::SUCCESS));
}

#[test]
fn a_spec_that_is_refused_ends_it_where_nothing_is_under_way() {
    let refused = |mesh| refused(mesh, "UnknownVersion");
    let mut screen = Screen::new(Format::Text, false);
    assert_eq!(see(&mut screen, &fresh()).1, None, "one may begin yet");
    let (text, code) = screen.changed(&refused(fresh()), NOW.parse().unwrap()).unwrap();
    assert_eq!(code, Some(ExitCode::FAILURE));
    assert!(text.contains("spec.version 0.9.0 is not known"), "{text}");
    let code = |mesh| see(&mut Screen::new(Format::Json, false), &mesh).1;
    assert_eq!(code(refused(mesh("rolled-back"))), Some(ExitCode::FAILURE));
    assert_eq!(code(refused(mesh("shift"))), None, "what is under way goes on, or back");
    let mut unseen = refused(fresh());
    unseen.metadata.generation = Some(5);
    assert_eq!(code(unseen), None, "that was said of the spec before");
}

#[test]
fn what_failed_for_the_moment_is_waited_for() {
    let failed = refused(fresh(), "APIRequestFailed");
    assert_eq!(see(&mut Screen::new(Format::Json, false), &failed).1, None);
}
