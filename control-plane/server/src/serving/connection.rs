//! Accepted connections. Handshakes run apart from each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use meshwright_pki::{SpiffeId, peer_identity};
use meshwright_runtime::CancellationToken;
use rand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections end after about this long, each at a time of its own, so that streams spread over replicas again.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// What an ADS stream has to end by itself before its connection is cut.
const GRACE: Duration = Duration::from_secs(5);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// From the verified client certificate, if one was shown.
    pub identity: Option<SpiffeId>,
    /// Address of the client.
    pub address: SocketAddr,
    /// When streams on this connection are asked to come back on another.
    pub expires: Instant,
}

impl Peer {
    /// Who sent the request.
    ///
    /// # Errors
    /// When it came over a connection that is not one of [`accept`].
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        request.extensions().get().ok_or_else(|| Status::internal("connection without a peer"))
    }

    /// When a stream on this connection has to end: with the process or with the connection's age, whichever is first.
    pub fn end(&self, drain: &CancellationToken) -> CancellationToken {
        let end = drain.child_token();
        let (token, expires) = (end.clone(), self.expires);
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            tokio::time::sleep_until(expires).await;
            token.cancel();
        }));
        end
    }
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    end: Pin<Box<Sleep>>,
}

/// Accepts until `drain` is cancelled.
pub fn accept(
    listener: TcpListener,
    config: Arc<rustls::ServerConfig>,
    drain: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        loop {
            let accepted = tokio::select! {
                () = drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    tokio::spawn(handshake(acceptor.clone(), stream, address, sender.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: spinning would not help.
                    tracing::warn!(%error, "could not accept connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    // Small messages, each of which somebody waits for.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "handshake timed out");
            return;
        }
    };
    // The verifier has checked the chain and that there is exactly one identity in the leaf.
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = leaf.and_then(|leaf| peer_identity(leaf).ok());
    let expires = Instant::now() + MAX_AGE.mul_f64(rand::rng().random_range(0.8..1.2));
    let end = Box::pin(tokio::time::sleep_until(expires + GRACE));
    let connection = Connection { stream, peer: Peer { identity, address, expires }, end };
    // Fails only when the server is gone.
    let _ = sender.send(Ok(connection)).await;
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "connection reached its maximum age",
            )));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
