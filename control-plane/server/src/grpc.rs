//! Port 15012: both services behind one TLS listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use meshwright_pki::tls::{ClientAuth, server_config};
use meshwright_proto::certificates::certificate_service_server::CertificateServiceServer;
use meshwright_runtime::CancellationToken;
use rand::Rng;
use tokio::net::TcpListener;
use tonic::transport::Server;

use crate::ads::Ads;
use crate::authority::SigningAuthority;
use crate::certificates::Certificates;
use crate::tls_listener;

/// Long streams would gather on the oldest replica: each connection is asked to move after this time, spread by a tenth.
const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// A proxy's half-open connection must not look alive for longer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves until `drain`.
pub async fn serve(address: SocketAddr, authority: Arc<SigningAuthority>, ads: Ads, certificates: Certificates, drain: CancellationToken) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("bind the xDS port {address}"))?;
    let config = server_config(authority.identity.clone(), authority.roots.clone(), ClientAuth::Optional)?;
    let incoming = tls_listener::incoming(listener, Arc::new(config), drain.clone());
    let age = CONNECTION_AGE.mul_f64(rand::rng().random_range(0.9..=1.1));
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(age)
        .add_service(AggregatedDiscoveryServiceServer::new(ads))
        .add_service(CertificateServiceServer::new(certificates))
        .serve_with_incoming_shutdown(incoming, drain.cancelled_owned())
        .await
        .context("serve the xDS port")
}
