//! Merging: what is ours changes, what is others' stays, and nothing is written twice.

use k8s_openapi::jiff::Timestamp;
use meshwright_api::gateway as api;
use meshwright_core::conditions::reason;
use meshwright_core::model::{AddressType, AssignedAddress, ParentRef};
use meshwright_core::status::{
    ConditionUpdate, Finding, GatewayStatus, ListenerStatus, RouteParentStatus, RouteStatus,
};
use meshwright_core::{conditions as types, model};
use serde_json::{Value, json};

use super::merge;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn parent_ref(name: &str) -> ParentRef {
    ParentRef {
        group: None,
        kind: None,
        namespace: None,
        name: name.to_owned(),
        section_name: None,
        port: Some(80),
    }
}

fn route(generation: i64, accepted: bool) -> RouteStatus {
    let finding = Finding::new(reason::NO_MATCHING_PARENT, "no listener");
    let finding = (!accepted).then_some(&finding);
    let condition = ConditionUpdate::from_finding(types::ACCEPTED, finding, reason::ACCEPTED, generation);
    RouteStatus {
        parents: vec![RouteParentStatus { parent_ref: parent_ref("edge"), conditions: vec![condition] }],
    }
}

fn foreign() -> Value {
    json!({"controllerName": "other.example/controller", "parentRef": {"name": "edge"}, "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

#[test]
fn entries_of_other_controllers_stay_as_they_are() {
    let current: api::HttpRouteStatus = serde_json::from_value(json!({"parents": [foreign()]})).unwrap();
    let merged = merge::http_route(Some(&current), Some(&route(1, true)), at(100));
    assert_eq!(merged.parents.len(), 2);
    assert_eq!(merged.parents[0], current.parents[0]);
    assert_eq!(merged.parents[1].controller_name, "meshwright.io/gateway-controller");
    assert_eq!(merged.parents[1].parent_ref.port, Some(80));
    // Parents of ours that are not wanted any more go, in whatever order the entries are.
    let mut shuffled = merged.clone();
    shuffled.parents.reverse();
    assert_eq!(merge::http_route(Some(&shuffled), None, at(200)).parents, current.parents);
}

#[test]
fn routes_of_other_kinds_and_a_service_as_parent_are_told_alike() {
    let mut wanted = route(1, true);
    let service = ParentRef {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        namespace: Some("shop".to_owned()),
        ..parent_ref("cart")
    };
    wanted.parents.push(RouteParentStatus { parent_ref: service, ..wanted.parents[0].clone() });
    let merged = merge::grpc_route(None, Some(&wanted), at(100));
    assert_eq!(merged.parents.len(), 2);
    let reference = &merged.parents[1].parent_ref;
    assert_eq!((reference.group.as_deref(), reference.kind.as_deref()), (Some(""), Some("Service")));
    assert_eq!(merge::grpc_route(Some(&merged), Some(&wanted), at(200)), merged);
    let left: Value = serde_json::to_value(merge::grpc_route(Some(&merged), None, at(300))).unwrap();
    assert_eq!(left, json!({"parents": []}));
    let tcp = merge::tcp_route(None, Some(&wanted), at(100));
    assert_eq!(serde_json::to_value(&tcp).unwrap(), serde_json::to_value(&merged).unwrap());
    assert_eq!(merge::tcp_route(Some(&tcp), Some(&wanted), at(200)), tcp);
}

#[test]
fn a_transition_time_moves_with_the_status_alone() {
    let first = merge::http_route(None, Some(&route(1, true)), at(100));
    let same = merge::http_route(Some(&first), Some(&route(1, true)), at(200));
    assert_eq!(first, same, "nothing changed, so nothing is to be written");
    let newer = merge::http_route(Some(&first), Some(&route(2, true)), at(200));
    let condition = &newer.parents[0].conditions[0];
    assert_eq!((condition.observed_generation, condition.last_transition_time.0), (Some(2), at(100)));
    let refused = merge::http_route(Some(&newer), Some(&route(2, false)), at(300));
    let condition = &refused.parents[0].conditions[0];
    assert_eq!((condition.status.as_str(), condition.last_transition_time.0), ("False", at(300)));
}

#[test]
fn conditions_of_others_stay_and_ours_that_ended_go() {
    let current: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> =
        ["example.com/Checked", "meshwright.io/Programmed", "Accepted"]
            .iter()
            .map(|kind| {
                serde_json::from_value(json!({"type": kind, "status": "False", "reason": "X", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}))
                .unwrap()
            })
            .collect();
    let wanted = [ConditionUpdate::ok(types::ACCEPTED, reason::ACCEPTED, 1)];
    let merged = merge::conditions(&current, &wanted, types::ROUTE_TYPES, at(5));
    let kinds: Vec<&str> = merged.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(kinds, ["example.com/Checked", "Accepted"]);
    assert_eq!(merged[0], current[0]);
}

#[test]
fn a_gateways_listeners_and_addresses_are_ours() {
    let accepted = ConditionUpdate::ok(types::ACCEPTED, reason::ACCEPTED, 1);
    let mut wanted = GatewayStatus {
        conditions: vec![accepted.clone()],
        addresses: Vec::new(),
        listeners: vec![ListenerStatus {
            name: "http".to_owned(),
            supported_kinds: vec![model::RouteGroupKind {
                group: "g".to_owned(),
                kind: "HTTPRoute".to_owned(),
            }],
            attached_routes: 3,
            conditions: vec![accepted],
        }],
    };
    let current: api::GatewayStatus = serde_json::from_value(json!({"addresses": [],
        "listeners": [{"name": "gone", "attachedRoutes": 1, "conditions": []}]}))
    .unwrap();
    let merged = merge::gateway(Some(&current), &wanted, at(1));
    assert_eq!(merged.addresses, Some(Vec::new()), "unset and empty are the same");
    let listeners = merged.listeners.as_deref().unwrap();
    assert_eq!((listeners.len(), listeners[0].name.as_str(), listeners[0].attached_routes), (1, "http", 3));
    assert_eq!(merge::gateway(Some(&merged), &wanted, at(9)), merged);
    wanted.addresses.push(AssignedAddress { kind: AddressType::Hostname, value: "lb.example".to_owned() });
    let addressed = merge::gateway(Some(&merged), &wanted, at(9)).addresses.unwrap();
    assert_eq!(addressed[0].r#type.as_deref(), Some("Hostname"));
}
