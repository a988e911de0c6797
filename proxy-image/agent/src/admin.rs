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

/// Connections on all listeners but the admin's.
pub async fn active_connections(socket: &Path) -> anyhow::Result<u64> {
    const PATH: &str = "/stats?filter=%5Elistener%5C..*%5C.downstream_cx_active%24";
    let (_, body) = request(socket, Method::GET, PATH).await?;
    Ok(sum(&String::from_utf8_lossy(&body)))
}

fn sum(stats: &str) -> u64 {
    let count = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let ours = !name.starts_with("listener.admin.") && !name.contains(".worker_");
        value.trim().parse::<u64>().ok().filter(|_| ours)
    };
    stats.lines().filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_each_connection_once_and_not_our_own() {
        let stats = "listener.0.0.0.0_80.downstream_cx_active: 3\n\
                     listener.0.0.0.0_80.worker_0.downstream_cx_active: 3\n\
                     listener.[__]_443.downstream_cx_active: 2\n\
                     listener.admin.downstream_cx_active: 1\n";
        assert_eq!(super::sum(stats), 5);
    }
}
