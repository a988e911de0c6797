//! The workload's certificate: the key is made here and stays in memory, the certificate comes from the control
//! plane, and a valid one is kept however long the next takes.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use envoy_types::util::pack_any;
use futures::FutureExt;
use jiff::Timestamp;
use meshwright_pki::{
    CertificateDer, Identity, PrivateKey, SpiffeId, certs_from_pem, certs_to_pem, new_csr, peer_identity,
    renew_at,
    tls::{DynamicIdentity, DynamicRoots},
    validity,
};
use meshwright_proto::certificates::{
    SignCertificateRequest, SignCertificateResponse, certificate_service_client::CertificateServiceClient,
};
use meshwright_runtime::CancellationToken;
use meshwright_xds::Resource;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use rand::Rng;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{args::Workload, backoff::Backoff, connect::connect, relay::Relay};

/// A signer that does not answer is tried again, not waited for.
const SIGN_DEADLINE: Duration = Duration::from_secs(15);

/// At least this long between two certificates: near the issuer's end each is due again as soon as it is there, and
/// a stream that keeps failing asks each time.
const LEAST_WAIT: Duration = Duration::from_secs(30);

/// How often the timer and the wall clock are compared.
const COMPARE: Duration = Duration::from_secs(60);

/// So often in a row may a token be refused before there was any certificate; with the delays in between about half a minute.
const MOST_REFUSALS: u32 = 8;

/// What the agent shows and trusts on its own connections.
#[derive(Clone)]
pub struct Credentials {
    /// Our certificate.
    pub identity: DynamicIdentity,
    /// The trust anchors.
    pub roots: DynamicRoots,
    /// The anchors of the last certificate; what is trusted may be more.
    anchors: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    /// Who the certificate must name.
    id: SpiffeId,
    /// Under which name Envoy gets it too, if it does.
    secret: Option<&'static str>,
    doubted: Arc<Notify>,
    least_wait: Duration,
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
pub(crate) struct Signed {
    /// The certificate with its key.
    pub identity: Identity,
    /// What its issuer is to be verified with.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Signed {
    /// The signer's answer, if it is a certificate of this key for this identity and ends at the anchors that came along, as every peer will
    /// want it to.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn verified(
        answer: SignCertificateResponse,
        key: PrivateKey,
        expected: &SpiffeId,
    ) -> anyhow::Result<Self> {
        let chain: Vec<_> = answer.chain_der.into_iter().map(CertificateDer::from).collect();
        let roots: Vec<_> = answer.roots_der.into_iter().map(CertificateDer::from).collect();
        let id = DynamicRoots::new(&roots)?
            .verify_chain(&chain, Timestamp::now())
            .context("verify the signer's certificate")?;
        ensure!(id == *expected, "the signer gave us the identity {id}, not {expected}");
        Ok(Self { identity: Identity { chain, key }, roots })
    }
}

impl Credentials {
    /// Those of a gateway: its service account's, and its Envoy's too. No certificate yet; the anchors are those of the trust file.
    ///
    /// # Errors
    /// When the trust file cannot be read.
    pub fn new(workload: &Workload, metrics: Metrics) -> anyhow::Result<Self> {
        Ok(Self { secret: Some("workload"), ..Self::own(workload, workload.id()?, metrics)? })
    }

    /// Those of an agent that has an identity of its own, which its Envoy does not get.
    ///
    /// # Errors
    /// When the trust file cannot be read.
    pub fn own(workload: &Workload, id: SpiffeId, metrics: Metrics) -> anyhow::Result<Self> {
        Ok(Self {
            id,
            secret: None,
            identity: DynamicIdentity::default(),
            roots: DynamicRoots::new(&trust_file(workload)?)?,
            anchors: Arc::default(),
            doubted: Arc::default(),
            least_wait: LEAST_WAIT,
            valid_until: watch::Sender::new(None),
            metrics,
        })
    }

    /// Waits for the first certificate.
    pub async fn wait(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.valid_until.subscribe().wait_for(Option::is_some).await;
    }

    /// TLS failed with these: the trust anchors may have changed. Those of the trust file count at once, and the
    /// identity task asks for new ones without waiting for the certificate's half-time.
    pub fn doubt(&self, workload: &Workload) {
        self.widen_trust(workload);
        self.doubted.notify_one();
    }

