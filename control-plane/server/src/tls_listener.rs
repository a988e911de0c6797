//! Accepts TLS connections for the gRPC server, so that certificates can change without a restart.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use meshwright_runtime::CancellationToken;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// A client that cannot finish a handshake in this time is not one of ours.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once: 2,000 agents that come back together wait for each other, not for memory.
const AT_ONCE: usize = 256;

/// Connections whose handshake is done; ends with `drain`.
pub fn incoming(listener: TcpListener, config: Arc<ServerConfig>, drain: CancellationToken) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(AT_ONCE);
    tokio::spawn(accept(listener, TlsAcceptor::from(config), sender, drain));
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>, drain: CancellationToken) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            () = drain.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: trying again at once would only burn the processor.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %peer, "set TCP_NODELAY");
            }
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(tls)) => drop(sender.send(Ok(tls)).await),
                Ok(Err(error)) => tracing::info!(%error, %peer, "TLS handshake failed"),
                Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
            }
        });
    }
}
