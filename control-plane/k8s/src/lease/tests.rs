//! Elections against an API server in memory, with the clock paused: every wait is exact.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::client::Body;
use meshwright_runtime::CancellationToken;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{LeaseConfig, LeaseError, LeaseHandle, REVISION_ANNOTATION, spawn};

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    hang: bool,
}

/// One Lease, with compare-and-swap by resourceVersion.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn client(&self) -> kube::Client {
        let server = self.clone();
        kube::Client::new(
            tower::service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            }),
            "ns",
        )
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if self.0.lock().unwrap().hang {
            std::future::pending::<()>().await;
        }
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await.unwrap();
        let mut state = self.0.lock().unwrap();
        let (code, body) = match (method, &state.lease) {
            (Method::GET, Some(lease)) => (StatusCode::OK, lease.clone()),
            (Method::GET, None) => (StatusCode::NOT_FOUND, status(404, "NotFound")),
            (Method::POST, Some(_)) => (StatusCode::CONFLICT, status(409, "AlreadyExists")),
            (_, current) => {
                let mut sent: Value = serde_json::from_slice(&body).unwrap();
                let known = current.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
                if known.is_some_and(|known| known != sent["metadata"]["resourceVersion"]) {
                    (StatusCode::CONFLICT, status(409, "Conflict"))
                } else {
                    state.version += 1;
                    sent["metadata"]["resourceVersion"] = json!(state.version.to_string());
                    state.lease = Some(sent.clone());
                    (StatusCode::OK, sent)
                }
            }
        };
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    fn give_to(&self, revision: &str) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.get_or_insert_with(|| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l", "namespace": "ns"}})
        });
        lease["metadata"]["resourceVersion"] = json!(version);
        lease["metadata"]["annotations"] = json!({ REVISION_ANNOTATION: revision });
    }

    fn holder(&self) -> Option<String> {
        let lease = self.0.lock().unwrap().lease.clone()?;
        serde_json::from_value::<Lease>(lease).unwrap().spec?.holder_identity
    }

    fn hang(&self, hang: bool) {
        self.0.lock().unwrap().hang = hang;
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason})
}

fn contend(server: &Server, identity: &str) -> (LeaseHandle, CancellationToken) {
    let drain = CancellationToken::new();
    (spawn(server.client(), LeaseConfig::created_by_us("ns", "l", identity), drain.clone()), drain)
}

fn contend_for(server: &Server, identity: &str, revision: &str) -> LeaseHandle {
    spawn(server.client(), LeaseConfig::for_revision("ns", "l", identity, revision), CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_a_released_lease_changes_hands_within_one_retry() {
    let server = Server::default();
    let (mut first, drain) = contend(&server, "first");
    first.acquired().await;
    let (second, _drain) = contend(&server, "second");
    sleep(Duration::from_secs(60)).await;
    assert!(first.is_leader() && !second.is_leader());
    drain.cancel();
    first.ended().await.unwrap();
    assert_eq!(server.holder(), None);
    let released = Instant::now();
    second.acquired().await;
    assert!(released.elapsed() < Duration::from_millis(2_500), "{:?}", released.elapsed());
    assert_eq!(server.holder().as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_before_anyone_may_take_over() {
    let server = Server::default();
    let (mut first, _drain) = contend(&server, "first");
    first.acquired().await;
    server.hang(true);
    let cut = Instant::now();
    let error = first.ended().await.unwrap_err();
    assert!(matches!(error, LeaseError::Lost { .. }), "{error}");
    assert!(cut.elapsed() <= Duration::from_secs(6), "{:?}", cut.elapsed());
    assert!(!first.is_leader());

    server.hang(false);
    let (second, _drain) = contend(&server, "second");
    let start = Instant::now();
    second.acquired().await;
    assert!(start.elapsed() >= Duration::from_secs(10), "took over after {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_by_the_clock_even_while_a_request_hangs() {
    let server = Server::default();
    let (first, _drain) = contend(&server, "first");
    first.acquired().await;
    let leadership = first.leadership();
    assert!(leadership.remaining().unwrap() <= Duration::from_secs(6));
    server.hang(true);
    sleep(Duration::from_millis(6_001)).await;
    assert!(!leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn only_the_revision_on_the_lease_may_hold_it() {
    let server = Server::default();
    let old = contend_for(&server, "old-pod", "mesh-1");
    let new = contend_for(&server, "new-pod", "mesh-2");
    sleep(Duration::from_secs(30)).await;
    assert!(!old.is_leader() && !new.is_leader(), "nobody creates the operator's lease");
    server.give_to("mesh-1");
    old.acquired().await;
    sleep(Duration::from_secs(30)).await;
    assert!(old.is_leader() && !new.is_leader());

    server.give_to("mesh-2");
    let given = Instant::now();
    new.acquired().await;
    assert!(given.elapsed() < Duration::from_secs(5), "{:?}", given.elapsed());
    assert!(!old.is_leader());
    assert_eq!(server.holder().as_deref(), Some("new-pod"));
    // The old one waits: the lease may come back to it.
    server.give_to("mesh-1");
    old.acquired().await;
    assert!(!new.is_leader());
}

#[tokio::test(start_paused = true)]
async fn another_write_to_the_lease_does_not_end_leadership() {
    let server = Server::default();
    server.give_to("mesh-1");
    let handle = contend_for(&server, "pod", "mesh-1");
    handle.acquired().await;
    let mut changes = handle.subscribe();
    changes.mark_unchanged();
    for _ in 0..10 {
        server.give_to("mesh-1");
        sleep(Duration::from_secs(3)).await;
    }
    assert!(handle.is_leader() && !changes.has_changed().unwrap());
}
