//! The issuing CA that the operator mounted, and the serving certificate that this replica signs for itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use meshwright_pki::tls::{DynamicIdentity, DynamicRoots};
use meshwright_pki::{
    Authority, CertificateDer, Identity, SpiffeId, Validity, certs_from_pem, fingerprint, new_csr, renew_at, sign_leaf,
    validity,
};
use meshwright_runtime::CancellationToken;

/// The kubelet swaps a Secret's files about a minute after a change; looking more often buys nothing.
const LOOK: Duration = Duration::from_secs(10);

/// Reading or using the issuing CA failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the mounted Secret could not be read.
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("use the issuing CA in {path}")]
    Use {
        path: PathBuf,
        #[source]
        source: meshwright_pki::Error,
    },
}

/// What signs leaves at this moment.
pub struct Signing {
    pub issuing: Authority,
    pub roots: Vec<CertificateDer<'static>>,
    fingerprint: String,
}

/// Who this replica is.
#[derive(Debug, Clone)]
pub struct Serving {
    pub id: SpiffeId,
    pub dns_names: Vec<String>,
    pub ttl: Duration,
}

/// Signs leaves, its own included, and follows the files when they change.
pub struct SigningAuthority {
    folder: PathBuf,
    serving: Serving,
    current: ArcSwap<Signing>,
    /// Presented on port 15012.
    pub identity: DynamicIdentity,
    /// Accepted from clients on port 15012.
    pub roots: DynamicRoots,
}

impl SigningAuthority {
    /// Reads `tls.crt`, `tls.key` and `ca.crt` in `folder` and signs the first serving certificate.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn load(folder: &Path, serving: Serving, now: Timestamp) -> Result<(Arc<Self>, Validity), Error> {
        let signing = read(folder)?;
        let wrong = |source| Error::Use { path: folder.to_owned(), source };
        let roots = DynamicRoots::new(&signing.roots).map_err(wrong)?;
        let authority = Self {
            folder: folder.to_owned(),
            serving,
            current: ArcSwap::from_pointee(signing),
            identity: DynamicIdentity::default(),
            roots,
        };
        let serving = authority.renew_serving(now)?;
        Ok((Arc::new(authority), serving))
    }

    /// The issuing CA and the roots now.
    pub fn current(&self) -> Arc<Signing> {
        self.current.load_full()
    }

    /// The chain (leaf first) for an authenticated caller's public key.
    ///
    /// # Errors
    /// When the request is refused or the issuing CA is over.
    pub fn sign(&self, csr: &[u8], id: &SpiffeId, ttl: Duration, now: Timestamp) -> Result<Vec<CertificateDer<'static>>, meshwright_pki::Error> {
        let current = self.current();
        let leaf = sign_leaf(&current.issuing, csr, id, &[], now, ttl)?;
        Ok(vec![leaf, current.issuing.cert().clone()])
    }

    fn renew_serving(&self, now: Timestamp) -> Result<Validity, Error> {
        let wrong = |source| Error::Use { path: self.folder.clone(), source };
        let current = self.current();
        let (key, csr) = new_csr().map_err(wrong)?;
        let Serving { id, dns_names, ttl } = &self.serving;
        let leaf = sign_leaf(&current.issuing, &csr, id, dns_names, now, *ttl).map_err(wrong)?;
        let life = validity(&leaf).map_err(wrong)?;
        self.identity.set(&Identity { chain: vec![leaf, current.issuing.cert().clone()], key }).map_err(wrong)?;
        Ok(life)
    }

    /// Keeps the serving certificate fresh and follows the files, until `drain`. What fails keeps the last good state.
    pub async fn follow(self: Arc<Self>, first: Validity, drain: CancellationToken) {
        let mut renewal = renew_at(first.from, first.until, &mut rand::rng());
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let changed = match read(&self.folder) {
                Ok(signing) if signing.fingerprint != self.current().fingerprint => self.take(signing),
                Ok(_) => false,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "issuing CA cannot be read, the last one stays");
                    false
                }
            };
            if !changed && Timestamp::now() < renewal {
                continue;
            }
            match self.renew_serving(Timestamp::now()) {
                Ok(life) => {
                    renewal = renew_at(life.from, life.until, &mut rand::rng());
                    tracing::info!(not_after = %life.until, "serving certificate renewed");
                }
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "serving certificate was not renewed"),
            }
        }
    }

    fn take(&self, signing: Signing) -> bool {
        if let Err(error) = self.roots.set(&signing.roots) {
            tracing::error!(%error, "new trust anchors are refused, the last ones stay");
            return false;
        }
        tracing::info!(fingerprint = signing.fingerprint, "issuing CA replaced");
        self.current.store(Arc::new(signing));
        true
    }
}

fn read(folder: &Path) -> Result<Signing, Error> {
    let text = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
    };
    let (cert, key, roots) = (text("tls.crt")?, text("tls.key")?, text("ca.crt")?);
    let wrong = |source| Error::Use { path: folder.to_owned(), source };
    let issuing = Authority::from_pem(&cert, &key).map_err(wrong)?;
    let fingerprint = format!("{}{}", fingerprint(issuing.cert()), fingerprint(roots.as_bytes()));
    Ok(Signing { issuing, roots: certs_from_pem(&roots).map_err(wrong)?, fingerprint })
}
