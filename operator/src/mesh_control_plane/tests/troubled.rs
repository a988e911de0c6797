//! Pods that do not become ready: what is the new version's doing, and what is not.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::{Seen, at, mesh, seen};
use crate::{
    mesh_control_plane::{measure::Measured, trouble},
    upgrade::machine::Trouble,
};

const OLD: &str = "mesh-1";
const NEW: &str = "mesh-2";

fn pod(name: &str, revision: &str, gateway: &str, status: Value) -> Pod {
    let labels = json!({"meshwright.io/component": "gateway", "meshwright.io/revision": revision,
        "gateway.networking.k8s.io/gateway-name": gateway});
    let metadata =
        json!({"name": name, "namespace": "shop", "labels": labels, "creationTimestamp": at(0).to_string()});
    serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
}

fn never_ready() -> Value {
    json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": at(0).to_string()}],
        "containerStatuses": [{"name": "proxy", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"running": {"startedAt": at(1).to_string()}}}]})
}

fn pending() -> Value {
    json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]})
}

fn found(pods: Vec<Pod>, measured: &Measured, now: Timestamp) -> Option<Trouble> {
    let seen = Seen { items: pods, ..seen(mesh(json!({}))) };
    trouble::proxies(&seen, measured, (OLD, NEW), now)
}

#[test]
fn what_does_not_pass_comes_before_what_may() {
    let pods = vec![pod("a-0", NEW, "a", pending()), pod("b-0", NEW, "b", never_ready())];
    assert_eq!(found(pods.clone(), &Measured::default(), at(30)), None, "it is too early");
    let known = Measured { behind: Some(Vec::new()), ..Measured::default() };
    assert!(
        !found(pods.clone(), &Measured::default(), at(120)).unwrap().lasting,
        "nobody knows whose doing it is"
    );
    let trouble = found(pods, &known, at(120)).unwrap();
    assert!(trouble.lasting && trouble.message.contains("shop/b-0"), "{trouble:?}");
}

#[test]
fn what_new_pods_of_the_old_version_lack_too_is_nobodys_doing() {
    let pods = vec![pod("b-0", NEW, "b", never_ready()), pod("b-9", OLD, "b", never_ready())];
    assert!(!found(pods, &Measured::default(), at(120)).unwrap().lasting);
}

#[test]
fn a_gateway_whose_configuration_is_refused_is_its_users_to_mend_whatever_its_name() {
    let name = "shop.example";
    let pods = vec![pod("b-0", NEW, &meshwright_api::names::fit(name), never_ready())];
    let behind = |name: &str| Measured { behind: Some(vec![format!("shop/{name}")]), ..Measured::default() };
    assert!(!found(pods.clone(), &behind(name), at(120)).unwrap().lasting);
    assert!(found(pods, &behind("another"), at(120)).unwrap().lasting);
}
