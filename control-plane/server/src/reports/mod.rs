//! ReportService: what proxies tell of their traffic, kept for the operator to ask for.

mod bounded;
mod check;
mod nodes;
mod store;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use meshwright_core::ObjectKey;
use meshwright_proto::inspection::{ObservedNode, ObservedProxy};
use meshwright_proto::reports::report_service_server::ReportService;
use meshwright_proto::reports::{NodeReportRequest, ReportRequest, ReportResponse};
use meshwright_runtime::CancellationToken;
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use self::nodes::Nodes;
use self::store::Store;
use crate::ads::admission;
use crate::metrics::{Metrics, count};
use crate::nodes::Agents;
use crate::serving::Peer;

/// An hour of slots, each with every bucket, has less.
pub const MAX_REPORT: usize = 1024 * 1024;
/// How often is looked for what is too old.
const SWEEP: Duration = Duration::from_secs(60);

/// The service, and what it has heard. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Reports {
    store: Arc<Mutex<Store>>,
    nodes: Arc<Mutex<Nodes>>,
    agents: Agents,
    metrics: Metrics,
}

impl Reports {
    /// Knows nothing yet; `agents` are those of nodes.
    pub fn new(agents: Agents, metrics: &Metrics) -> Self {
        Self { store: Arc::default(), nodes: Arc::default(), agents, metrics: metrics.clone() }
    }

    /// Proxies that reported within the last hour, with their slots from `since` on.
    pub fn observe(&self, since: i64) -> Vec<ObservedProxy> {
        self.lock().observe(since, now())
    }

    /// Proxies of these nodes that reported within the last hour, with the slots of their pairs from `since` on, in Unix seconds.
    pub fn observe_nodes(&self, since: i64, nodes: &BTreeSet<String>) -> Vec<ObservedNode> {
        self.lock_nodes().observe(since, now(), nodes)
    }

    /// Forgets what is too old, until `drain` is cancelled.
    pub async fn forget(self, drain: CancellationToken) {
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = sleep(SWEEP) => {}
            }
            let mut store = self.lock();
            store.forget(now());
            self.show(&store);
            drop(store);
            let mut nodes = self.lock_nodes();
            nodes.forget(now());
            self.show_nodes(&nodes);
        }
    }

    fn take(&self, request: Request<ReportRequest>) -> Result<(), Status> {
        let identity = Peer::of(&request)?.identity.clone();
        let ReportRequest { proxy, slots } = request.into_inner();
        let proxy = proxy.ok_or_else(|| Status::invalid_argument("the report has no proxy"))?;
        let gateway = ObjectKey::new(&proxy.gateway_namespace, &proxy.gateway_name);
        admission::is_proxy_of(identity.as_ref(), &gateway, &self.agents.trust_domain)?;
        // Proxies run where their Gateway is, so that is the identity's namespace, too.
        if proxy.pod_namespace != gateway.namespace {
            return Err(Status::permission_denied(format!(
                "a proxy of Gateway {gateway} may not report for pods of namespace {:?}",
                proxy.pod_namespace
            )));
        }
        let now = now();
        check::check(&proxy, &slots, now).map_err(Status::invalid_argument)?;
        let mut store = self.lock();
        let taken = store.record(proxy, &slots, now);
        self.show(&store);
        taken.map_err(Status::resource_exhausted)
    }

    fn take_node(&self, request: Request<NodeReportRequest>) -> Result<(), Status> {
        let peer = Peer::of(&request)?.identity.clone();
        let node = self.agents.node_of(peer.as_ref())?;
        let NodeReportRequest { proxy, pairs } = request.into_inner();
        let proxy = proxy.ok_or_else(|| Status::invalid_argument("the report has no proxy"))?;
        if (proxy.node.as_str(), proxy.revision.as_str()) != (node, self.agents.revision.as_str()) {
            return Err(Status::permission_denied(format!(
                "the agent of node {node} may not report for node {:?} and revision {:?}",
                proxy.node, proxy.revision
            )));
        }
        let now = now();
        check::check_node(&proxy, &pairs, now).map_err(Status::invalid_argument)?;
        let mut nodes = self.lock_nodes();
        let taken = nodes.record(proxy, pairs, now);
        self.show_nodes(&nodes);
        self.metrics.nodes.refused.inc_by(taken.map_err(Status::resource_exhausted)?);
        Ok(())
    }

    fn count(&self, taken: Result<(), Status>) -> Result<Response<ReportResponse>, Status> {
        match taken {
            Ok(()) => {
                count(&self.metrics.reports, "taken");
                Ok(Response::new(ReportResponse {}))
            }
            Err(status) => {
                count(&self.metrics.reports, "refused");
                tracing::warn!(code = ?status.code(), why = status.message(), "report refused");
                Err(status)
            }
        }
    }

    fn show_nodes(&self, nodes: &Nodes) {
        self.metrics.nodes.reporting.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
    }

    fn lock_nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, store: &Store) {
        self.metrics.reporting_proxies.set(i64::try_from(store.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[tonic::async_trait]
impl ReportService for Reports {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.count(self.take(request))
    }

    async fn report_node(
        &self,
        request: Request<NodeReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        self.count(self.take_node(request))
    }
}
