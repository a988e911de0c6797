//! One kept connection that asks again and again, as fast as answers come.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, and what came over it that nobody should see.
#[derive(Debug)]
pub struct Probe {
    to: SocketAddr,
    connection: Option<(SendRequest<Empty<Bytes>>, JoinHandle<()>)>,
    /// Answers other than 404, which says that there is no route yet, and 200.
    pub unexpected: u64,
    /// Connections that broke or did not answer in time.
    pub broken: u64,
}

impl Probe {
    /// Nothing is connected before the first question.
    pub fn new(to: SocketAddr) -> Self {
        Self { to, connection: None, unexpected: 0, broken: 0 }
    }

    /// Whether the answer is 200. A broken connection is counted, and the next question makes a new one.
    pub async fn is_routed(&mut self, host: &str, path: &str) -> bool {
        match tokio::time::timeout(TIMEOUT, self.status(host, path)).await {
            Ok(Ok(200)) => return true,
            Ok(Ok(404)) => {}
            Ok(Ok(_)) => self.unexpected += 1,
            Ok(Err(_)) | Err(_) => {
                self.broken += 1;
                self.disconnect();
            }
        }
        false
    }

    async fn status(&mut self, host: &str, path: &str) -> Result<u16> {
        if self.connection.as_ref().is_none_or(|(sender, _)| sender.is_closed()) {
            self.disconnect();
            let stream = TcpStream::connect(self.to).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            // Its end shows in the sender.
            let task = tokio::spawn(async move { drop(connection.await) });
            self.connection = Some((sender, task));
        }
        let (sender, _) = self.connection.as_mut().context("a connection")?;
        sender.ready().await?;
        let request = hyper::Request::get(path).header("host", host).body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        // The connection is free for the next request when the body has been read.
        response.into_body().collect().await?;
        Ok(status)
    }

    fn disconnect(&mut self) {
        if let Some((_, task)) = self.connection.take() {
            task.abort();
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.disconnect();
    }
}
