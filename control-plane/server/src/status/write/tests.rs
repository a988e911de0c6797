//! Writes against an API server that says what a test wants.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_core::conditions::{ACCEPTED, reason};
use meshwright_core::model::ParentRef;
use meshwright_core::status::{ConditionUpdate, RouteParentStatus, RouteStatus};
use meshwright_k8s::Update;
use serde_json::{Value, json};

use super::super::kinds::HttpRoutes;
use super::*;

fn name() -> (String, String) {
    ("shop".to_owned(), "cart".to_owned())
}

fn key() -> ObjectKey {
    ObjectKey::new("shop", "cart")
}

/// The route as the watch saw it.
fn known() -> LiveObjects {
    let live = LiveObjects::default();
    let route = Live { uid: "a".to_owned(), resource_version: "1".to_owned(), status: None };
    live.update_http_routes(Update::Applied(name(), route));
    live
}

fn route(uid: &str, version: &str) -> (u16, Value) {
    let metadata = json!({"namespace": "shop", "name": "cart", "uid": uid, "resourceVersion": version});
    (200, json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata}))
}

fn failure(code: u16, reason: &str, details: Value) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "no", "reason": reason, "details": details, "code": code});
    (code, status)
}

fn not_found() -> (u16, Value) {
    failure(404, "NotFound", json!({"name": "cart"}))
}

/// Writes what the route should say; gives the outcome and how many requests it took. The last answer is given again and again.
async fn written(
    live: &LiveObjects,
    answers: Vec<(u16, Value)>,
    meanwhile: impl Fn() + Send + Sync + 'static,
) -> (Result<Written, Error>, usize) {
    let (asked, meanwhile) = (Arc::new(Mutex::new(0)), Arc::new(meanwhile));
    let count = asked.clone();
    let service = tower::service_fn(move |_: Request<Body>| {
        let mut count = count.lock().unwrap();
        let (code, body) = answers[(*count).min(answers.len() - 1)].clone();
        *count += 1;
        meanwhile();
        let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    });
    let client = kube::Client::new(service, "shop");
    let recorder = Recorder::new(client.clone(), Reporter::from("test"));
    let context = Context {
        client,
        leadership: Leadership::always(),
        live: live.clone(),
        events: Events::new(recorder, live.clone()),
    };
    let parent_ref = ParentRef {
        group: None,
        kind: None,
        namespace: None,
        name: "edge".to_owned(),
        section_name: None,
        port: None,
    };
    let conditions = vec![ConditionUpdate::ok(ACCEPTED, reason::ACCEPTED, 1)];
    let wanted = RouteStatus { parents: vec![RouteParentStatus { parent_ref, conditions }] };
    let mut statuses = Statuses::default();
    statuses.http_routes.insert(Arc::new(key()), Arc::new(wanted));
    let written = write::<HttpRoutes>(&context, &key(), &statuses).await;
    let asked = *asked.lock().unwrap();
    (written, asked)
}

#[tokio::test]
async fn an_answer_is_remembered_unless_the_route_was_deleted_meanwhile() {
    let live = known();
    let (result, _) = written(&live, vec![route("a", "2")], || ()).await;
    assert_eq!(result.unwrap(), Written::Done);
    assert_eq!(live.http_route(&key()).unwrap().resource_version, "2");

    let live = known();
    let watch = live.clone();
    let deleted = move || watch.update_http_routes(Update::Deleted(name()));
    let (result, _) = written(&live, vec![route("a", "2")], deleted).await;
    assert_eq!(result.unwrap(), Written::Done);
    assert_eq!(live.http_route(&key()), None, "and the next sweep has nothing to write");
}

#[tokio::test]
async fn what_is_not_found_is_not_written_again() {
    let live = known();
    let (result, asked) = written(&live, vec![not_found()], || ()).await;
    assert_eq!((result.unwrap(), asked), (Written::NotOurs, 1));
    let (result, asked) = written(&live, vec![not_found()], || ()).await;
    assert_eq!((result.unwrap(), asked), (Written::NotOurs, 0));

    let live = known();
    let (result, _) = written(&live, vec![failure(404, "NotFound", json!({}))], || ()).await;
    assert_eq!(result.unwrap(), Written::NotOurs);
    assert!(live.http_route(&key()).is_some(), "it was the path that is not served");
}

#[tokio::test]
async fn a_conflict_is_read_and_written_again_unless_the_name_is_another_objects() {
    let conflict = || failure(409, "Conflict", json!({"name": "cart"}));
    let live = known();
    let (result, asked) = written(&live, vec![conflict(), route("a", "2"), route("a", "3")], || ()).await;
    assert_eq!((result.unwrap(), asked), (Written::Done, 3));
    assert_eq!(live.http_route(&key()).unwrap().resource_version, "3");

    let live = known();
    let answers = vec![conflict(), route("b", "2"), conflict(), route("b", "2"), conflict()];
    let (result, asked) = written(&live, answers, || ()).await;
    assert_eq!((result.unwrap(), asked), (Written::NotOurs, 2));
    assert_eq!(live.http_route(&key()).unwrap().uid, "a", "the watch will tell");
}
