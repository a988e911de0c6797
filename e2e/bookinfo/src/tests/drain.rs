//! Going away without losing a request.

use std::future::pending;
use std::time::Duration;

use axum::routing::get as on_get;
use tokio::sync::oneshot;

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// A service that answers `/` at once, `/slow` after longer than the linger, and `/never` never.
async fn start_leaving(patience: Patience) -> (BaseUrl, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let routes = Router::new()
        .route("/", on_get(async || "here"))
        .route("/never", on_get(async || pending::<()>().await))
        .route("/slow", on_get(async || tokio::time::sleep(SHORT * 3).await));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = url(listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap() };
    let serving = tokio::spawn(async move {
        serve::run(listener, pod("details", "v1"), routes, stopped, patience).await.unwrap();
    });
    (base, stop, serving)
}

#[tokio::test]
async fn a_leaving_service_answers_a_while_and_ends_the_requests_under_way() {
    let (base, stop, serving) = start_leaving(Patience { linger: SHORT, drain: PATIENT }).await;
    let before = get(&base, "/", &[]).await;
    assert_eq!(header(before.headers(), "connection"), "");

    let slow = tokio::spawn({
        let base = base.clone();
        async move { get(&base, "/slow", &[]).await.status() }
    });
    tokio::time::sleep(SHORT / 3).await;
    stop.send(()).unwrap();
    tokio::time::sleep(SHORT / 3).await;

    let during = get(&base, "/", &[]).await;
    assert_eq!(during.status(), 200);
    assert_eq!(header(during.headers(), "connection"), "close");

    assert_eq!(slow.await.unwrap(), 200);
    tokio::time::timeout(PATIENT, serving).await.unwrap().unwrap();
    let refused = Client::new(PATIENT).get::<Value>("details", &base, "/", HeaderMap::new()).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_process() {
    let (base, stop, serving) = start_leaving(Patience { linger: SHORT, drain: SHORT }).await;
    let hanging = tokio::spawn(async move {
        let client = Client::new(PATIENT);
        client.get::<Value>("details", &base, "/never", HeaderMap::new()).await
    });
    tokio::time::sleep(SHORT).await;
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENT / 2, serving).await.unwrap().unwrap();
    hanging.abort();
}
