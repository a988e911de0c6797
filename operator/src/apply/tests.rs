//! The writer against a mock API server that knows what it must be asked, in which order, and nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Client, client::Body};
use meshwright_k8s::lease::{self, Leadership, LeaseConfig};
use meshwright_runtime::CancellationToken;
use serde_json::{Value, json};

use super::{APPLIED, Desired, Outcome, Problem, apply};
use crate::{
    context::{Context, Settings},
    metrics::Metrics,
};

pub(crate) struct Answer(pub Method, pub &'static str, pub u16, pub Value);

/// What the mock was sent, in order.
#[derive(Clone, Default)]
pub(crate) struct Mock(Arc<Mutex<(VecDeque<Answer>, Vec<Value>)>>);

impl Mock {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let mut state = self.0.lock().unwrap();
        let Answer(expected, at, status, body) =
            state.0.pop_front().unwrap_or_else(|| panic!("a request too many: {method} {path}"));
        assert_eq!((&method, path.as_str()), (&expected, at));
        state.1.push(serde_json::from_slice(&bytes).unwrap_or(Value::Null));
        Ok(Response::builder().status(status).body(Body::from(serde_json::to_vec(&body).unwrap())).unwrap())
    }

    /// Every answer was asked for; returns the bodies that were sent.
    pub(crate) fn finish(self) -> Vec<Value> {
        let state = self.0.lock().unwrap();
        assert!(state.0.is_empty(), "{} requests too few", state.0.len());
        state.1.clone()
    }
}

/// A context whose API server gives exactly these answers.
pub(crate) fn server(answers: Vec<Answer>) -> (Context, Mock) {
    let mock = Mock(Arc::new(Mutex::new((answers.into(), Vec::new()))));
    let service = {
        let mock = mock.clone();
        tower::service_fn(move |request| mock.clone().answer(request))
    };
    (context(Client::new(service, "default"), Leadership::always()), mock)
}

/// A context whose API server refuses everything and notes what it was asked.
pub(crate) fn refusing() -> (Context, Arc<Mutex<Vec<String>>>) {
    let refusal = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403});
    answering(Leadership::always(), move |_| (403, refusal.clone()))
}

/// A context whose API server answers by method and path, and notes what it was asked.
pub(crate) fn answering(
    leadership: Leadership,
    answer: impl Fn(&str) -> (u16, Value) + Send + 'static,
) -> (Context, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let service = {
        let asked = asked.clone();
        tower::service_fn(move |request: Request<Body>| {
            let what = format!("{} {}", request.method(), request.uri().path());
            let (status, body) = answer(&what);
            asked.lock().unwrap().push(what);
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
        })
    };
    (context(Client::new(service, "default"), leadership), asked)
}

/// Of a replica that contends for the Lease at an API server that refuses everything.
pub(crate) fn standing_by() -> Leadership {
    let client = refusing().0.client;
    let config = LeaseConfig::created_by_us("meshwright-system", "meshwright-operator", "test");
    lease::spawn(client, config, CancellationToken::new()).leadership()
}

fn context(client: Client, leadership: Leadership) -> Context {
    let settings = Settings {
        namespace: "meshwright-system".to_owned(),
        service_account: "meshwright-operator".to_owned(),
        deployment: "meshwright-operator".to_owned(),
        catalogue: crate::catalogue::Catalogue::default(),
        pull_secrets: vec![],
        gateway_api_dir: "/nowhere".into(),
    };
    Context::new(client, settings, Metrics::default(), leadership, "test")
}

async fn run(desired: Desired, answers: Vec<Answer>) -> (Outcome, Vec<Value>) {
    let (ctx, mock) = server(answers);
    let outcome = apply(&ctx, &[desired]).await.unwrap();
    (outcome, mock.finish())
}

fn owner(uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "meshwright.io/v1alpha1".to_owned(),
        kind: "MeshRevision".to_owned(),
        name: "mesh-1".to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

fn config_map() -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("trust".to_owned()),
            namespace: Some("shop".to_owned()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "meshwright".to_owned(),
            )])),
            owner_references: Some(vec![owner("u1")]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("ca.crt".to_owned(), "pem".to_owned())])),
        ..ConfigMap::default()
    }
}

const PATH: &str = "/api/v1/namespaces/shop/configmaps/trust";

pub(crate) fn not_found() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
}

fn desired() -> Desired {
    Desired::new(&config_map()).unwrap()
}

