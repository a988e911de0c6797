//! One HTTP request to one address, or to one socket of this machine, with the Host header that is wanted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

const TIMEOUT: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// GET on a connection of its own.
///
/// # Errors
/// When no answer comes within five seconds.
pub async fn get(to: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    get_with_headers(to, host, path, &[]).await
}

/// GET with request headers.
///
/// # Errors
/// When no answer comes within five seconds.
pub async fn get_with_headers(
    to: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let exchange = async { exchange(TcpStream::connect(to).await?, host, path, headers).await };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no answer from http://{host}{path} at {to} within 5 s"))?
        .with_context(|| format!("GET http://{host}{path} at {to}"))
}

/// GET on a unix socket, for an answer that may be long.
///
/// # Errors
/// When no answer comes within five seconds.
pub async fn get_on_socket(socket: &Path, path: &str) -> Result<Answer> {
    let exchange = async { exchange(UnixStream::connect(socket).await?, "localhost", path, &[]).await };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no answer from {path} at {} within 5 s", socket.display()))?
        .with_context(|| format!("GET {path} at {}", socket.display()))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = hyper::Request::get(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
