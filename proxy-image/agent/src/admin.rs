//! Envoy's admin interface on its unix socket.

use std::{path::Path, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

const DEADLINE: Duration = Duration::from_secs(10);

/// One request; `path` with its query.
pub async fn request(socket: &Path, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let what = || format!("ask envoy's admin interface for {path}");
    tokio::time::timeout(DEADLINE, exchange(socket, method, path))
        .await
        .with_context(what)?
        .with_context(what)
}

async fn exchange(socket: &Path, method: Method, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = tokio::net::UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "envoy")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// Envoy took its first configuration and its listeners are up.
pub async fn is_live(socket: &Path) -> bool {
    matches!(request(socket, Method::GET, "/ready").await, Ok((StatusCode::OK, _)))
}

/// A command such as `/drain_listeners`.
pub async fn post(socket: &Path, path: &str) -> anyhow::Result<()> {
    let (status, body) = request(socket, Method::POST, path).await?;
    anyhow::ensure!(
        status.is_success(),
        "envoy answered {path} with {status}: {}",
        String::from_utf8_lossy(&body)
    );
    Ok(())
}

/// What clients do at this moment, on all listeners but the admin's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Open connections.
    pub connections: u64,
    /// Requests without a complete response; a WebSocket is one until it closes.
    pub active_requests: u64,
    /// Requests since Envoy started.
    pub requests: u64,
}

/// Asks Envoy.
pub async fn traffic(socket: &Path) -> anyhow::Result<Traffic> {
    const PATH: &str = "/stats?filter=downstream_(cx_active%7Crq_active%7Crq_total)%24";
    let (_, body) = request(socket, Method::GET, PATH).await?;
    Ok(traffic_in(&String::from_utf8_lossy(&body)))
}

fn traffic_in(stats: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for line in stats.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        traffic.add(name, value);
    }
    traffic
}

impl Traffic {
    /// Adds one of Envoy's statistics, if it is one of these.
    pub fn add(&mut self, name: &str, value: u64) {
        let of_ours = |kind: &str, what: &str| {
            name.strip_prefix(kind).is_some_and(|rest| {
                !rest.starts_with("admin.") && !rest.contains(".worker_") && rest.ends_with(what)
            })
        };
        if of_ours("listener.", ".downstream_cx_active") {
            self.connections += value;
        } else if of_ours("http.", ".downstream_rq_active") {
            self.active_requests += value;
        } else if of_ours("http.", ".downstream_rq_total") {
            self.requests += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Traffic, traffic_in};

    #[test]
    fn counts_each_connection_and_request_once_and_not_our_own() {
        let stats = "listener.0.0.0.0_80.downstream_cx_active: 3\n\
                     listener.0.0.0.0_80.worker_0.downstream_cx_active: 3\n\
                     listener.[__]_443.downstream_cx_active: 2\n\
                     listener.admin.downstream_cx_active: 1\n\
                     http.edge.downstream_cx_active: 5\n\
                     http.edge.downstream_rq_active: 4\n\
                     http.edge.downstream_rq_total: 90\n\
                     http.admin.downstream_rq_active: 1\n\
                     http.admin.downstream_rq_total: 7\n";
        assert_eq!(traffic_in(stats), Traffic { connections: 5, active_requests: 4, requests: 90 });
    }
}