    // Half-way through its life, give or take, a new key and certificate take this one's place.
    fn install(&self, signed: &Signed, relay: &Relay) -> anyhow::Result<Timestamp> {
        let leaf = signed.identity.chain.first().context("find the leaf in the signer's answer")?;
        let life = validity(leaf)?;
        // Envoy gets the anchors before the certificate, as its peers must.
        relay.set_local_secret(roots_secret(&signed.roots));
        if let Some(name) = self.secret {
            relay.set_local_secret(certificate_secret(name, &signed.identity)?);
        }
        self.identity.set(&signed.identity)?;
        {
            // Locked for both, or a doubt in between would bring the old ones back.
            let mut anchors = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
            self.roots.set(&signed.roots)?;
            anchors.clone_from(&signed.roots);
        }
        // Doubts about what was just replaced need no answer; new ones will be heard.
        let _ = self.doubted.notified().now_or_never();
        self.metrics.expiry.set(life.until.as_second());
        self.valid_until.send_replace(Some(life.until));
        tracing::info!(until = %life.until, "got a certificate");
        Ok(renew_at(life.from, life.until, &mut rand::rng()))
    }

    // The trust file may be ahead of us when the anchors were changed while we could not reach anybody.
    fn widen_trust(&self, workload: &Workload) {
        let widened = trust_file(workload).and_then(|mut all| {
            let known = self.anchors.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(known.iter().filter(|known| !all.contains(known)).cloned().collect::<Vec<_>>());
            Ok(self.roots.set(&all)?)
        });
        if let Err(e) = widened {
            tracing::warn!(error = %format!("{e:#}"), "read trust anchors again");
        }
    }

    // Ends when somebody doubts, but not before `least` is over.
    async fn doubted(&self, least: Duration) {
        let end = Instant::now() + least;
        self.doubted.notified().await;
        tokio::time::sleep_until(end).await;
    }

    #[cfg(test)]
    pub(crate) fn with_least_wait(self, least_wait: Duration) -> Self {
        Self { least_wait, ..self }
    }
}

/// Counts refusals of our token. A pod whose object was deleted in the second it started has a token that will never be taken, and as PID 1
/// may not have heard its SIGTERM: it would stay for its whole grace period. With a certificate there is traffic to carry, with or without
/// another one.
#[derive(Default)]
struct Refusals(u32);

impl Refusals {
    /// Whether to give up after this failure.
    fn is_hopeless(&mut self, certified: bool, error: &anyhow::Error) -> bool {
        let refused = error.downcast_ref().map(tonic::Status::code) == Some(tonic::Code::Unauthenticated);
        self.0 = if refused && !certified { self.0 + 1 } else { 0 };
        self.0 >= MOST_REFUSALS
    }
}

