//! gRPC to the control plane: TLS 1.3 with our own verification of the peer's identity.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use meshwright_pki::{
    SpiffeId,
    tls::{DynamicIdentity, DynamicRoots, client_config},
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Opens one connection, which is never replaced: whoever talks to another replica should know it. It must prove to be `server`; ours shows
/// the certificate in `identity`, if there is one.
pub async fn connect(
    address: &str,
    identity: &DynamicIdentity,
    roots: &DynamicRoots,
    server: &SpiffeId,
) -> anyhow::Result<Channel> {
    let config = client_config(identity.clone(), roots.clone(), server.clone())?;
    let tls = TlsConnector::from(Arc::new(config));
    let target = address.to_owned();
    let used = Arc::new(AtomicBool::new(false));
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, target) = (tls.clone(), target.clone());
        let used = used.swap(true, Ordering::Relaxed);
        async move {
            if used {
                return Err(std::io::Error::other("the connection has ended"));
            }
            let stream = TcpStream::connect(&target).await?;
            stream.set_nodelay(true)?;
            // Only the SPIFFE id counts; this name is neither sent nor checked.
            let name = ServerName::try_from("control-plane").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("connect to control plane {address}"))
}

/// Whether TLS is what failed, here or on the other side: a matter of certificates, not of the network.
pub fn is_tls(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        // The source of an io::Error is the source of what it wraps, so a chain never shows the wrapped error itself.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.is_some_and(|wrapped| wrapped.is::<rustls::Error>()) || cause.is::<rustls::Error>()
    })
}
