//! Delta ADS: a stream belongs to one Gateway, and only that Gateway's service account may open it, or to one node and its agent.

pub mod admission;
mod nodes;
mod registry;
mod streams;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::stream::BoxStream;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, server};
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::{Metrics, count};
use crate::nacks::Nacks;
use crate::nodes::Agents;
use crate::serving::Peer;

pub use nodes::{NodeKey, NodeRegistry};
pub use registry::{Published, Registry};
pub use streams::Streams;

use admission::{Admitted, Owner};

/// A stream that says nothing for this long is nobody's.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// The service.
pub struct Ads {
    /// Snapshots of each Gateway.
    pub registry: Registry,
    /// Those of each node.
    pub nodes: NodeRegistry,
    /// Where refusals are collected.
    pub nacks: Nacks,
    /// Who is an agent of a node.
    pub agents: Agents,
    /// Counts.
    pub metrics: Metrics,
    /// Ends every stream.
    pub drain: CancellationToken,
    /// Those that are open.
    pub streams: Streams,
    /// Tells streams apart.
    pub next: AtomicU64,
}

impl Ads {
    async fn open(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<server::Responses, Status> {
        let peer = Peer::of(&request)?.clone();
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(FIRST_REQUEST, server::first_request(&mut requests))
            .await
            .map_err(|_| Status::deadline_exceeded("no request on the stream"))??;
        let identity = peer.identity.as_ref();
        let Admitted { owner, pod } = admission::admit(identity, first.node.as_ref(), &self.agents)?;
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%owner, stream, %pod, peer = %peer.address, "xds stream opened");
        let snapshots = match &owner {
            Owner::Gateway(gateway) => self.registry.subscribe(gateway),
            Owner::Node(node, slot) => self.nodes.subscribe(node, *slot),
        };
        #[cfg(feature = "faults")]
        let snapshots = crate::faults::heard(crate::faults::chosen(), snapshots);
        self.metrics.open_streams.inc();
        self.streams.opened(stream, pod);
        Ok(server::serve_after(
            first,
            requests,
            snapshots,
            server::Options::default(),
            self.on_event(stream, owner),
            peer.end(&self.drain),
        ))
    }

    fn on_event(&self, stream: u64, owner: Owner) -> impl FnMut(Event) + Send + 'static {
        let (nacks, metrics, streams) = (self.nacks.clone(), self.metrics.clone(), self.streams.clone());
        move |event| {
            match &event {
                Event::Ack { .. } => count(&metrics.answers, "ack"),
                Event::Nack { kind, resources, message } => {
                    count(&metrics.answers, "nack");
                    tracing::warn!(%owner, stream, %kind, ?resources, message, "proxy refused configuration");
                }
                Event::UnknownType(kind) => tracing::debug!(%owner, stream, kind, "unknown resource type"),
                Event::Closed { .. } => {
                    metrics.open_streams.dec();
                    streams.closed(stream);
                    tracing::info!(%owner, stream, "xds stream closed");
                }
                Event::Subscription { .. } | Event::Settled { .. } => {}
            }
            match &owner {
                Owner::Gateway(gateway) => nacks.on_event(stream, gateway, &event),
                Owner::Node(node, _) => nacks.on_node_event(stream, node, &event),
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only the delta protocol is spoken here"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        match self.open(request).await {
            Ok(responses) => {
                count(&self.metrics.streams, "opened");
                Ok(Response::new(Box::pin(responses)))
            }
            Err(status) => {
                count(&self.metrics.streams, "refused");
                tracing::warn!(code = ?status.code(), why = status.message(), "xds stream refused");
                Err(status)
            }
        }
    }
}
