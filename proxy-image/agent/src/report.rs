//! Tells the control plane what clients get. It may be away, or too old to care: nothing here ever reaches traffic.

mod progress;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use meshwright_proto::reports::{Proxy, ReportRequest, report_service_client::ReportServiceClient};
use meshwright_runtime::CancellationToken;
use prometheus_client::metrics::counter::Counter;
use rand::Rng;
use tokio::{sync::watch, time::Instant};
use tonic::{Status, transport::Channel};

use crate::{Args, admin::Traffic, drain::Phase, relay::Relay, stats::Observed};
use progress::Progress;

/// The next report is due soon.
const DEADLINE: Duration = Duration::from_secs(5);

/// All proxies count by the same clock; they should not all report in the same moment.
const SPREAD: Duration = Duration::from_secs(1);

/// Who tells something of what it observed.
pub trait Told: Send {
    /// What is observed, again and again.
    type Observed: Send + Sync;
    /// What is sent of it.
    type Request: Send;

    /// What to send: how it is now, and slots from this one on. With the start of the newest of them.
    fn request(&self, observed: &Self::Observed, since: Option<i64>) -> (Self::Request, Option<i64>);

    /// Sends it.
    fn send(channel: Channel, request: Self::Request) -> impl Future<Output = Result<(), Status>> + Send;
}

/// The proxy of a Gateway that is reported on.
pub struct Subject {
    /// What is known of it from the start.
    proxy: Proxy,
    /// See [`crate::http::Health::served`].
    pub served: Arc<OnceLock<Timestamp>>,
    /// How far the process is.
    pub phase: watch::Receiver<Phase>,
    /// How often Envoy ended by itself.
    pub restarts: Counter,
    /// Knows what Envoy refused.
    pub relay: Relay,
}

impl Subject {
    /// A new process.
    pub fn new(args: &Args, phase: watch::Receiver<Phase>, relay: Relay) -> Self {
        let proxy = Proxy {
            pod_name: args.workload.pod_name.clone(),
            pod_namespace: args.workload.pod_namespace.clone(),
            gateway_name: args.gateway_name.clone(),
            gateway_namespace: args.gateway_namespace.clone(),
            revision: args.workload.revision.clone(),
            instance: format!("{:032x}", rand::random::<u128>()),
            ..Proxy::default()
        };
        Self { proxy, served: Arc::default(), phase, restarts: Counter::default(), relay }
    }

    fn now(&self, traffic: Traffic) -> Proxy {
        Proxy {
            ready_since: self.served.get().map_or(0, |since| since.as_second()),
            draining: *self.phase.borrow() != Phase::Serving,
            open_connections: traffic.connections,
            active_requests: traffic.active_requests,
            restarts: self.restarts.get(),
            refused_configuration: self.relay.refused(),
            ..self.proxy.clone()
        }
    }
}

impl Told for Subject {
    type Observed = Observed;
    type Request = ReportRequest;

    fn request(&self, observed: &Observed, since: Option<i64>) -> (ReportRequest, Option<i64>) {
        let request =
            ReportRequest { proxy: Some(self.now(observed.traffic)), slots: observed.ring.since(since) };
        let newest = request.slots.last().map(|slot| slot.start);
        (request, newest)
    }

    async fn send(channel: Channel, request: ReportRequest) -> Result<(), Status> {
        ReportServiceClient::new(channel).report(request).await.map(drop)
    }
}

/// Reports after every reading of Envoy's statistics, on the connection of the configuration stream, until `stop`.
pub async fn run<T: Told>(
    subject: T,
    mut observed: watch::Receiver<T::Observed>,
    mut connection: watch::Receiver<Option<Channel>>,
    stop: CancellationToken,
) {
    let mut progress = Progress::default();
    let spread = SPREAD.mul_f64(rand::rng().random());
    loop {
        tokio::select! {
            seen = observed.changed() => if seen.is_err() { return },
            // A hint only: there may be a newer one when the wait below is over.
            seen = connection.changed() => match seen {
                Ok(()) => connection.mark_changed(),
                Err(_) => return,
            },
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(spread) => {}
            () = stop.cancelled() => return,
        }
        let channel = {
            let current = connection.borrow_and_update();
            if current.has_changed() {
                progress.connected();
            }
            current.clone()
        };
        let Some(channel) = channel else { continue };
        if !progress.is_due(Instant::now()) {
            continue;
        }
        let (request, newest) = subject.request(&observed.borrow_and_update(), progress.since());
        let outcome = tokio::select! {
            outcome = send::<T>(channel, request) => outcome,
            () = stop.cancelled() => return,
        };
        match outcome {
            Ok(()) => progress.acknowledged(newest),
            Err(status) if progress.failed(status.code(), Instant::now()) => {
                tracing::warn!(%status, "report to the control plane");
            }
            Err(status) => tracing::debug!(%status, "report to the control plane"),
        }
    }
}

async fn send<T: Told>(channel: Channel, request: T::Request) -> Result<(), Status> {
    match tokio::time::timeout(DEADLINE, T::send(channel, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("the control plane did not answer in time")),
    }
}
