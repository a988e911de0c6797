//! The workload's certificate: the key is made here and stays in memory, the certificate comes from the control
//! plane, and a valid one is kept however long the next takes.

use std::time::Duration;

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use envoy_types::util::pack_any;
use jiff::Timestamp;
use meshwright_pki::{
    CertificateDer, Identity, SpiffeId, certs_from_pem, certs_to_pem, new_csr, peer_identity, renew_at,
    tls::{DynamicIdentity, DynamicRoots},
    validity,
};
use meshwright_proto::certificates::{
    SignCertificateRequest, certificate_service_client::CertificateServiceClient,
};
use meshwright_runtime::CancellationToken;
use meshwright_xds::Resource;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::watch;

use crate::{Args, backoff::Backoff, connect::connect, relay::Relay};

/// A signer that does not answer is tried again, not waited for.
const SIGN_DEADLINE: Duration = Duration::from_secs(15);

/// What the agent shows and trusts on its own connections.
#[derive(Clone)]
pub struct Credentials {
    /// Our certificate.
    pub identity: DynamicIdentity,
    /// The trust anchors.
    pub roots: DynamicRoots,
    valid_until: watch::Sender<Option<Timestamp>>,
    metrics: Metrics,
}

/// What Prometheus learns about the certificate.
#[derive(Clone, Default)]
pub struct Metrics {
    /// Unix time of its end.
    pub expiry: Gauge,
    /// Failed attempts to get one.
    pub failures: Counter,
}

/// A signed certificate and the anchors that came with it.
struct Signed {
    identity: Identity,
    roots: Vec<CertificateDer<'static>>,
}

impl Credentials {
    /// No certificate yet; the anchors are those of the trust file.
    pub fn new(args: &Args, metrics: Metrics) -> anyhow::Result<Self> {
        Ok(Self {
            identity: DynamicIdentity::default(),
            roots: DynamicRoots::new(&trust_file(args)?)?,
            valid_until: watch::Sender::new(None),
            metrics,
        })
    }

    /// Waits for the first certificate.
    pub async fn wait(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.valid_until.subscribe().wait_for(Option::is_some).await;
    }

    // Half-way through its life, give or take, a new key and certificate take this one's place.
    fn install(&self, signed: &Signed, relay: &Relay) -> anyhow::Result<Timestamp> {
        let leaf = signed.identity.chain.first().context("find the leaf in the signer's answer")?;
        let life = validity(leaf)?;
        // Envoy gets the anchors before the certificate, as its peers must.
        relay.set_local_secret(roots_secret(&signed.roots));
        relay.set_local_secret(workload_secret(&signed.identity)?);
        self.identity.set(&signed.identity)?;
        self.roots.set(&signed.roots)?;
        self.metrics.expiry.set(life.until.as_second());
        self.valid_until.send_replace(Some(life.until));
        tracing::info!(until = %life.until, "got a certificate");
        Ok(renew_at(life.from, life.until, &mut rand::rng()))
    }
}

/// Gets certificates until `stop`.
pub async fn run(args: &Args, credentials: &Credentials, relay: &Relay, stop: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
    let mut anchors = Vec::new();
    loop {
        let signed = tokio::select! {
            signed = sign(args, credentials) => signed,
            () = stop.cancelled() => return,
        };
        let installed = signed.and_then(|signed| {
            let renew = credentials.install(&signed, relay)?;
            anchors = signed.roots;
            Ok(renew)
        });
        let delay = match installed {
            Ok(renew) => {
                backoff.reset();
                let wait = renew.duration_since(Timestamp::now());
                wait.try_into().unwrap_or(Duration::ZERO).max(Duration::from_secs(1))
            }
            Err(e) => {
                let delay = backoff.next_delay();
                credentials.metrics.failures.inc();
                tracing::warn!(error = %format!("{e:#}"), ?delay, "get a certificate");
                widen_trust(args, credentials, &anchors);
                delay
            }
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn sign(args: &Args, credentials: &Credentials) -> anyhow::Result<Signed> {
    tokio::time::timeout(SIGN_DEADLINE, exchange(args, credentials)).await.context("wait for the signer")?
}

async fn exchange(args: &Args, credentials: &Credentials) -> anyhow::Result<Signed> {
    let token = tokio::fs::read_to_string(&args.token_file)
        .await
        .with_context(|| format!("read {}", args.token_file.display()))?;
    let (key, csr_der) = new_csr()?;
    let mut request = tonic::Request::new(SignCertificateRequest { csr_der });
    let bearer = format!("Bearer {}", token.trim()).parse().context("read the token as a header")?;
    request.metadata_mut().insert("authorization", bearer);
    let channel =
        connect(&args.control_plane, &credentials.identity, &credentials.roots, &args.control_plane_id)
            .await?;
    let answer = CertificateServiceClient::new(channel)
        .sign_certificate(request)
        .await
        .context("ask for a certificate")?
        .into_inner();
    let chain: Vec<_> = answer.chain_der.into_iter().map(CertificateDer::from).collect();
    let roots: Vec<_> = answer.roots_der.into_iter().map(CertificateDer::from).collect();
    // Also checks that it ends at these anchors, as every peer will.
    let id = DynamicRoots::new(&roots)?
        .verify_chain(&chain, Timestamp::now())
        .context("verify the signer's certificate")?;
    let expected = SpiffeId::workload(&args.trust_domain, &args.pod_namespace, &args.service_account)?;
    ensure!(id == expected, "the signer gave us the identity {id}, not {expected}");
    Ok(Signed { identity: Identity { chain, key }, roots })
}

// The trust file may be ahead of us when the anchors were changed while we could not reach anybody.
fn widen_trust(args: &Args, credentials: &Credentials, anchors: &[CertificateDer<'static>]) {
    let widened = trust_file(args).and_then(|mut all| {
        all.extend(anchors.iter().filter(|known| !all.contains(known)).cloned().collect::<Vec<_>>());
        Ok(credentials.roots.set(&all)?)
    });
    if let Err(e) = widened {
        tracing::warn!(error = %format!("{e:#}"), "read trust anchors again");
    }
}

fn trust_file(args: &Args) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("read trust anchors {}", args.trust_file.display());
    let pem = std::fs::read_to_string(&args.trust_file).with_context(what)?;
    certs_from_pem(&pem).with_context(what)
}

fn workload_secret(identity: &Identity) -> anyhow::Result<Resource> {
    let leaf = identity.chain.first().context("find the leaf")?;
    tracing::debug!(id = %peer_identity(leaf)?, "hand the certificate to envoy");
    let key = identity.key.to_pem()?;
    let kind = secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(certs_to_pem(&identity.chain).into_bytes()),
        private_key: inline(key.as_bytes().to_vec()),
        ..TlsCertificate::default()
    });
    Ok(Resource::new("workload", pack_any(Secret { name: "workload".to_owned(), r#type: Some(kind) })))
}

fn roots_secret(roots: &[CertificateDer<'_>]) -> Resource {
    let kind = secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: inline(certs_to_pem(roots).into_bytes()),
        ..CertificateValidationContext::default()
    });
    Resource::new("roots", pack_any(Secret { name: "roots".to_owned(), r#type: Some(kind) }))
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() })
}
