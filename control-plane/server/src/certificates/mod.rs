//! CertificateService: a token and a public key in, a certificate out. The identity is the one the API server vouches for.

mod caller;
mod signer;
#[cfg(test)]
mod tests;

use meshwright_pki::SpiffeId;
use meshwright_proto::certificates::certificate_service_server::CertificateService;
use meshwright_proto::certificates::{SignCertificateRequest, SignCertificateResponse};
use tonic::{Request, Response, Status};

use crate::nodes::Agents;

pub use caller::{Caller, Callers};
pub use signer::Signer;

/// The service.
pub struct Certificates {
    /// Who calls.
    pub callers: Callers,
    /// What signs.
    pub signer: Signer,
    /// Who is an agent of a node.
    pub agents: Agents,
}

impl Certificates {
    async fn sign(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<SignCertificateResponse, Status> {
        let token = bearer(&request)?.to_owned();
        let csr = request.into_inner().csr_der;
        let caller = self.callers.identify(&token).await?;
        let id = identity(&caller, &self.agents)?;
        let response = self.signer.sign(&csr, &id)?;
        tracing::info!(%id, pod = caller.pod, "certificate signed");
        Ok(response)
    }
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        self.signer.ended(self.sign(request).await)
    }
}

/// The identity that a caller gets: that of its service account; an agent of a node, the node's.
fn identity(caller: &Caller, agents: &Agents) -> Result<SpiffeId, Status> {
    let Caller { namespace, account, pod, node } = caller;
    if !agents.has_account(namespace, account) {
        return SpiffeId::workload(&agents.trust_domain, namespace, account)
            .map_err(|error| Status::permission_denied(error.to_string()));
    }
    match node {
        Some(node) => agents.id(node),
        None => {
            Err(Status::permission_denied(format!("the token of {pod} does not say on which node it runs")))
        }
    }
}

fn bearer<T>(request: &Request<T>) -> Result<&str, Status> {
    let missing = || Status::unauthenticated("no bearer token in the authorization metadata");
    let value = request.metadata().get("authorization").ok_or_else(missing)?;
    let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
    token.filter(|token| !token.is_empty()).ok_or_else(missing)
}
