//! Runs one [`DeltaSession`] over a pair of gRPC streams.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use futures::{Stream, StreamExt, stream};
use meshwright_runtime::CancellationToken;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{DeltaSession, Event, MaybeSent, Outcome, Snapshot};

/// A stream of requests, such as `tonic::Streaming`.
pub trait Requests: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send + Unpin + 'static {}
impl<S: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Send + Unpin + 'static> Requests for S {}

/// The answer of `delta_aggregated_resources`.
pub type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

/// How to serve a stream.
#[derive(Clone, Debug)]
pub struct Options {
    /// A client that does not take a response for this long is dropped: it will come back and say what it holds,
    /// while a skipped response would leave it half-configured for ever.
    pub send_deadline: Duration,
    /// What [`Event::Closed`] reported when the same client's last stream ended, if that is known.
    pub maybe_sent: MaybeSent,
}

impl Default for Options {
    fn default() -> Self {
        Self { send_deadline: Duration::from_secs(30), maybe_sent: MaybeSent::default() }
    }
}

/// Reads the first request of a stream, which is the only one certain to carry the node.
pub async fn first_request(requests: &mut impl Requests) -> Result<DeltaDiscoveryRequest, Status> {
    match requests.next().await {
        Some(first) => first,
        None => Err(Status::cancelled("stream ended before its first request")),
    }
}

/// [`serve`] for a stream whose first request was read already.
pub fn serve_after(
    first: DeltaDiscoveryRequest,
    rest: impl Requests,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    options: Options,
    on_event: impl FnMut(Event) + Send + 'static,
    drain: CancellationToken,
) -> Responses {
    serve(stream::iter([Ok(first)]).chain(rest), snapshots, options, on_event, drain)
}

/// Serves a stream until the client leaves, the publisher is dropped, or `drain` is cancelled. Snapshots published
/// while a response waits for the client are merged: the latest wins. `on_event` runs in the stream's task and must
/// not block; its last event is [`Event::Closed`].
pub fn serve(
    requests: impl Requests,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    options: Options,
    mut on_event: impl FnMut(Event) + Send + 'static,
    drain: CancellationToken,
) -> Responses {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut session = DeltaSession::new(options.maybe_sent);
        let end =
            run(&mut session, requests, snapshots, &sender, options.send_deadline, &mut on_event, drain);
        if let Err(status) = end.await {
            tracing::debug!(%status, "xds stream ended");
            // A client that is gone or stuck cannot be told why.
            let _ = sender.try_send(Err(status));
        }
        on_event(Event::Closed { maybe_sent: session.maybe_sent() });
    });
    ReceiverStream::new(receiver)
}

async fn run(
    session: &mut DeltaSession,
    mut requests: impl Requests,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    sender: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    deadline: Duration,
    on_event: &mut (impl FnMut(Event) + Send),
    drain: CancellationToken,
) -> Result<(), Status> {
    let initial = snapshots.borrow_and_update().clone();
    let mut outcome = session.on_snapshot(&initial);
    drop(initial);
    loop {
        let Outcome { responses, events } = outcome;
        events.into_iter().for_each(&mut *on_event);
        for response in responses {
            match tokio::time::timeout(deadline, sender.send(Ok(response))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Status::deadline_exceeded("response was not taken in time")),
            }
        }
        outcome = tokio::select! {
            biased;
            () = drain.cancelled() => return Err(Status::unavailable("server is draining")),
            () = sender.closed() => return Ok(()),
            request = requests.next() => match request {
                Some(request) => session.on_request(request?),
                None => return Ok(()),
            },
            changed = snapshots.changed() => {
                changed.map_err(|_| Status::unavailable("configuration is no longer published"))?;
                let latest = snapshots.borrow_and_update().clone();
                session.on_snapshot(&latest)
            }
        };
    }
}

#[cfg(test)]
mod tests;
