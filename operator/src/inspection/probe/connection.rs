//! Connections to one pod. Each serves a few requests only, so that new ones are tried all the time.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::target::Ask;

/// Requests on one connection.
const REQUESTS: usize = 10;
/// An answer is read up to here; a longer one is an answer too, and its connection is not used again.
const LARGEST: usize = 1 << 20;

/// No answer. Why does not matter to those who count.
type Error = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Connections {
    address: IpAddr,
    /// By port.
    idle: Mutex<HashMap<u16, Connection>>,
}

struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    used: usize,
}

impl Connections {
    pub fn new(address: IpAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// Whether there is an answer, whatever it says.
    pub async fn answers(&self, ask: &Ask) -> bool {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&ask.port());
        // The other side may end an idle connection at any time: that is no failure before a new one fails too.
        if let Some(connection) = idle
            && self.send(connection, ask).await.is_ok()
        {
            return true;
        }
        let sent = async { self.send(self.connect(ask.port()).await?, ask).await };
        let sent: Result<(), Error> = sent.await;
        sent.inspect_err(|error| tracing::debug!(error, pod = %self.address, "probe without answer")).is_ok()
    }

    async fn connect(&self, port: u16) -> Result<Connection, Error> {
        let stream = TcpStream::connect(SocketAddr::new(self.address, port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped or the other side ends it; its error is the sender's, too.
        tokio::spawn(connection);
        Ok(Connection { sender, used: 0 })
    }

    async fn send(&self, mut connection: Connection, ask: &Ask) -> Result<(), Error> {
        connection.sender.ready().await?;
        let mut response = connection.sender.send_request(ask.request()?).await?;
        let mut read = 0;
        while let Some(frame) = response.frame().await {
            read += frame?.data_ref().map_or(0, Bytes::len);
            if read > LARGEST {
                return Ok(());
            }
        }
        connection.used += 1;
        if connection.used < REQUESTS {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(ask.port(), connection);
        }
        Ok(())
    }
}
