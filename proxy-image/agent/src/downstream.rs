//! The ADS server for Envoy, on a unix socket.

use std::{path::Path, pin::Pin};

use anyhow::Context;
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use envoy_types::pb::google::protobuf::value::Kind;
use futures::StreamExt;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{DeltaDiscoveryRequest, server};
use tokio::net::UnixListener;
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{bootstrap::PROCESS, relay::Relay};

struct Ads {
    relay: Relay,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = server::Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only delta ADS is served"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<server::Responses>, Status> {
        let (relay, mut requests) = (self.relay.clone(), request.into_inner());
        let first = match relay.is_of_node() {
            true => Some(server::first_request(&mut requests).await?),
            false => None,
        };
        // It runs in another container, so nobody else tells us that it ended.
        first.as_ref().and_then(process).into_iter().for_each(|process| relay.envoy_is(process));
        let (stream, maybe_sent) = relay.open_downstream();
        let options = server::Options { maybe_sent, ..server::Options::default() };
        let snapshots = relay.snapshots();
        let on_event = move |event| relay.on_downstream(stream, event);
        let stop = self.stop.clone();
        let requests = futures::stream::iter(first.map(Ok)).chain(requests);
        Ok(Response::new(server::serve(requests, snapshots, options, on_event, stop)))
    }
}

/// Which process the Envoy of a node's proxy says it is; see its bootstrap.
fn process(first: &DeltaDiscoveryRequest) -> Option<String> {
    match first.node.as_ref()?.metadata.as_ref()?.fields.get(PROCESS)?.kind.as_ref()? {
        Kind::StringValue(process) => Some(process.clone()),
        _ => None,
    }
}

/// Serves Envoy until `stop`.
pub async fn serve(socket: &Path, relay: Relay, stop: CancellationToken) -> anyhow::Result<()> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("remove old socket {}", socket.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket).with_context(|| format!("bind {}", socket.display()))?;
    let service = AggregatedDiscoveryServiceServer::new(Ads { relay, stop: stop.clone() })
        .max_encoding_message_size(usize::MAX);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .context("serve configuration to envoy")
}
