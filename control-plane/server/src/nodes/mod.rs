//! NodeService: agents of nodes are told which pods are to be in the mesh and who serves the node, get certificates for these pods, and
//! report what they did.

mod agents;
mod captured;
mod follow;
mod followers;
mod order;
mod sign;
#[cfg(test)]
pub(crate) mod tests;
mod troubles;

use std::sync::Arc;

use meshwright_index::Output;
use meshwright_proto::certificates::SignCertificateResponse;
use meshwright_proto::nodes::node_service_server::NodeService;
use meshwright_proto::nodes::{NodeOrder, NodeReport, SignIdentityRequest};
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::certificates::Signer;
use crate::metrics::{Metrics, count};
use crate::serving::Peer;

pub use agents::Agents;
pub use captured::Captured;
pub use followers::Followers;
pub use troubles::Troubles;

/// The most that a report may have; one with a thousand pods has 150 kB.
pub const MAX_REPORT: usize = 1024 * 1024;

/// What the service needs but for what signs, which exists later.
#[derive(Clone)]
pub struct Parts {
    /// Who is an agent.
    pub agents: Agents,
    /// Where reports are kept.
    pub followers: Followers,
    /// What is to be.
    pub outputs: watch::Receiver<Option<Arc<Output>>>,
    /// Counts.
    pub metrics: Metrics,
    /// Ends every stream.
    pub drain: CancellationToken,
}

/// The service.
pub struct Nodes {
    /// Everything else.
    pub parts: Parts,
    /// What signs pods' certificates.
    pub signer: Signer,
}

#[tonic::async_trait]
impl NodeService for Nodes {
    type FollowStream = ReceiverStream<Result<NodeOrder, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        match self.open(request).await {
            Ok(orders) => {
                count(&self.parts.metrics.nodes.streams, "opened");
                Ok(Response::new(orders))
            }
            Err(status) => {
                count(&self.parts.metrics.nodes.streams, "refused");
                tracing::warn!(code = ?status.code(), why = status.message(), "node stream refused");
                Err(status)
            }
        }
    }

    async fn sign_identity(
        &self,
        request: Request<SignIdentityRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let peer = Peer::of(&request)?.clone();
        let node = match self.parts.agents.node_of(peer.identity.as_ref()) {
            Ok(node) => node,
            Err(status) => {
                // As with tokens that we do not accept: who is no agent says nothing about us.
                count(&self.parts.metrics.certificates, "unauthenticated");
                tracing::warn!(peer = %peer.address, why = status.message(), "certificate of a pod refused");
                return Err(status);
            }
        };
        self.signer.ended(self.sign(node, request.into_inner()).await)
    }
}