/// Gets certificates until `stop`, or until there is no hope to ever get the first.
pub async fn run(
    workload: &Workload,
    credentials: &Credentials,
    relay: &Relay,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
    let mut refusals = Refusals::default();
    loop {
        let signed = tokio::select! {
            signed = sign(workload, credentials) => signed,
            () = stop.cancelled() => return Ok(()),
        };
        // Never in step with the agents that got theirs in the same moment.
        let least = credentials.least_wait.mul_f64(rand::rng().random_range(1.0..=1.5));
        let delay = match signed.and_then(|signed| credentials.install(&signed, relay)) {
            Ok(renew) => {
                backoff.reset();
                until(renew, Timestamp::now(), least)
            }
            Err(e) => {
                let delay = backoff.next_delay();
                credentials.metrics.failures.inc();
                if refusals.is_hopeless(credentials.valid_until.borrow().is_some(), &e) {
                    return Err(e.context(format!(
                        "get a first certificate for pod {}/{}: its token was refused {MOST_REFUSALS} times in a row, as that of a deleted \
                         pod is; if the pod is still there, it starts again",
                        workload.pod_namespace, workload.pod_name
                    )));
                }
                tracing::warn!(error = %format!("{e:#}"), ?delay, "get a certificate");
                credentials.widen_trust(workload);
                delay
            }
        };
        tokio::select! {
            () = sleep(delay, Timestamp::now) => {}
            () = credentials.doubted(least) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn until(renew: Timestamp, now: Timestamp, least: Duration) -> Duration {
    Duration::try_from(renew.duration_since(now)).unwrap_or(Duration::ZERO).max(least)
}

/// Until that much time has passed for the timer or for the wall clock: timers stand still while the machine is paused, and certificates grow
/// older.
async fn sleep(delay: Duration, wall: impl Fn() -> Timestamp) {
    let end = Instant::now() + delay;
    let late = wall().checked_add(delay).unwrap_or(Timestamp::MAX);
    while Instant::now() < end && wall() < late {
        tokio::time::sleep_until(end.min(Instant::now() + COMPARE)).await;
    }
}

async fn sign(workload: &Workload, credentials: &Credentials) -> anyhow::Result<Signed> {
    tokio::time::timeout(SIGN_DEADLINE, exchange(workload, credentials))
        .await
        .context("wait for the signer")?
}

async fn exchange(workload: &Workload, credentials: &Credentials) -> anyhow::Result<Signed> {
    let token = tokio::fs::read_to_string(&workload.token_file)
        .await
        .with_context(|| format!("read {}", workload.token_file.display()))?;
    let (key, csr_der) = new_csr()?;
    let mut request = tonic::Request::new(SignCertificateRequest { csr_der });
    let bearer = format!("Bearer {}", token.trim()).parse().context("read the token as a header")?;
    request.metadata_mut().insert("authorization", bearer);
    // The token says who we are. A certificate that has expired, or whose issuer is trusted no more, would be verified
    // all the same and keep us from ever getting another.
    let nobody = DynamicIdentity::default();
    let channel =
        connect(&workload.control_plane, &nobody, &credentials.roots, &workload.control_plane_id).await?;
    let answer = CertificateServiceClient::new(channel)
        .sign_certificate(request)
        .await
        .context("ask for a certificate")?
        .into_inner();
    Signed::verified(answer, key, &credentials.id)
}

fn trust_file(workload: &Workload) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let what = || format!("read trust anchors {}", workload.trust_file.display());
    let pem = std::fs::read_to_string(&workload.trust_file).with_context(what)?;
    certs_from_pem(&pem).with_context(what)
}

/// A certificate as Envoy gets it.
///
/// # Errors
/// When the identity has no certificate, or its key cannot be written down.
pub(crate) fn certificate_secret(name: &str, identity: &Identity) -> anyhow::Result<Resource> {
    let leaf = identity.chain.first().context("find the leaf")?;
    tracing::debug!(id = %peer_identity(leaf)?, "hand the certificate to envoy");
    let key = identity.key.to_pem()?;
    let kind = secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(certs_to_pem(&identity.chain).into_bytes()),
        private_key: inline(key.as_bytes().to_vec()),
        ..TlsCertificate::default()
    });
    Ok(Resource::new(name, pack_any(Secret { name: name.to_owned(), r#type: Some(kind) })))
}

/// Trust anchors as Envoy gets them.
pub(crate) fn roots_secret(roots: &[CertificateDer<'_>]) -> Resource {
    let kind = secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: inline(certs_to_pem(roots).into_bytes()),
        ..CertificateValidationContext::default()
    });
    Resource::new("roots", pack_any(Secret { name: "roots".to_owned(), r#type: Some(kind) }))
}

fn inline(bytes: Vec<u8>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes)), ..DataSource::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_night_that_the_machine_slept_through_counts() {
        let (start, wall, hour) = (Instant::now(), Timestamp::now(), Duration::from_secs(3600));
        sleep(hour, || wall).await;
        assert_eq!(start.elapsed(), hour, "by the timer");
        let start = Instant::now();
        // Paused in the third minute.
        let pauses =
            || wall + if start.elapsed() < Duration::from_secs(150) { Duration::ZERO } else { 8 * hour };
        sleep(hour, pauses).await;
        assert_eq!(start.elapsed(), 3 * COMPARE, "by the wall clock");
    }

    #[test]
    fn a_certificate_is_kept_for_a_while_even_if_it_is_due_at_once() {
        let now = Timestamp::now();
        let due =
            |seconds: i64| until(Timestamp::from_second(now.as_second() + seconds).unwrap(), now, LEAST_WAIT);
        assert_eq!((due(-3600), due(1)), (LEAST_WAIT, LEAST_WAIT));
        assert!(due(3600) > Duration::from_secs(3590));
    }

    #[test]
    fn a_token_that_stays_refused_before_any_certificate_ends_the_process_and_nothing_else_does() {
        let error =
            |code| anyhow::Error::new(tonic::Status::new(code, "no")).context("ask for a certificate");
        let (refused, away) = (error(tonic::Code::Unauthenticated), error(tonic::Code::Unavailable));
        let ends = |certified: bool, failures: &[&anyhow::Error]| {
            let mut refusals = Refusals::default();
            failures.iter().position(|failure| refusals.is_hopeless(certified, failure))
        };
        assert_eq!(ends(false, &[&refused; 100]), Some(7));
        assert_eq!(ends(true, &[&refused; 100]), None, "it has traffic to carry");
        assert_eq!(ends(false, &[&away; 100]), None);
        assert_eq!(ends(false, &[&anyhow::anyhow!("read the token"); 100]), None);
        let mut broken = vec![&refused; 7];
        broken.extend([&away, &refused, &refused]);
        assert_eq!(ends(false, &broken), None, "not in a row");
    }
}
