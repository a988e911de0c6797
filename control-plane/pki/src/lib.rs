//! Certificates of the mesh: roots, issuing CAs, leaves, SPIFFE ids and the TLS configurations that check them.
//!
//! Nothing here reads a clock or a file; the time is a parameter.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use meshwright_pki::{Identity, SpiffeId, new_csr, new_root, peer_identity, sign_issuing_ca, sign_leaf};
//! let now: jiff::Timestamp = "2026-11-20T12:00:00Z".parse()?;
//! let day = Duration::from_secs(86400);
//! let root = new_root("cluster.local", now, day * 3650)?;
//! let issuing = sign_issuing_ca(&root, "default-1a2b3c4d", now, day * 30)?;
//! let (key, csr) = new_csr()?; // made by the workload; only the CSR travels
//! let id = SpiffeId::workload("cluster.local", "shop", "cart")?;
//! let leaf = sign_leaf(&issuing, &csr, &id, &[], now, day)?;
//! assert_eq!(peer_identity(&leaf)?, id);
//! let identity = Identity { chain: vec![leaf, issuing.cert().clone()], key };
//! # drop(identity); Ok(()) }
//! ```

mod authority;
mod csr;
mod inspect;
mod key;
mod spiffe;
pub mod tls;

pub use authority::{Authority, new_root, sign_issuing_ca, sign_leaf};
pub use csr::new_csr;
pub use inspect::{Validity, certs_from_pem, certs_to_pem, fingerprint, peer_identity, renew_at, validity};
pub use key::{Identity, PrivateKey};
pub use rustls_pki_types::CertificateDer;
pub use spiffe::SpiffeId;

/// What went wrong with a certificate, a key or a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a SPIFFE id, or not a strict one.
    #[error("parse spiffe id {0:?}: {1}")]
    SpiffeId(String, &'static str),
    /// Not a certificate, or not the kind that was needed.
    #[error("read certificate: {0}")]
    Certificate(String),
    /// Not a private key.
    #[error("read private key: {0}")]
    Key(String),
    /// A request that must not be signed.
    #[error("accept certificate signing request: {0}")]
    Csr(String),
    /// The signing itself failed.
    #[error("sign {what}: {source}")]
    Sign {
        /// Which certificate.
        what: &'static str,
        /// The library's reason.
        source: rcgen::Error,
    },
    /// The issuer's certificate is over, or not yet begun.
    #[error("sign {what}: the issuer is valid from {from} to {until} only")]
    IssuerExpired {
        /// Which certificate.
        what: &'static str,
        /// The issuer's NotBefore.
        from: jiff::Timestamp,
        /// The issuer's NotAfter.
        until: jiff::Timestamp,
    },
    /// A TLS configuration could not be made.
    #[error("configure TLS: {0}")]
    Tls(#[from] rustls::Error),
}

#[cfg(test)]
mod tests;
