//! The issuing CA in its mounted Secret, read again when the files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use meshwright_pki::{Authority, CertificateDer, PrivateKey, certs_from_pem};
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;

/// The kubelet takes up to a minute to update a mounted Secret; looking more often than this gains nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What we sign with and what peers' chains must end at.
#[derive(Debug)]
pub struct IssuingCa {
    /// Certificate and key.
    pub authority: Authority,
    /// Trust anchors.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Contents of the files, to see whether they changed.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: String,
    key: String,
    roots: String,
}

/// The files.
pub struct IssuingCaFiles {
    dir: PathBuf,
    known: Contents,
}

impl IssuingCaFiles {
    /// Reads the CA for the first time.
    ///
    /// # Errors
    /// When a file is missing or not what it should be.
    pub fn open(dir: &Path) -> anyhow::Result<(Self, IssuingCa)> {
        let known = Contents::read(dir)?;
        let ca = known.parse().with_context(|| format!("read issuing CA in {}", dir.display()))?;
        Ok((Self { dir: dir.to_owned(), known }, ca))
    }

    fn look(&mut self) -> anyhow::Result<Option<IssuingCa>> {
        let found = Contents::read(&self.dir)?;
        if found == self.known {
            return Ok(None);
        }
        // A pair that does not match (yet) is not remembered, so it is looked at again.
        let ca = found.parse()?;
        self.known = found;
        Ok(Some(ca))
    }
}

impl Contents {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Self { certificate: file("tls.crt")?, key: file("tls.key")?, roots: file("ca.crt")? })
    }

    fn parse(&self) -> anyhow::Result<IssuingCa> {
        let mut chain = certs_from_pem(&self.certificate).context("read tls.crt")?;
        let key = PrivateKey::from_pem(&self.key).context("read tls.key")?;
        let roots = certs_from_pem(&self.roots).context("read ca.crt")?;
        let authority = Authority::new(chain.swap_remove(0), key).context("match tls.crt and tls.key")?;
        Ok(IssuingCa { authority, roots })
    }
}

/// Publishes the CA anew whenever its files change; what cannot be read leaves the last good one in place.
pub async fn watch_files(
    mut files: IssuingCaFiles,
    current: watch::Sender<Arc<IssuingCa>>,
    drain: CancellationToken,
) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        match files.look() {
            Ok(Some(ca)) => {
                tracing::info!(dir = %files.dir.display(), "issuing CA changed");
                current.send_replace(Arc::new(ca));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "could not read issuing CA again, keeping the last one"
            ),
        }
    }
}
