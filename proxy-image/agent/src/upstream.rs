//! The stream to the control plane.

use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use futures::{Stream, StreamExt};
use meshwright_runtime::CancellationToken;
use meshwright_xds::DeltaDiscoveryResponse;
use tokio::{sync::watch, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, transport::Channel};

use crate::{
    Args,
    args::Workload,
    backoff::Backoff,
    connect::{connect, is_tls},
    identity::Credentials,
    relay::Relay,
};

/// Thousands of clusters may come in one response.
const MAX_MESSAGE: usize = 256 << 20;

/// Keeps a stream open until `stop`, and in `connection` what it goes through. Losing it loses nothing: Envoy keeps what it has, we keep what
/// Envoy accepted.
pub async fn run(
    workload: &Workload,
    node: &Node,
    credentials: &Credentials,
    relay: &Relay,
    connection: &watch::Sender<Option<Channel>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let ended = tokio::select! {
            ended = stream(workload, node, credentials, relay, connection, &mut backoff) => ended,
            () = stop.cancelled() => return,
        };
        relay.disconnect_upstream();
        connection.send_replace(None);
        let delay = backoff.next_delay();
        match ended {
            Ok(()) => tracing::info!(?delay, "control plane closed the stream"),
            Err(e) => {
                tracing::warn!(error = %format!("{e:#}"), ?delay, "lost the control plane");
                if is_tls(&e) {
                    credentials.doubt(workload);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn stream(
    workload: &Workload,
    node: &Node,
    credentials: &Credentials,
    relay: &Relay,
    connection: &watch::Sender<Option<Channel>>,
    backoff: &mut Backoff,
) -> anyhow::Result<()> {
    credentials.wait().await;
    let channel = connect(
        &workload.control_plane,
        &credentials.identity,
        &credentials.roots,
        &workload.control_plane_id,
    )
    .await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    let mut node = Some(node.clone());
    // The node goes with the first request only.
    let requests = UnboundedReceiverStream::new(relay.connect_upstream()).map(move |mut request| {
        request.node = node.take();
        request
    });
    let responses =
        client.delta_aggregated_resources(requests).await.context("open configuration stream")?.into_inner();
    tracing::info!(control_plane = workload.control_plane, "connected to the control plane");
    connection.send_replace(Some(channel));
    read(responses, relay, backoff).await.context("read configuration stream")
}

/// Reads until the stream ends. One without any message is no failure for that: the control plane says nothing to
/// who has everything, and ends every connection after a while.
async fn read(
    mut responses: impl Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Unpin,
    relay: &Relay,
    backoff: &mut Backoff,
) -> Result<(), Status> {
    let opened = Instant::now();
    let ended = loop {
        match responses.next().await {
            Some(Ok(response)) => {
                backoff.reset();
                relay.on_upstream(response);
            }
            Some(Err(status)) => break Err(status),
            None => break Ok(()),
        }
    };
    backoff.ran_for(opened.elapsed());
    ended
}

/// The same node that the Envoy of a gateway has in its bootstrap.
pub fn gateway(args: &Args) -> Node {
    let Args { workload, .. } = args;
    let fields = [
        ("GATEWAY_NAME", &*args.gateway_name),
        ("GATEWAY_NAMESPACE", &args.gateway_namespace),
        ("REVISION", &workload.revision),
        ("POD_NAME", &workload.pod_name),
        ("POD_NAMESPACE", &workload.pod_namespace),
        ("POD_IP", &args.pod_ip),
        ("SERVICE_ACCOUNT", &workload.service_account),
    ];
    node(workload, format!("{}.{}", args.gateway_name, args.gateway_namespace), fields)
}

/// A node of the configuration protocol: a pod, which group of proxies it is one of, and what else the control plane asks for.
pub(crate) fn node<'a>(
    workload: &Workload,
    cluster: String,
    fields: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    Node {
        id: format!("{}.{}", workload.pod_name, workload.pod_namespace),
        cluster,
        metadata: Some(Struct { fields }),
        user_agent_name: "meshwright-agent".to_owned(),
        ..Node::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest wait after this many streams in a row without a message, each of this life.
    async fn wait_after(streams: u32, life: Duration) -> Duration {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
        let mut longest = Duration::ZERO;
        for _ in 0..streams {
            let end = async {
                tokio::time::sleep(life).await;
                Err(Status::unavailable("server is draining"))
            };
            let ended = read(Box::pin(futures::stream::once(end)), &Relay::default(), &mut backoff).await;
            assert!(ended.is_err());
            longest = longest.max(backoff.next_delay());
        }
        longest
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_that_ends_by_its_age_is_no_failure() {
        assert!(wait_after(20, Duration::from_secs(24 * 60)).await <= Duration::from_millis(500));
        assert!(wait_after(20, Duration::from_secs(1)).await > Duration::from_secs(7), "but soon is");
    }
}
