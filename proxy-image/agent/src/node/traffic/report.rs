//! Tells the control plane of pairs.

use jiff::Timestamp;
use meshwright_proto::reports::{NodeProxy, NodeReportRequest, report_service_client::ReportServiceClient};
use meshwright_runtime::CancellationToken;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tonic::{Status, transport::Channel};

use super::Traffic;
use crate::{
    node::args::Args,
    relay::Relay,
    report::{self, Told},
};

/// The proxy that is reported on.
pub struct Subject {
    proxy: NodeProxy,
    restarts: Counter,
    relay: Relay,
}

impl Subject {
    /// A new process.
    pub fn new(args: &Args, relay: &Relay) -> Self {
        let proxy = NodeProxy {
            node: args.place.node_name.clone(),
            revision: args.workload.revision.clone(),
            pod_name: args.workload.pod_name.clone(),
            instance: format!("{:032x}", rand::random::<u128>()),
            started: Timestamp::now().as_second(),
            ..NodeProxy::default()
        };
        Self { proxy, restarts: relay.restarts(), relay: relay.clone() }
    }
}

impl Told for Subject {
    type Observed = Traffic;
    type Request = NodeReportRequest;

    fn request(&self, traffic: &Traffic, since: Option<i64>) -> (NodeReportRequest, Option<i64>) {
        let proxy = NodeProxy {
            restarts: self.restarts.get(),
            refused_configuration: self.relay.refused(),
            ..self.proxy.clone()
        };
        let request = NodeReportRequest { proxy: Some(proxy), pairs: traffic.pairs.since(since) };
        (request, traffic.pairs.newest())
    }

    async fn send(channel: Channel, request: NodeReportRequest) -> Result<(), Status> {
        ReportServiceClient::new(channel).report_node(request).await.map(drop)
    }
}

/// Reports after every reading of Envoy's statistics until `stop`.
pub async fn run(
    subject: Subject,
    traffic: watch::Receiver<Traffic>,
    connection: watch::Receiver<Option<Channel>>,
    stop: CancellationToken,
) {
    report::run(subject, traffic, connection, stop).await;
}
