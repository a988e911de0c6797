//! CertificateService: a token and a public key in, a certificate out. The identity is the one the API server vouches for.

mod caller;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use meshwright_pki::{SpiffeId, sign_leaf};
use meshwright_proto::certificates::certificate_service_server::CertificateService;
use meshwright_proto::certificates::{SignCertificateRequest, SignCertificateResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::metrics::{Metrics, count};
use crate::serving::IssuingCa;

pub use caller::Callers;

/// An ECDSA request has 300 bytes, one with an RSA-4096 key 1,500.
const MAX_CSR: usize = 8 * 1024;

/// The service.
pub struct Certificates {
    /// Who calls.
    pub callers: Callers,
    /// What signs.
    pub ca: watch::Receiver<Arc<IssuingCa>>,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Life of a certificate.
    pub ttl: Duration,
    /// Counts.
    pub metrics: Metrics,
}

impl Certificates {
    async fn sign(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<SignCertificateResponse, Status> {
        #[cfg(feature = "faults")]
        crate::faults::certificates(crate::faults::chosen())?;
        let token = bearer(&request)?.to_owned();
        let csr = request.into_inner().csr_der;
        let caller = self.callers.identify(&token).await?;
        if csr.is_empty() || csr.len() > MAX_CSR {
            return Err(Status::invalid_argument(format!("csr_der must have 1 to {MAX_CSR} bytes")));
        }
        let id = SpiffeId::workload(&self.trust_domain, &caller.namespace, &caller.account)
            .map_err(|error| Status::permission_denied(error.to_string()))?;
        let ca = self.ca.borrow().clone();
        let leaf = sign_leaf(&ca.authority, &csr, &id, &[], Timestamp::now(), self.ttl).map_err(refusal)?;
        tracing::info!(%id, pod = caller.pod, "certificate signed");
        Ok(SignCertificateResponse {
            chain_der: vec![leaf.to_vec(), ca.authority.cert().to_vec()],
            roots_der: ca.roots.iter().map(|root| root.to_vec()).collect(),
        })
    }
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        match self.sign(request).await {
            Ok(response) => {
                count(&self.metrics.certificates, "signed");
                Ok(Response::new(response))
            }
            Err(status) => {
                let outcome = match status.code() {
                    tonic::Code::Unavailable => "unavailable",
                    tonic::Code::Internal => "failed",
                    // Anybody can ask without a token that we accept; that says nothing about us.
                    tonic::Code::Unauthenticated => "unauthenticated",
                    _ => "refused",
                };
                count(&self.metrics.certificates, outcome);
                tracing::warn!(code = ?status.code(), why = status.message(), "certificate not signed");
                Err(status)
            }
        }
    }
}

fn refusal(error: meshwright_pki::Error) -> Status {
    match error {
        meshwright_pki::Error::Csr(_) => Status::invalid_argument(error.to_string()),
        meshwright_pki::Error::IssuerExpired { .. } => Status::unavailable(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

fn bearer<T>(request: &Request<T>) -> Result<&str, Status> {
    let missing = || Status::unauthenticated("no bearer token in the authorization metadata");
    let value = request.metadata().get("authorization").ok_or_else(missing)?;
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
    token.filter(|token| !token.is_empty()).ok_or_else(missing)
}
