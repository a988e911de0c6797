//! InspectionService: what the operator measures a revision by, and compares it by.

mod health;
mod render;

use jiff::Timestamp;
use meshwright_pki::SpiffeId;
use meshwright_proto::inspection::inspection_service_server::InspectionService;
use meshwright_proto::inspection::{
    ObservePairsRequest, ObservePairsResponse, ObserveRequest, ObserveResponse, RenderRequest, RenderResponse,
};
use tonic::{Request, Response, Status};

use crate::ads::{Registry, Streams};
use crate::metrics::Metrics;
use crate::reports::Reports;
use crate::serving::Peer;

#[cfg(test)]
pub use render::render;

/// The service.
pub struct Inspection {
    /// Who may ask; nobody where it is not known.
    pub operator: Option<SpiffeId>,
    /// What proxies are given.
    pub registry: Registry,
    /// What proxies reported.
    pub reports: Reports,
    /// Who listens.
    pub streams: Streams,
    /// Counts.
    pub metrics: Metrics,
    /// When this process began.
    pub started: Timestamp,
}

impl Inspection {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = Peer::of(request)?;
        let refused = match &peer.identity {
            None => Status::unauthenticated("a client certificate is needed"),
            Some(identity) if Some(identity) == self.operator.as_ref() => return Ok(()),
            Some(identity) => Status::permission_denied(format!("{identity} is not the operator")),
        };
        tracing::warn!(peer = %peer.address, why = refused.message(), "inspection refused");
        Err(refused)
    }
}

#[tonic::async_trait]
impl InspectionService for Inspection {
    async fn observe(&self, request: Request<ObserveRequest>) -> Result<Response<ObserveResponse>, Status> {
        self.admit(&request)?;
        Ok(Response::new(ObserveResponse {
            proxies: self.reports.observe(request.get_ref().since),
            health: Some(health::health(self.started, &self.streams, &self.metrics)),
        }))
    }

    async fn observe_pairs(
        &self,
        request: Request<ObservePairsRequest>,
    ) -> Result<Response<ObservePairsResponse>, Status> {
        self.admit(&request)?;
        let ObservePairsRequest { since, nodes } = request.into_inner();
        let nodes = self.reports.observe_nodes(since, &nodes.into_iter().collect());
        Ok(Response::new(ObservePairsResponse { nodes }))
    }

    async fn render(&self, request: Request<RenderRequest>) -> Result<Response<RenderResponse>, Status> {
        self.admit(&request)?;
        // An answer without some Gateways would look like a revision that has lost them.
        let published = self.registry.published().ok_or_else(|| {
            Status::unavailable("not every Gateway may be known yet, ask again in some seconds")
        })?;
        // Thousands of routes take a while, and the streams of proxies should not wait for it.
        let gateways = tokio::task::spawn_blocking(move || render::render(&published)).await;
        let gateways = gateways.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(RenderResponse { gateways }))
    }
}
