//! Certificates that the operator keeps: the root, in a Secret of its own namespace, and one issuing CA for each
//! revision, delivered to the mesh's namespace as a new Secret per epoch that nobody but the control plane mounts.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use meshwright_api::{
    CertificatesStatus, MeshRevision,
    conditions::{CERTIFICATES_VALID, Finding, reason},
};

use crate::{error::Class, metrics::CertificateLabels};

pub mod issuing;
pub mod root;
#[cfg(test)]
pub(crate) mod tests;

/// What is said to expire soon.
const SOON: Duration = Duration::from_secs(7 * 86_400);

/// Something about a certificate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Apply(#[from] crate::apply::Error),
    /// The Secret is there and cannot be used.
    #[error("secret {secret} does not hold a usable root certificate; restore it from a backup")]
    BrokenRoot {
        /// Namespace and name.
        secret: String,
        /// Why not.
        #[source]
        source: Option<meshwright_pki::Error>,
    },
    /// The key that everything trusts is gone.
    #[error(
        "secret {secret} with the root key is gone; restore it from a backup, or accept an interruption of mTLS with \
         the annotation {annotation}={fingerprint} on the MeshControlPlane, which makes a new root"
    )]
    LostRoot {
        /// Namespace and name.
        secret: String,
        /// The annotation that accepts the loss.
        annotation: &'static str,
        /// Fingerprint of the lost root.
        fingerprint: String,
    },
    /// Signing failed.
    #[error("could not sign {what}")]
    Sign {
        /// Which certificate.
        what: String,
        /// Why not.
        #[source]
        source: meshwright_pki::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Apply(error) => error.class(),
            // A restored Secret is not watched, so look again from time to time.
            Self::BrokenRoot { .. } | Self::LostRoot { .. } => Class::Waiting(Duration::from_secs(30)),
            Self::Sign { .. } => Class::Transient,
        }
    }
}

/// One certificate with its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// root or issuing.
    pub kind: &'static str,
    /// Where it is.
    pub name: String,
    /// End of its life.
    pub not_after: Timestamp,
}

/// Every certificate that the operator keeps.
pub fn ledger(root: Option<&root::Root>, revisions: &[MeshRevision]) -> Vec<Entry> {
    let root = root.map(|r| Entry { kind: "root", name: r.secret.clone(), not_after: r.not_after });
    let issuing = revisions.iter().filter_map(|r| {
        let ca = r.status.as_ref()?.issuing_ca.as_ref()?;
        Some(Entry { kind: "issuing", name: ca.secret_name.clone(), not_after: ca.not_after.0 })
    });
    root.into_iter().chain(issuing).collect()
}

/// The condition: what expires first, and when.
pub fn finding(ledger: &[Entry], now: Timestamp) -> Finding {
    let issued = ledger.iter().any(|e| e.kind == "issuing");
    let Some(first) = ledger.iter().min_by_key(|e| e.not_after).filter(|_| issued) else {
        return Finding::new(
            CERTIFICATES_VALID,
            None,
            reason::NOT_ISSUED,
            "no issuing certificate was delivered yet",
        );
    };
    let left = Duration::try_from(first.not_after.duration_since(now)).unwrap_or_default();
    let message = format!("{} certificate {} is valid until {}", first.kind, first.name, first.not_after);
    if left.is_zero() {
        Finding::new(CERTIFICATES_VALID, Some(false), reason::EXPIRES_SOON, format!("expired: {message}"))
    } else if left < SOON {
        Finding::new(CERTIFICATES_VALID, Some(false), reason::EXPIRES_SOON, message)
    } else {
        Finding::new(CERTIFICATES_VALID, Some(true), reason::FAR_FROM_EXPIRY, message)
    }
}

/// For the MeshControlPlane's status.
pub fn status(root: Option<&root::Root>, ledger: &[Entry]) -> Option<CertificatesStatus> {
    let root = root?;
    let first = ledger.iter().min_by_key(|e| e.not_after)?;
    Some(CertificatesStatus {
        root_fingerprint: root.fingerprint.clone(),
        root_not_after: Time(root.not_after),
        earliest: format!("{} {}", first.kind, first.name),
        earliest_not_after: Time(first.not_after),
    })
}

/// For the metrics; what left the ledger leaves them too.
pub fn publish(ctx: &crate::context::Context, ledger: &[Entry]) {
    ctx.metrics.certificate_expiry.clear();
    for entry in ledger {
        let labels = CertificateLabels { kind: entry.kind, name: entry.name.clone() };
        ctx.metrics.certificate_expiry.get_or_create(&labels).set(entry.not_after.as_second() as f64);
    }
}
