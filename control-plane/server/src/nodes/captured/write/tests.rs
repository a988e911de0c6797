//! Writes against an API server that says what a test wants.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::client::Body;
use meshwright_api::{MeshNodeStatus, MeshPod};
use meshwright_proto::nodes::NodeReport;
use serde_json::{Value, json};

use super::*;

type Answer = (u16, Value);

fn wanted() -> MeshNodeStatus {
    let pods = vec![MeshPod { uid: "u1".to_owned(), addresses: vec!["10.0.0.1".to_owned()] }];
    MeshNodeStatus { revision: "mesh-1".to_owned(), epoch: 3, pods, ..MeshNodeStatus::default() }
}

fn node(version: &str, epoch: i64, status: Value) -> Answer {
    let metadata = json!({"namespace": "mesh-ns", "name": "n1", "uid": "a", "resourceVersion": version});
    let spec = json!({"revision": "mesh-1", "epoch": epoch});
    (
        200,
        json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshNode", "metadata": metadata,
        "spec": spec, "status": status}),
    )
}

fn failure(code: u16, reason: &str) -> Answer {
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no",
        "reason": reason, "details": {"name": "n1"}, "code": code}),
    )
}

/// Writes; gives the outcome and the requests: what was read, and with which resourceVersion was written. The last answer is given again
/// and again.
async fn written(
    answers: Vec<Answer>,
    meanwhile: impl Fn(&Followers) + Send + Sync + 'static,
) -> (Result<Written, Error>, Vec<String>) {
    let followers = Followers::default();
    let follower = followers.opened("n1");
    follower.reported(NodeReport::default());
    let (stream, _) = followers.report("n1").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, meanwhile, observed) = (asked.clone(), Arc::new(meanwhile), followers.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answers) = (log.clone(), answers.clone());
        meanwhile(&observed);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            assert!(
                path.starts_with("/apis/meshwright.io/v1alpha1/namespaces/mesh-ns/meshnodes/n1"),
                "{path}"
            );
            let said = if method == Method::PUT {
                assert!(path.ends_with("/status"), "{path}");
                let bytes = request.into_body().collect_bytes().await.unwrap();
                let sent: Value = serde_json::from_slice(&bytes).unwrap();
                let status = json!({"revision": "mesh-1", "epoch": 3,
                    "pods": [{"uid": "u1", "addresses": ["10.0.0.1"]}]});
                assert_eq!((&sent["status"], &sent["metadata"]["uid"]), (&status, &json!("a")));
                format!("PUT {}", sent["metadata"]["resourceVersion"].as_str().unwrap())
            } else {
                method.to_string()
            };
            let mut log = log.lock().unwrap();
            let (code, body) = answers[log.len().min(answers.len() - 1)].clone();
            log.push(said);
            let response = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, Infallible>(response.unwrap())
        }
    });
    let nodes = Api::namespaced(kube::Client::new(service, "mesh-ns"), "mesh-ns");
    let context = Context { nodes, followers };
    let result = write(&context, "n1", stream, &Said::Serves(wanted())).await;
    let asked = asked.lock().unwrap().clone();
    (result, asked)
}

#[tokio::test]
async fn the_version_that_was_read_is_the_one_that_is_written() {
    let answers = vec![node("7", 3, json!(null)), node("8", 3, json!(null))];
    let (result, asked) = written(answers, |_| ()).await;
    assert_eq!((result.unwrap(), asked), (Written::Done, vec!["GET".to_owned(), "PUT 7".to_owned()]));
}

#[tokio::test]
async fn what_says_it_already_or_is_not_to_say_it_is_left_alone() {
    let status = serde_json::to_value(wanted()).unwrap();
    for (answer, expected) in [
        (node("7", 3, status.clone()), Written::Unchanged),
        (node("7", 4, status), Written::NotOurs),
        (failure(404, "NotFound"), Written::NotOurs),
    ] {
        let (result, asked) = written(vec![answer], |_| ()).await;
        assert_eq!((result.unwrap(), asked), (expected, vec!["GET".to_owned()]));
    }
    let gone = vec![node("7", 3, json!(null)), failure(404, "NotFound")];
    let (result, asked) = written(gone, |_| ()).await;
    assert_eq!((result.unwrap(), asked.len()), (Written::NotOurs, 2), "and nobody makes it");
}

#[tokio::test]
async fn a_conflict_is_looked_at_again_until_the_operator_has_decided_otherwise() {
    let (old, conflict) = (node("7", 3, json!(null)), failure(409, "Conflict"));
    let answers = vec![old.clone(), conflict.clone(), node("8", 3, json!(null)), node("9", 3, json!(null))];
    let (result, asked) = written(answers, |_| ()).await;
    assert_eq!((result.unwrap(), asked.last().unwrap().as_str()), (Written::Done, "PUT 8"));

    let answers = vec![old.clone(), conflict.clone(), node("8", 4, json!(null))];
    let (result, asked) = written(answers, |_| ()).await;
    assert_eq!((result.unwrap(), asked.len()), (Written::NotOurs, 3));

    let answers = [old, conflict].into_iter().cycle().take(2 * ATTEMPTS).collect();
    let (result, asked) = written(answers, |_| ()).await;
    assert!(matches!(result, Err(Error::Contested)) && asked.len() == 2 * ATTEMPTS);

    let (result, _) = written(vec![failure(500, "InternalError")], |_| ()).await;
    assert!(matches!(result, Err(Error::Api(_))));
}

#[tokio::test]
async fn nothing_is_written_for_an_agent_that_has_gone_elsewhere() {
    let moved = |followers: &Followers| drop(followers.opened("n1"));
    let (result, asked) = written(vec![node("7", 3, json!(null))], moved).await;
    assert_eq!((result.unwrap(), asked), (Written::NotOurs, vec!["GET".to_owned()]));
}
