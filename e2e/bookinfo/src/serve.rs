//! What all services share: health, the version header, and going away without losing a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::{CONNECTION, HeaderName, HeaderValue};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::model::Pod;

const VERSION: HeaderName = HeaderName::from_static("x-bookinfo-version");

/// How a process goes away after SIGTERM.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Keep serving: proxies and nodes hear only after a moment that this pod is leaving. Done here and not
    /// in a preStop hook, because the image has no shell to sleep in.
    pub linger: Duration,
    /// Then wait this long for requests under way.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { linger: Duration::from_secs(10), drain: Duration::from_secs(10) }
    }
}

struct Shared {
    version: HeaderValue,
    leaving: AtomicBool,
}

/// Registers the handlers at once; the future ends with the first SIGTERM or SIGINT.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    })
}

/// Serves until `stop` and through the time that `patience` gives.
pub async fn run(
    listener: TcpListener,
    me: Pod,
    routes: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    patience: Patience,
) -> io::Result<()> {
    let version =
        HeaderValue::from_str(&format!("{}-{}", me.service, me.version)).map_err(io::Error::other)?;
    let shared = Arc::new(Shared { version, leaving: AtomicBool::new(false) });
    let app = routes
        .route("/health", get(move || async move { Json(json!({ "status": "healthy", "pod": me })) }))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such page") })
        .layer(from_fn_with_state(shared.clone(), mark));

    let (closing, mut closed) = tokio::sync::oneshot::channel::<()>();
    let lingered = async move {
        stop.await;
        tracing::info!(linger = ?patience.linger, "asked to stop; serving a little longer");
        shared.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(patience.linger).await;
        // Nobody listens if serving ended by itself, and then there is nothing left to bound.
        let _ = closing.send(());
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(lingered).into_future();
    tokio::select! {
        result = serving => result,
        // A client that never finishes must not hold the pod until it is killed.
        () = async {
            if (&mut closed).await.is_err() { std::future::pending::<()>().await; }
            tokio::time::sleep(patience.drain).await;
        } => Ok(()),
    }
}

/// Names the version on every answer, 404 included. While leaving it also asks clients to open their next
/// connection elsewhere, so that none is cut between two requests when the socket closes.
async fn mark(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    response.headers_mut().insert(VERSION, shared.version.clone());
    // In the answer to a WebSocket's handshake the header says something else.
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if shared.leaving.load(Ordering::Relaxed) && !switches {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An error as JSON.
pub fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
