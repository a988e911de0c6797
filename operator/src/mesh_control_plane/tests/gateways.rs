//! What of the Gateways an upgrade waits for.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use meshwright_api::UpgradePhase;
use serde_json::json;

use super::{Seen, at, installed, measured, take, valid};
use crate::mesh_control_plane::{dereference::GatewaySeen, view};

/// An upgrade in this phase, with a Gateway whose pods are asked for and ready in these numbers.
fn seen(phase: UpgradePhase, old: Option<(i32, i32)>, new: Option<(i32, i32)>, behind: Option<&str>) -> Seen {
    let (mut seen, from) = installed();
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    let mesh = valid(&seen);
    take(&mut seen, &mesh, at(10));
    let position = seen.fresh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    (position.phase, position.step) = (phase, Some(1));
    let to = position.to.clone();
    let deployment = |(wanted, ready): (i32, i32)| -> Deployment {
        serde_json::from_value(json!({"spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready, "updatedReplicas": wanted, "replicas": wanted}}))
        .unwrap()
    };
    let named = |name: &str| if name == "old" { from.clone() } else { to.clone() };
    let selector = behind.map(|b| json!({"meshwright.io/revision": named(b)}));
    let service: Service = serde_json::from_value(json!({"spec": {"selector": selector}})).unwrap();
    let deployments = [(from.clone(), old), (to.clone(), new)];
    let deployments = deployments.into_iter().filter_map(|(name, n)| Some((name, deployment(n?))));
    let gateway = GatewaySeen { deployments: deployments.collect(), service: Some(service) };
    seen.gateways.insert(("shop".to_owned(), "web".to_owned()), gateway);
    seen
}

fn waits(seen: &Seen) -> Option<String> {
    let mesh = valid(seen);
    view::view(&mesh, seen, &measured(seen), "", at(20)).gateways.waiting
}

#[test]
fn a_step_waits_for_the_pods_of_a_gateway_that_serves() {
    let old = Some((3, 3));
    assert!(waits(&seen(UpgradePhase::Shift, old, None, None)).unwrap().contains("1 new proxies"));
    assert!(waits(&seen(UpgradePhase::Shift, old, Some((1, 0)), None)).is_some());
    assert!(waits(&seen(UpgradePhase::Shift, Some((3, 2)), Some((1, 0)), None)).is_some());
    assert_eq!(waits(&seen(UpgradePhase::Shift, old, Some((1, 1)), None)), None);
}

#[test]
fn a_gateway_that_nobody_serves_holds_up_no_other() {
    for old in [None, Some((3, 0))] {
        for phase in [UpgradePhase::Shift, UpgradePhase::Bake, UpgradePhase::Drain] {
            assert_eq!(waits(&seen(phase, old, Some((3, 0)), Some("old"))), None, "{old:?} {phase:?}");
            assert_eq!(waits(&seen(phase, old, None, Some("old"))), None, "{old:?} {phase:?}");
        }
    }
}

#[test]
fn warm_pods_are_not_let_go_before_the_new_ones_have_all_of_the_traffic() {
    let warm = |new, behind| waits(&seen(UpgradePhase::Drain, Some((3, 3)), new, behind));
    assert_eq!(warm(Some((3, 3)), Some("new")), None);
    assert!(warm(Some((3, 2)), Some("new")).is_some());
    assert!(warm(Some((3, 3)), None).is_some(), "the Service is for both");
}

#[test]
fn a_gateway_without_proxies_is_told_before_an_upgrade() {
    let told = |old| {
        let seen = seen(UpgradePhase::Preflight, old, None, Some("old"));
        let mesh = valid(&seen);
        let blockers = view::view(&mesh, &seen, &measured(&seen), "", at(20)).blockers;
        blockers.iter().any(|b| b.reason == "ProxiesNotReady")
    };
    assert!(told(None) && told(Some((3, 2))) && !told(Some((3, 3))));
}
