//! Delta ADS: a stream belongs to one Gateway, and only that Gateway's service account may open it.

pub mod admission;
mod registry;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use futures::stream::BoxStream;
use meshwright_core::ObjectKey;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, server};
use tonic::{Request, Response, Status, Streaming};

use crate::metrics::{Metrics, count};
use crate::nacks::Nacks;
use crate::serving::Peer;

pub use registry::{Published, Registry};
pub use streams::Streams;

use admission::Admitted;

/// A stream that says nothing for this long is nobody's.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// The service.
pub struct Ads {
    /// Snapshots of each Gateway.
    pub registry: Registry,
    /// Where refusals are collected.
    pub nacks: Nacks,
    /// SPIFFE trust domain.
    pub trust_domain: String,
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
        let Admitted { gateway, pod } = admission::admit(identity, first.node.as_ref(), &self.trust_domain)?;
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%gateway, stream, %pod, peer = %peer.address, "xds stream opened");
        let snapshots = self.registry.subscribe(&gateway);
        #[cfg(feature = "faults")]
        let snapshots = crate::faults::heard(crate::faults::chosen(), snapshots);
        Ok(server::serve_after(
            first,
            requests,
            snapshots,
            server::Options::default(),
            self.on_event(stream, gateway, pod),
            self.end_of(&peer),
        ))
    }

    fn on_event(
        &self,
        stream: u64,
        gateway: ObjectKey,
        pod: ObjectKey,
    ) -> impl FnMut(Event) + Send + 'static {
        let (nacks, metrics, streams) = (self.nacks.clone(), self.metrics.clone(), self.streams.clone());
        metrics.open_streams.inc();
        streams.opened(stream, pod);
        move |event| {
            match &event {
                Event::Ack { .. } => count(&metrics.answers, "ack"),
                Event::Nack { kind, resources, message } => {
                    count(&metrics.answers, "nack");
                    tracing::warn!(%gateway, stream, %kind, ?resources, message, "proxy refused configuration");
                }
                Event::UnknownType(kind) => tracing::debug!(%gateway, stream, kind, "unknown resource type"),
                Event::Closed { .. } => {
                    metrics.open_streams.dec();
                    streams.closed(stream);
                    tracing::info!(%gateway, stream, "xds stream closed");
                }
                Event::Subscription { .. } | Event::Settled { .. } => {}
            }
            nacks.on_event(stream, &gateway, &event);
        }
    }

    /// Ends with the process or with the connection's age, whichever is first.
    fn end_of(&self, peer: &Peer) -> CancellationToken {
        let end = self.drain.child_token();
        let (token, expires) = (end.clone(), peer.expires);
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            tokio::time::sleep_until(expires).await;
            token.cancel();
        }));
        end
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

/// The service with its parts.
pub fn service(
    registry: Registry,
    nacks: Nacks,
    streams: Streams,
    trust_domain: &str,
    metrics: &Metrics,
    drain: &CancellationToken,
) -> Arc<Ads> {
    Arc::new(Ads {
        registry,
        nacks,
        trust_domain: trust_domain.to_owned(),
        metrics: metrics.clone(),
        drain: drain.clone(),
        streams,
        next: AtomicU64::new(0),
    })
}
