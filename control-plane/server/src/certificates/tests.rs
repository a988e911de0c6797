//! Who gets a certificate, against an API server that answers TokenReviews.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kube::client::Body;
use serde_json::{Value, json};
use tonic::Code;

use super::Callers;

/// Answers every TokenReview with this status, and counts them.
fn callers(status: Value) -> (Callers, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let client = kube::Client::new(
        tower::service_fn(move |request: http::Request<Body>| {
            let (status, counter) = (status.clone(), counter.clone());
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                let sent: Value =
                    serde_json::from_slice(&request.into_body().collect_bytes().await.unwrap()).unwrap();
                assert_eq!(sent["spec"]["audiences"], json!(["meshwright.io/ca"]));
                let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                    "metadata": {}, "spec": {}, "status": status});
                let answer = http::Response::new(Body::from(answer.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(answer)
            }
        }),
        "ns",
    );
    (Callers::new(client), asked)
}

fn good() -> Value {
    json!({"authenticated": true, "audiences": ["meshwright.io/ca"], "user": {
        "username": "system:serviceaccount:shop:edge-meshwright",
        "extra": {"authentication.kubernetes.io/pod-name": ["edge-1"], "authentication.kubernetes.io/pod-uid": ["u"]},
    }})
}

#[tokio::test]
async fn the_identity_is_the_reviews_and_is_asked_for_once() {
    let (callers, asked) = callers(good());
    for _ in 0..3 {
        let caller = callers.identify("token").await.unwrap();
        assert_eq!((caller.namespace.as_str(), caller.account.as_str()), ("shop", "edge-meshwright"));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    callers.identify("another").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_for_a_minute_only() {
    let (callers, asked) = callers(good());
    callers.identify("token").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    callers.identify("token").await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn anything_less_is_refused_and_asked_again_a_little_later() {
    let mut cases = Vec::new();
    for (pointer, value, why) in [
        ("/authenticated", json!(false), "does not accept"),
        ("/audiences", json!(["https://kubernetes.default.svc"]), "audience"),
        ("/audiences", json!(null), "audience"),
        ("/user/username", json!("alice"), "service account"),
        ("/user/extra/authentication.kubernetes.io~1pod-name", json!([]), "bound to a pod"),
        ("/user/extra/authentication.kubernetes.io~1pod-uid", json!([""]), "bound to a pod"),
        ("/user/extra", json!(null), "bound to a pod"),
    ] {
        let mut status = good();
        *status.pointer_mut(pointer).unwrap() = value;
        cases.push((status, why));
    }
    for (status, why) in cases {
        let (callers, asked) = callers(status);
        for attempt in [1, 1, 2] {
            if attempt == 2 {
                tokio::time::sleep(std::time::Duration::from_secs(11)).await;
            }
            let error = callers.identify("token").await.unwrap_err();
            assert_eq!(error.code(), Code::Unauthenticated);
            assert!(error.message().contains(why), "{}", error.message());
            assert_eq!(asked.load(Ordering::Relaxed), attempt, "a refusal is remembered for a while");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_server_is_not_asked_by_everybody_at_once() {
    let service = tower::service_fn(|_: http::Request<Body>| {
        std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
    });
    let callers = Callers::new(kube::Client::new(service, "ns"));
    let tokens: Vec<String> = (0..40).map(|number| format!("token {number}")).collect();
    let answers = futures::future::join_all(tokens.iter().map(|token| callers.identify(token))).await;
    let words = |word: &str| {
        let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        errors.filter(|error| error.code() == Code::Unavailable && error.message().contains(word)).count()
    };
    assert_eq!((words("timed out"), words("too many")), (32, 8));
}
