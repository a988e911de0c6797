//! What makes certificates for others, whoever was let in to ask.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use meshwright_pki::{SpiffeId, sign_leaf};
use meshwright_proto::certificates::SignCertificateResponse;
use tokio::sync::watch;
use tonic::{Code, Response, Status};

use crate::metrics::{Metrics, count};
use crate::serving::IssuingCa;

/// An ECDSA request has 300 bytes, one with an RSA-4096 key 1,500.
const MAX_CSR: usize = 8 * 1024;

/// Signs with the issuing CA of the moment.
#[derive(Clone)]
pub struct Signer {
    /// What signs.
    pub ca: watch::Receiver<Arc<IssuingCa>>,
    /// Life of a certificate.
    pub ttl: Duration,
    /// Counts.
    pub metrics: Metrics,
}

impl Signer {
    /// A certificate with this identity, for the key in the request.
    ///
    /// # Errors
    /// When the request is none, or the CA cannot sign.
    pub fn sign(&self, csr: &[u8], id: &SpiffeId) -> Result<SignCertificateResponse, Status> {
        #[cfg(feature = "faults")]
        crate::faults::certificates(crate::faults::chosen())?;
        if csr.is_empty() || csr.len() > MAX_CSR {
            return Err(Status::invalid_argument(format!("csr_der must have 1 to {MAX_CSR} bytes")));
        }
        let ca = self.ca.borrow().clone();
        let leaf = sign_leaf(&ca.authority, csr, id, &[], Timestamp::now(), self.ttl).map_err(refusal)?;
        Ok(SignCertificateResponse {
            chain_der: vec![leaf.to_vec(), ca.authority.cert().to_vec()],
            roots_der: ca.roots.iter().map(|root| root.to_vec()).collect(),
        })
    }

    /// Counts how a request ended, and says why where it was refused.
    pub fn ended(
        &self,
        result: Result<SignCertificateResponse, Status>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        match result {
            Ok(response) => {
                count(&self.metrics.certificates, "signed");
                Ok(Response::new(response))
            }
            Err(status) => {
                count(&self.metrics.certificates, outcome(status.code()));
                tracing::warn!(code = ?status.code(), why = status.message(), "certificate not signed");
                Err(status)
            }
        }
    }
}

/// Whether the operator is to hold it against this revision: only `failed` and `refused` count there.
fn outcome(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "unavailable",
        Code::Internal => "failed",
        // Anybody can ask without a token that we accept; that says nothing about us.
        Code::Unauthenticated => "unauthenticated",
        // A pod can be gone before its agent has asked for it.
        Code::NotFound => "unknown",
        _ => "refused",
    }
}

fn refusal(error: meshwright_pki::Error) -> Status {
    match error {
        meshwright_pki::Error::Csr(_) => Status::invalid_argument(error.to_string()),
        meshwright_pki::Error::IssuerExpired { .. } => Status::unavailable(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_are_to_blame_for_is_held_against_us() {
        for (code, expected) in [
            (Code::PermissionDenied, "refused"),
            (Code::InvalidArgument, "refused"),
            (Code::Internal, "failed"),
            (Code::Unavailable, "unavailable"),
            (Code::Unauthenticated, "unauthenticated"),
            (Code::NotFound, "unknown"),
        ] {
            assert_eq!(outcome(code), expected, "{code:?}");
        }
    }
}
