//! The stream on which the control plane says what is to be in the mesh, and hears what is.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context;
use meshwright_proto::nodes::{NodeOrder, NodeReport, node_service_client::NodeServiceClient};
use meshwright_runtime::CancellationToken;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use crate::backoff::Backoff;

/// Namespaces of a whole cluster are in one order.
const MAX_ORDER: usize = 64 << 20;
/// A control plane that does not know nodes will know them only when another one has taken its place.
const UNKNOWN: Duration = Duration::from_secs(60);

/// The control plane's last word.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// None before the first one.
    pub order: Option<Arc<NodeOrder>>,
    /// Since when it has been said again and again, by being connected; none while nobody is.
    pub live_since: Option<Instant>,
}

/// What the stream reads and writes.
pub struct Outlets {
    /// What to report, as it is now.
    pub report: watch::Receiver<NodeReport>,
    /// What was heard.
    pub heard: watch::Sender<Heard>,
    /// Uids of the report that the control plane has; none while it has none.
    pub listed: watch::Sender<Option<BTreeSet<String>>>,
}

/// Keeps a stream open on the connection of the configuration stream, until `stop`. What was heard stays true while there is none. When the
/// process is `ending` it is opened anew, once: a stream that is open proves nothing, its other end may have been gone for half a minute.
pub async fn run(
    mut outlets: Outlets,
    mut connection: watch::Receiver<Option<Channel>>,
    ending: CancellationToken,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
    let followed = async {
        let mut asked_anew = false;
        loop {
            // The sender lives as long as the process.
            let Ok(channel) = connection.wait_for(Option::is_some).await.map(|channel| channel.clone())
            else {
                return;
            };
            let Some(channel) = channel else { continue };
            let opened = Instant::now();
            let ended = tokio::select! {
                ended = follow(channel, &mut outlets, &mut backoff) => ended,
                () = ending.cancelled(), if !asked_anew => {
                    asked_anew = true;
                    backoff.reset();
                    Ok(())
                }
            };
            outlets.listed.send_replace(None);
            outlets.heard.send_modify(|heard| heard.live_since = None);
            backoff.ran_for(opened.elapsed());
            let mut delay = backoff.next_delay();
            match &ended {
                Ok(()) => tracing::info!(?delay, "the stream of this node has ended"),
                Err(e) => {
                    if e.downcast_ref().map(Status::code) == Some(Code::Unimplemented) {
                        delay = UNKNOWN;
                    }
                    tracing::warn!(error = %format!("{e:#}"), ?delay, "lost the stream of this node");
                }
            }
            tokio::time::sleep(delay).await;
        }
    };
    tokio::select! {
        () = followed => {}
        () = stop.cancelled() => {}
    }
}

async fn follow(channel: Channel, outlets: &mut Outlets, backoff: &mut Backoff) -> anyhow::Result<()> {
    let (sender, reports) = mpsc::channel(1);
    report(outlets, &sender).await?;
    let mut client = NodeServiceClient::new(channel).max_decoding_message_size(MAX_ORDER);
    let mut orders =
        client.follow(ReceiverStream::new(reports)).await.context("open the stream")?.into_inner();
    loop {
        tokio::select! {
            order = orders.message() => match order.context("read the stream")? {
                Some(order) => {
                    backoff.reset();
                    heard(&outlets.heard, order);
                }
                None => return Ok(()),
            },
            changed = outlets.report.changed() => {
                changed.context("nothing is to be reported any more")?;
                report(outlets, &sender).await?;
            }
        }
    }
}

fn heard(all: &watch::Sender<Heard>, order: NodeOrder) {
    all.send_modify(|heard| {
        heard.order = Some(Arc::new(order));
        heard.live_since.get_or_insert_with(Instant::now);
    });
}

async fn report(outlets: &mut Outlets, sender: &mpsc::Sender<NodeReport>) -> anyhow::Result<()> {
    let report = outlets.report.borrow_and_update().clone();
    let listed = report.captured.iter().map(|pod| pod.uid.clone()).collect();
    sender.send(report).await.context("the stream has ended")?;
    outlets.listed.send_replace(Some(listed));
    Ok(())
}
