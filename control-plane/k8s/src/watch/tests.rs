//! Watches against an API server that answers from a table, with the clock paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use kube::client::Body;
use meshwright_runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::{Discovery, Source, Update, api_served, run};

fn deployment(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

/// Serves Deployments once `served` says so: a good one, and one that does not decode, now and in a later event.
fn client(served: Arc<AtomicBool>) -> kube::Client {
    let good = json!({"selector": {}, "template": {}});
    let bad = json!({"selector": "everything"});
    kube::Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let watched = request.uri().query().unwrap_or_default().contains("watch=true");
            let body = match (path.as_str(), watched) {
                _ if !served.load(Ordering::Relaxed) => None,
                ("/apis/apps/v1", _) => {
                    Some(json!({"kind": "APIResourceList", "groupVersion": "apps/v1", "resources": [
                    {"name": "deployments", "kind": "Deployment", "namespaced": true, "singularName": "", "verbs": ["watch"]}]}))
                }
                (_, false) => Some(
                    json!({"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {"resourceVersion": "1"},
                    "items": [deployment("good", good.clone()), deployment("bad", bad.clone())]}),
                ),
                (_, true) => Some(json!({"type": "MODIFIED", "object": deployment("bad", bad.clone())})),
            };
            let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": "the server could not find the requested resource"});
            let code = if body.is_some() { 200 } else { 404 };
            let text = body.unwrap_or(missing).to_string();
            async move {
                let response = Response::builder().status(code).body(Body::from(text.into_bytes()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        }),
        "ns",
    )
}

async fn next(updates: &mut mpsc::Receiver<Update<String>>) -> Update<String> {
    timeout(Duration::from_secs(60), updates.recv()).await.unwrap().unwrap()
}

fn start(client: kube::Client, drain: &CancellationToken) -> mpsc::Receiver<Update<String>> {
    let (events, updates) = mpsc::channel(8);
    let source = Source::<Deployment>::all("deployments", client).optional();
    let name = |object: Deployment| object.metadata.name.unwrap_or_default();
    tokio::spawn(run(source, name, |update| update, events, drain.clone()));
    updates
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_is_named_and_stops_nothing() {
    let drain = CancellationToken::new();
    let mut updates = start(client(Arc::new(AtomicBool::new(true))), &drain);
    let expected = Update::Replaced {
        objects: vec![(("shop".to_owned(), "good".to_owned()), "good".to_owned())],
        undecodable: vec![("shop".to_owned(), "bad".to_owned())],
    };
    assert_eq!(next(&mut updates).await, expected);
    // Events about it give no update at all.
    assert!(timeout(Duration::from_millis(100), updates.recv()).await.is_err());
    drain.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_is_empty_until_it_is() {
    let (drain, served) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let client = client(served.clone());
    assert_eq!(api_served(&client, "apps", "v1", "Deployment").await.unwrap(), Discovery::Absent);
    let mut updates = start(client.clone(), &drain);
    let nothing = Update::Replaced { objects: Vec::new(), undecodable: Vec::new() };
    assert_eq!(next(&mut updates).await, nothing);
    served.store(true, Ordering::Relaxed);
    assert_eq!(api_served(&client, "apps", "v1", "Deployment").await.unwrap(), Discovery::Served);
    let start = Instant::now();
    let Update::Replaced { objects, .. } = next(&mut updates).await else { panic!() };
    assert_eq!(objects.len(), 1);
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
    drain.cancel();
}

#[tokio::test(start_paused = true)]
async fn of_one_namespace_no_other_is_asked_for() {
    let (paths, mut asked) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        paths.send(request.uri().to_string()).unwrap();
        std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
    });
    let (events, _updates) = mpsc::channel(8);
    let drain = CancellationToken::new();
    let _stop = drain.clone().drop_guard();
    let source =
        Source::<Deployment>::namespaced("deployments", kube::Client::new(service, "default"), "shop");
    tokio::spawn(run(source, |_| (), |update: Update<()>| update, events, drain));
    let path = asked.recv().await.unwrap();
    assert!(path.contains("/namespaces/shop/deployments"), "{path}");
}
