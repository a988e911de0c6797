//! Follow: one stream for each agent.

use std::time::Duration;

use futures::StreamExt;
use meshwright_proto::nodes::{NodeOrder, NodeReport};
use meshwright_runtime::CancellationToken;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::followers::Follower;
use super::order::Basis;
use super::{Agents, Nodes, Parts};
use crate::metrics::count;
use crate::serving::Peer;

/// A stream that says nothing for this long is nobody's.
const FIRST_REPORT: Duration = Duration::from_secs(10);
/// An agent that does not take an order for this long is dropped: it comes back and gets the newest.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

type Orders = mpsc::Sender<Result<NodeOrder, Status>>;

impl Nodes {
    pub(super) async fn open(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<ReceiverStream<Result<NodeOrder, Status>>, Status> {
        let peer = Peer::of(&request)?.clone();
        let parts = self.parts.clone();
        let node = parts.agents.node_of(peer.identity.as_ref())?.to_owned();
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(FIRST_REPORT, reports.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no report on the stream"))??;
        let first = first.ok_or_else(|| Status::cancelled("stream ended before its first report"))?;
        check(&parts.agents, &node, &first)?;
        let follower = parts.followers.opened(&node);
        let asked = first.callers.clone();
        follower.reported(first);
        count(&parts.metrics.nodes.reports, "taken");
        tracing::info!(node, peer = %peer.address, "node stream opened");
        let (sender, receiver) = mpsc::channel(1);
        let end = peer.end(&parts.drain);
        tokio::spawn(async move {
            parts.metrics.nodes.open_streams.inc();
            if let Err(status) = run(&parts, (&node, asked), &follower, reports, &sender, end).await {
                tracing::debug!(node, %status, "node stream ended");
                // Who is gone or stuck cannot be told why.
                let _ = sender.try_send(Err(status));
            }
            parts.metrics.nodes.open_streams.dec();
            tracing::info!(node, "node stream closed");
        });
        Ok(ReceiverStream::new(receiver))
    }
}

async fn run(
    parts: &Parts,
    (node, mut asked): (&str, Vec<String>),
    follower: &Follower,
    mut reports: Streaming<NodeReport>,
    orders: &Orders,
    end: CancellationToken,
) -> Result<(), Status> {
    let mut outputs = parts.outputs.clone();
    outputs.mark_changed();
    let mut told: Option<Basis> = None;
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => return Err(Status::unavailable("come back on another connection")),
            () = follower.superseded() => return Err(Status::aborted("the node's agent has another stream")),
            () = orders.closed() => return Ok(()),
            report = reports.next() => {
                let Some(report) = report else { return Ok(()) };
                let report = report?;
                if asked != report.callers {
                    asked.clone_from(&report.callers);
                    outputs.mark_changed();
                }
                take(parts, node, follower, report)?;
            }
            changed = outputs.changed() => {
                changed.map_err(|_| Status::unavailable("the cluster is not watched any more"))?;
                let basis = outputs.borrow_and_update().as_ref().map(|output| Basis::of(&output.mesh, node, &asked));
                // Nothing is said before everything was listed: an order without members takes pods out of the mesh.
                let Some(basis) = basis else { continue };
                if told.as_ref().is_some_and(|told| told.is_same(&basis)) {
                    continue;
                }
                match tokio::time::timeout(SEND_DEADLINE, orders.send(Ok(basis.order()))).await {
                    Ok(Ok(())) => told = Some(basis),
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(Status::deadline_exceeded("order was not taken in time")),
                }
            }
        }
    }
}

fn take(parts: &Parts, node: &str, follower: &Follower, report: NodeReport) -> Result<(), Status> {
    let reports = &parts.metrics.nodes.reports;
    if let Err(status) = check(&parts.agents, node, &report) {
        count(reports, "refused");
        tracing::warn!(node, why = status.message(), "report of a node refused");
        return Err(status);
    }
    count(reports, "taken");
    follower.reported(report);
    Ok(())
}

/// Whether a report is of the agent whose stream it came over.
fn check(agents: &Agents, node: &str, report: &NodeReport) -> Result<(), Status> {
    if report.node != node {
        let named = &report.node;
        return Err(Status::permission_denied(format!(
            "the agent of node {node} may not report for {named:?}"
        )));
    }
    if report.revision != agents.revision {
        let named = &report.revision;
        return Err(Status::permission_denied(format!(
            "an agent of revision {} may not report for {named:?}",
            agents.revision
        )));
    }
    Ok(())
}
