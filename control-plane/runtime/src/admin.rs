//! The admin server: `/livez`, `/readyz`, `/metrics` and, from this machine only, `PUT /loglevel`; plain HTTP and
//! nothing secret.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{readiness::Readiness, telemetry::Level};

/// Where the admin server listens.
#[derive(Clone, Debug, clap::Args)]
// Without its group, which is named after the type: every flattened struct here is called Args.
#[group(skip)]
pub struct Args {
    /// Address of /livez, /readyz, /metrics and, from loopback only, PUT /loglevel
    #[arg(long, env = "MESHWRIGHT_ADMIN_ADDR", default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,
}

/// The admin server's state.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
    level: Level,
}

/// The admin server could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("bind admin server to {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// Accepting failed for good.
    #[error("serve admin endpoints")]
    Serve(#[source] std::io::Error),
}

impl Admin {
    /// All metrics must be registered before this: the registry is read-only afterwards.
    pub fn new(readiness: Readiness, registry: Arc<Registry>, level: Level) -> Self {
        Self { readiness, registry, level }
    }

    /// The routes, for processes that add their own.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/loglevel", put(loglevel))
            .with_state(self)
    }

    /// Serves until `drain` is cancelled.
    pub async fn serve(self, addr: SocketAddr, drain: CancellationToken) -> Result<(), Error> {
        serve(self.router(), addr, drain).await
    }
}

/// Serves any router until `drain` is cancelled.
pub async fn serve(router: Router, addr: SocketAddr, drain: CancellationToken) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(|e| Error::Bind(addr, e))?;
    let router = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, router).with_graceful_shutdown(drain.cancelled_owned()).await.map_err(Error::Serve)
}

/// The registry in Prometheus' text format, without the closing EOF mark when more follows.
pub fn encode_metrics(registry: &Registry, last: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if last {
        prometheus_client::encoding::text::encode(&mut text, registry)?;
    } else {
        prometheus_client::encoding::text::encode_registry(&mut text, registry)?;
    }
    Ok(text)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let awaited = admin.readiness.awaited();
    if awaited.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("awaiting {}\n", awaited.join(", "))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match encode_metrics(&admin.registry, true) {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(e) => {
            tracing::error!(error = %e, "encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

// What changes something is for who may forward a port to this pod; every pod of the cluster reaches the address.
async fn loglevel(
    State(admin): State<Admin>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    filter: String,
) -> Response {
    // A server that does not say who asks must not open this. A dual-stack socket shows 127.0.0.1 as an IPv6 address.
    let local = peer.is_some_and(|Extension(ConnectInfo(peer))| peer.ip().to_canonical().is_loopback());
    if !local {
        let hint = "only from this pod: use kubectl port-forward\n";
        return (StatusCode::FORBIDDEN, hint).into_response();
    }
    match admin.level.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log filter changed");
            StatusCode::NO_CONTENT.into_response()
        }
        Err(e) => (StatusCode::BAD_REQUEST, format!("{e}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(addr: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_over_http() {
        let readiness = Readiness::default();
        let guard = readiness.guard("caches");
        let mut registry = Registry::default();
        let counter = prometheus_client::metrics::counter::Counter::<u64>::default();
        registry.register("pushes", "Pushes.", counter.clone());
        counter.inc();
        let admin = Admin::new(readiness, Arc::new(registry), Level::disabled());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = admin.router();
        let local = router.clone().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, local).await });

        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let unready = ask(addr, &get("/readyz")).await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("awaiting caches"), "{unready}");
        guard.ready();
        assert!(ask(addr, &get("/readyz")).await.starts_with("HTTP/1.1 200"));
        assert!(ask(addr, &get("/livez")).await.starts_with("HTTP/1.1 200"));
        assert!(ask(addr, &get("/metrics")).await.contains("pushes_total 1"));
        let put =
            "PUT /loglevel HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 8\r\n\r\na=b=c,[[";
        assert!(ask(addr, put).await.starts_with("HTTP/1.1 400"));
        for (peer, status) in [
            (Some("10.0.0.7:4711"), "403"),
            (Some("[fd00::7]:4711"), "403"),
            (None, "403"),
            (Some("[::ffff:127.0.0.1]:4711"), "400"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let router = match peer {
                Some(peer) => {
                    router.clone().layer(Extension(ConnectInfo(peer.parse::<SocketAddr>().unwrap())))
                }
                None => router.clone(),
            };
            tokio::spawn(async move { axum::serve(listener, router).await });
            let answer = ask(addr, put).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{peer:?}: {answer}");
            assert!(ask(addr, &get("/livez")).await.starts_with("HTTP/1.1 200"), "{peer:?}");
        }
    }
}