#[tokio::test]
async fn what_is_absent_is_created_with_one_write() {
    let body = desired().body;
    let answers =
        vec![Answer(Method::GET, PATH, 404, not_found()), Answer(Method::PATCH, PATH, 201, body.clone())];
    let (outcome, sent) = run(desired(), answers).await;
    assert_eq!(outcome.writes, 1);
    assert_eq!(sent[1], body);
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed() {
    let mut live = desired().body;
    live["metadata"]["resourceVersion"] = json!("7");
    live["metadata"]["labels"]["somebody"] = json!("else");
    let (outcome, _) = run(desired(), vec![Answer(Method::GET, PATH, 200, live)]).await;
    assert_eq!((outcome.writes, outcome.problems.len()), (0, 0));
}

#[tokio::test]
async fn a_field_that_we_no_longer_set_is_applied_away() {
    let mut earlier = config_map();
    earlier.data.get_or_insert_default().insert("old".to_owned(), "value".to_owned());
    let live = Desired::new(&earlier).unwrap().body;
    let answers =
        vec![Answer(Method::GET, PATH, 200, live), Answer(Method::PATCH, PATH, 200, desired().body)];
    let (outcome, _) = run(desired(), answers).await;
    assert_eq!(outcome.writes, 1);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_touched() {
    let mut live = desired().body;
    live["metadata"]["ownerReferences"] = json!([]);
    live["metadata"]["labels"] = json!({});
    live["metadata"]["managedFields"] = json!([{"manager": "kubectl-create", "operation": "Update"}]);
    let (outcome, _) = run(desired(), vec![Answer(Method::GET, PATH, 200, live)]).await;
    let expected = Problem::NotOurs {
        object: "ConfigMap shop/trust".to_owned(),
        owner: "field manager kubectl-create".to_owned(),
    };
    assert_eq!(outcome.recheck, Some(super::NOT_OURS));
    assert_eq!((outcome.writes, outcome.problems), (0, vec![expected]));
}

#[tokio::test]
async fn an_object_of_an_earlier_owner_is_waited_for() {
    let mut live = desired().body;
    live["metadata"]["ownerReferences"] = json!([owner("u0")]);
    let (ctx, _mock) = server(vec![Answer(Method::GET, PATH, 200, live)]);
    let error = apply(&ctx, &[desired()]).await.unwrap_err();
    assert!(matches!(error.class(), crate::error::Class::Waiting(_)), "{error}");
}

#[tokio::test]
async fn a_request_that_admission_changes_is_reported() {
    let mut answer = desired().body;
    answer["data"]["ca.crt"] = json!("mutated");
    let answers = vec![Answer(Method::GET, PATH, 404, not_found()), Answer(Method::PATCH, PATH, 201, answer)];
    let (outcome, _) = run(desired(), answers).await;
    let [Problem::Contested { field, manager, .. }] = &outcome.problems[..] else {
        panic!("{:?}", outcome.problems)
    };
    assert_eq!(field, "data.ca.crt");
    assert!(manager.contains("admission policy"), "{manager}");
    assert!(outcome.recheck.is_some());
}

#[tokio::test]
async fn foreign_changes_are_mended_five_times_a_minute_and_then_reported() {
    let mut live = desired().body;
    live["data"]["ca.crt"] = json!("other");
    live["metadata"]["managedFields"] =
        json!([{"manager": "rogue", "operation": "Update", "fieldsV1": {"f:data": {"f:ca.crt": {}}}}]);
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(Answer(Method::GET, PATH, 200, live.clone()));
        answers.push(Answer(Method::PATCH, PATH, 200, desired().body));
    }
    answers.push(Answer(Method::GET, PATH, 200, live.clone()));
    let (ctx, mock) = server(answers);
    let mut writes = 0;
    let mut problems = Vec::new();
    for _ in 0..6 {
        let outcome = apply(&ctx, &[desired()]).await.unwrap();
        writes += outcome.writes;
        problems.extend(outcome.problems);
    }
    mock.finish();
    assert_eq!(writes, 5);
    let [Problem::Contested { manager, .. }] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(manager, "rogue");
}

#[tokio::test]
async fn who_reverts_our_annotation_too_is_fought_no_longer() {
    let mut live = desired().body;
    live["data"]["ca.crt"] = json!("other");
    live["metadata"]["annotations"][APPLIED] = json!("an earlier one");
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(Answer(Method::GET, PATH, 200, live.clone()));
        answers.push(Answer(Method::PATCH, PATH, 200, desired().body));
    }
    answers.push(Answer(Method::GET, PATH, 200, live.clone()));
    let (ctx, mock) = server(answers);
    // The first is not counted: it may be what we newly want.
    for _ in 0..6 {
        assert_eq!(apply(&ctx, &[desired()]).await.unwrap().writes, 1);
    }
    let last = apply(&ctx, &[desired()]).await.unwrap();
    mock.finish();
    assert!(matches!(&last.problems[..], [Problem::Contested { .. }]), "{last:?}");
}

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";

fn deployment() -> Desired {
    let mut deployment = Deployment { metadata: config_map().metadata, ..Deployment::default() };
    deployment.metadata.name = Some("web".to_owned());
    Desired::new(&deployment).unwrap().with_floor(3)
}

#[tokio::test]
async fn a_deployment_starts_with_its_replicas_and_later_applies_leave_them_alone() {
    let mut live = deployment().body;
    live["spec"]["replicas"] = json!(3);
    let answers = vec![
        Answer(Method::GET, DEPLOYMENT, 404, not_found()),
        Answer(Method::PATCH, DEPLOYMENT, 201, live.clone()),
    ];
    let (_, sent) = run(deployment(), answers).await;
    assert_eq!(sent[1]["spec"]["replicas"], 3);

    // A new template: before the main manager drops the field, another one takes it, or it would fall to 1.
    live["metadata"]["annotations"][APPLIED] = json!("older");
    live["spec"]["replicas"] = json!(5);
    live["metadata"]["managedFields"] = json!([
        {"manager": super::MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
    let answers = vec![
        Answer(Method::GET, DEPLOYMENT, 200, live.clone()),
        Answer(Method::PATCH, DEPLOYMENT, 200, live.clone()),
        Answer(Method::PATCH, DEPLOYMENT, 200, deployment().body),
    ];
    let (_, sent) = run(deployment(), answers).await;
    assert_eq!(sent[1]["spec"], json!({"replicas": 5}));
    assert_eq!(sent[2]["spec"].get("replicas"), None);
}

#[tokio::test]
async fn a_deployment_scaled_to_nothing_is_raised_to_its_floor() {
    let mut live = deployment().body;
    live["spec"]["replicas"] = json!(0);
    let answers = vec![
        Answer(Method::GET, DEPLOYMENT, 200, live.clone()),
        Answer(Method::PATCH, DEPLOYMENT, 200, live.clone()),
    ];
    let (outcome, sent) = run(deployment(), answers).await;
    assert_eq!((outcome.writes, &sent[1]["spec"]), (1, &json!({"replicas": 3})));
}
