//! Upgrades that begin by themselves: when they do, and when not.

use kube::ResourceExt;
use meshwright_api::{UpgradePhase, labels};
use serde_json::json;

use super::{Seen, at, installed, phase, take, valid};

fn window(schedule: &str) -> meshwright_api::Window {
    meshwright_api::Window {
        schedule: schedule.to_owned(),
        duration: "1h".to_owned(),
        time_zone: "UTC".to_owned(),
    }
}

#[test]
fn an_automatic_upgrade_takes_the_newest_release_in_its_window() {
    let (mut seen, old) = installed();
    seen.fresh.spec.version = None;
    seen.fresh.spec.upgrade.mode = meshwright_api::UpgradeMode::Automatic;
    // The clock of these tests stands at 08:00 on a Friday.
    seen.fresh.spec.upgrade.windows = vec![window("0 3 * * *")];
    let mesh = valid(&seen);
    for second in 10..13 {
        take(&mut seen, &mesh, at(second));
    }
    assert_eq!(phase(&seen), Some(UpgradePhase::Planned));
    let waiting = seen.fresh.status.as_ref().unwrap().upgrade.as_ref().unwrap().waiting.clone().unwrap();
    assert!(waiting.contains("window"), "{waiting}");
    seen.fresh.spec.upgrade.windows.push(window("0 8 * * *"));
    let mesh = valid(&seen);
    for second in 13..16 {
        take(&mut seen, &mesh, at(second));
    }
    assert_ne!(phase(&seen), Some(UpgradePhase::Planned));
    assert_ne!(
        mesh.snapshot.version,
        seen.revisions.iter().find(|r| r.name_any() == old).unwrap().spec.version
    );
}

#[test]
fn what_a_person_changes_does_not_wait_for_the_window_of_a_release() {
    let (mut seen, _) = installed();
    (seen.fresh.spec.version, seen.fresh.spec.upgrade.mode) = (None, meshwright_api::UpgradeMode::Automatic);
    seen.fresh.spec.upgrade.windows = vec![window("0 3 * * *")];
    assert_eq!((valid(&seen).snapshot.version.as_str(), valid(&seen).by_itself), ("0.2.0", true));
    seen.fresh.spec.gateways.resources =
        serde_json::from_value(json!({"requests": {"cpu": "300m"}})).unwrap();
    assert_eq!((valid(&seen).snapshot.version.as_str(), valid(&seen).by_itself), ("0.1.0", false));
    seen.fresh.spec.upgrade.windows.push(window("0 8 * * *"));
    assert_eq!((valid(&seen).snapshot.version.as_str(), valid(&seen).by_itself), ("0.2.0", true));
}

#[test]
fn an_automatic_upgrade_goes_on_when_upgrades_are_manual_again() {
    let (mut seen, _) = installed();
    (seen.fresh.spec.version, seen.fresh.spec.upgrade.mode) = (None, meshwright_api::UpgradeMode::Automatic);
    let mesh = valid(&seen);
    for second in 10..13 {
        take(&mut seen, &mesh, at(second));
    }
    assert_eq!(phase(&seen), Some(UpgradePhase::InstallCanary));
    seen.fresh.spec.upgrade.mode = meshwright_api::UpgradeMode::Manual;
    assert_eq!(valid(&seen).snapshot.version, "0.2.0");
}

#[test]
fn a_release_that_went_back_is_not_taken_by_itself_again() {
    let (mut seen, old) = installed();
    (seen.fresh.spec.version, seen.fresh.spec.upgrade.mode) = (None, meshwright_api::UpgradeMode::Automatic);
    let mesh = valid(&seen);
    take(&mut seen, &mesh, at(10));
    let new = seen.fresh.status.as_ref().unwrap().upgrade.as_ref().unwrap().to.clone();
    let wish = |seen: &mut Seen, annotation: &str, value: String| {
        seen.fresh.metadata.annotations = Some([(annotation.to_owned(), value)].into());
    };
    wish(&mut seen, labels::ROLLBACK, new.clone());
    let mut now = 11;
    let mut pass = |seen: &mut Seen, times: i64| {
        for _ in 0..times {
            let mesh = valid(seen);
            take(seen, &mesh, at(now));
            now += 1;
        }
    };
    pass(&mut seen, 6);
    assert_eq!(phase(&seen), Some(UpgradePhase::RolledBack), "and that stays to be seen");
    assert!(valid(&seen).held_back && valid(&seen).newer.is_some());
    // Other settings are another revision, of the release that serves.
    seen.fresh.metadata.annotations = None;
    seen.fresh.spec.gateways.resources =
        serde_json::from_value(json!({"requests": {"cpu": "300m"}})).unwrap();
    pass(&mut seen, 2);
    let going = seen.fresh.status.as_ref().unwrap().upgrade.clone().unwrap();
    assert_eq!((going.from.as_str(), going.to_version.as_str()), (old.as_str(), "0.1.0"));
    // Back to how it was, it is tried again when somebody asks for it.
    seen.fresh.spec.gateways.resources = None;
    pass(&mut seen, 2);
    assert_eq!(phase(&seen), None);
    let last = seen.fresh.status.as_ref().unwrap().history.iter().find(|r| r.to == new).unwrap().attempt();
    wish(&mut seen, labels::RETRY, last);
    pass(&mut seen, 1);
    seen.fresh.metadata.annotations = None;
    pass(&mut seen, 3);
    let going = seen.fresh.status.as_ref().unwrap().upgrade.clone().unwrap();
    assert_eq!((going.to.as_str(), going.to_version.as_str()), (new.as_str(), "0.2.0"));
}

#[test]
fn a_window_that_closes_while_something_is_in_the_way_is_waited_for_again() {
    let (mut seen, _) = installed();
    (seen.fresh.spec.version, seen.fresh.spec.upgrade.mode) = (None, meshwright_api::UpgradeMode::Automatic);
    seen.fresh.spec.upgrade.windows = vec![window("0 8 * * *")];
    seen.fresh.spec.upgrade.paused = true;
    let mesh = valid(&seen);
    take(&mut seen, &mesh, at(10));
    let to_preflight = |seen: &mut Seen| {
        seen.fresh.status.as_mut().unwrap().upgrade.as_mut().unwrap().phase = UpgradePhase::Preflight;
    };
    to_preflight(&mut seen);
    seen.fresh.spec.upgrade.paused = false;
    let mesh = valid(&seen);
    for second in [7200, 7201, 7202] {
        take(&mut seen, &mesh, at(second));
    }
    assert_eq!(phase(&seen), Some(UpgradePhase::Preflight));
    let position = seen.fresh.status.as_ref().unwrap().upgrade.as_ref().unwrap();
    assert!(position.waiting.as_ref().unwrap().contains("window") && position.deadline.is_some());
}
