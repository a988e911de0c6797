//! Our own certificate: signed by our own issuing CA, renewed at half of its life and whenever that CA changes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use meshwright_pki::tls::{DynamicIdentity, DynamicRoots};
use meshwright_pki::{Identity, SpiffeId, new_csr, renew_at, sign_leaf, validity};
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;

use super::IssuingCa;
use crate::metrics::Metrics;

/// Least time between two attempts: after a failure, and near the end of the issuing CA, when every certificate is due at once.
const RETRY: Duration = Duration::from_secs(10);

/// What makes our certificates.
pub struct ServingIdentity {
    /// Who we are.
    pub id: SpiffeId,
    /// By which names we are called.
    pub dns_names: Vec<String>,
    /// How long a certificate lives.
    pub ttl: Duration,
    /// What handshakes present.
    pub identity: DynamicIdentity,
    /// What peers' chains must end at.
    pub roots: DynamicRoots,
    /// Expiry times.
    pub metrics: Metrics,
}

impl ServingIdentity {
    /// Makes a new certificate and presents it from now on; gives the time to renew it.
    ///
    /// # Errors
    /// When the CA cannot sign, above all because it has expired.
    pub fn renew(&self, ca: &IssuingCa) -> anyhow::Result<Timestamp> {
        let now = Timestamp::now();
        let (key, csr) = new_csr().context("make serving key")?;
        let leaf = sign_leaf(&ca.authority, &csr, &self.id, &self.dns_names, now, self.ttl)
            .context("sign serving certificate")?;
        let life = validity(&leaf).context("read serving certificate")?;
        let issuing = ca.authority.cert().clone();
        let issuing_life = validity(&issuing).context("read issuing certificate")?;
        self.identity
            .set(&Identity { chain: vec![leaf, issuing], key })
            .context("present serving certificate")?;
        self.roots.set(&ca.roots).context("set trust anchors")?;
        self.metrics.serving_expiry.set(life.until.as_second());
        self.metrics.issuing_ca_expiry.set(issuing_life.until.as_second());
        tracing::info!(id = %self.id, until = %life.until, "serving certificate renewed");
        Ok(renew_at(life.from, life.until, &mut rand::rng()))
    }
}

/// Renews in time, until `drain` is cancelled.
pub async fn keep_fresh(
    serving: ServingIdentity,
    mut ca: watch::Receiver<Arc<IssuingCa>>,
    mut due: Timestamp,
    drain: CancellationToken,
) {
    loop {
        let wait = wait(due, Timestamp::now());
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            changed = ca.changed() => if changed.is_err() { return },
        }
        let current = ca.borrow_and_update().clone();
        due = serving.renew(&current).unwrap_or_else(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "could not renew serving certificate, trying again"
            );
            Timestamp::now()
                .saturating_add(jiff::SignedDuration::try_from(RETRY).unwrap_or_default())
                .unwrap_or(Timestamp::MAX)
        });
    }
}

fn wait(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default().max(RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_due_already_is_not_renewed_in_a_hot_loop() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |seconds| now.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        assert_eq!(wait(after(-1), now), RETRY);
        assert_eq!(wait(after(1), now), RETRY);
        assert_eq!(wait(after(60), now), Duration::from_secs(60));
    }
}
