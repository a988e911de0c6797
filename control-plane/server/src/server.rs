//! The port for agents, and for the operator: what is offered there, and what it shares with the tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use jiff::Timestamp;
use meshwright_index::Output;
use meshwright_pki::SpiffeId;
use meshwright_pki::tls::{ClientAuth, DynamicIdentity, DynamicRoots, server_config};
use meshwright_proto::certificates::certificate_service_server::CertificateServiceServer;
use meshwright_proto::inspection::inspection_service_server::InspectionServiceServer;
use meshwright_proto::nodes::node_service_server::NodeServiceServer;
use meshwright_proto::reports::report_service_server::ReportServiceServer;
use meshwright_runtime::CancellationToken;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ads::{Ads, NodeRegistry, Registry, Streams};
use crate::args::Args;
use crate::certificates::{Callers, Certificates, Signer};
use crate::inspection::Inspection;
use crate::metrics::Metrics;
use crate::nacks::Nacks;
use crate::nodes::{self, Followers, Nodes};
use crate::reports::{MAX_REPORT, Reports};
use crate::run::named;
use crate::serving::{IssuingCa, IssuingCaFiles, ServingIdentity, accept, keep_fresh, watch_files};

/// Requests of agents are small.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Streams on one connection: an agent has one for ADS, that of a node another, and asks for a certificate now and then.
const MAX_STREAMS: u32 = 32;

/// What is offered to who shows a certificate.
pub(crate) struct Services {
    ads: Arc<Ads>,
    reports: Reports,
    inspection: Inspection,
    nodes: nodes::Parts,
}

/// What tasks and services have in common.
pub(crate) struct State {
    /// What gateways are given.
    pub registry: Registry,
    /// What nodes are given.
    pub nodes: NodeRegistry,
    /// What gateways refuse.
    pub nacks: Nacks,
    /// What gateways reported.
    pub reports: Reports,
    /// What nodes reported.
    pub followers: Followers,
    /// What the index says.
    pub outputs: watch::Receiver<Option<Arc<Output>>>,
}

impl State {
    /// Nothing is known yet.
    pub fn new(args: &Args, outputs: watch::Receiver<Option<Arc<Output>>>, metrics: &Metrics) -> Self {
        let registry = Registry::default();
        Self {
            nacks: Nacks::new(registry.clone()),
            registry,
            nodes: NodeRegistry::default(),
            reports: Reports::new(args.agents(), metrics),
            followers: Followers::default(),
            outputs,
        }
    }
}

impl Args {
    /// What is offered to who shows a certificate.
    pub(crate) fn services(&self, state: State, metrics: &Metrics, drain: &CancellationToken) -> Services {
        let State { registry, nodes, nacks, reports, followers, outputs } = state;
        let (streams, agents) = (Streams::default(), self.agents());
        Services {
            ads: Arc::new(Ads {
                registry: registry.clone(),
                nodes,
                nacks,
                agents: agents.clone(),
                metrics: metrics.clone(),
                drain: drain.clone(),
                streams: streams.clone(),
                next: AtomicU64::new(0),
            }),
            inspection: Inspection {
                operator: self.operator_id.clone(),
                registry,
                reports: reports.clone(),
                streams,
                metrics: metrics.clone(),
                started: Timestamp::now(),
            },
            reports,
            nodes: nodes::Parts {
                agents,
                followers,
                outputs,
                metrics: metrics.clone(),
                drain: drain.clone(),
            },
        }
    }

    /// The server for agents, and for the operator: everything on one port.
    pub(crate) fn serve(
        &self,
        client: kube::Client,
        listener: TcpListener,
        services: Services,
        metrics: Metrics,
        drain: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
        let (files, ca) = IssuingCaFiles::open(&self.issuing_ca_dir)?;
        let (ca_sender, ca_receiver) = watch::channel(Arc::new(ca));
        let mut helpers = JoinSet::new();
        let tls = self.tls(&ca_receiver, metrics.clone(), &mut helpers, &drain)?;
        named(&mut helpers, "watch of the issuing CA", watch_files(files, ca_sender, drain.clone()));
        let signer = Signer { ca: ca_receiver, ttl: self.workload_ttl, metrics };
        let agents = self.agents();
        let certificates = Certificates { callers: Callers::new(client), signer: signer.clone(), agents };
        let nodes = Nodes { parts: services.nodes, signer };
        let router = tonic::transport::Server::builder()
            .max_concurrent_streams(Some(MAX_STREAMS))
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(CertificateServiceServer::new(certificates).max_decoding_message_size(64 * 1024))
            .add_service(
                AggregatedDiscoveryServiceServer::from_arc(services.ads)
                    .max_decoding_message_size(MAX_REQUEST),
            )
            .add_service(ReportServiceServer::new(services.reports).max_decoding_message_size(MAX_REPORT))
            .add_service(NodeServiceServer::new(nodes).max_decoding_message_size(nodes::MAX_REPORT))
            .add_service(InspectionServiceServer::new(services.inspection).max_decoding_message_size(1024));
        let connections = accept(listener, tls, drain.clone());
        Ok(async move {
            let served = router.serve_with_incoming_shutdown(connections, drain.clone().cancelled_owned());
            let mut served = std::pin::pin!(served);
            tokio::select! {
                ended = &mut served => return ended.context("serve agents"),
                // Without them certificates would run out while everything looks well.
                Some(ended) = helpers.join_next() => {
                    let what = ended.context("a helper of the agents' server panicked")?;
                    anyhow::ensure!(drain.is_cancelled(), "{what} ended unexpectedly");
                }
            }
            served.await.context("serve agents")
        })
    }

    fn tls(
        &self,
        ca: &watch::Receiver<Arc<IssuingCa>>,
        metrics: Metrics,
        helpers: &mut JoinSet<&'static str>,
        drain: &CancellationToken,
    ) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let current = ca.borrow().clone();
        let identity = DynamicIdentity::default();
        let roots = DynamicRoots::new(&current.roots).context("read trust anchors")?;
        let serving = ServingIdentity {
            id: SpiffeId::workload(&self.trust_domain, &self.pod_namespace, self.account())?,
            dns_names: self.dns_names(),
            ttl: self.workload_ttl,
            identity: identity.clone(),
            roots: roots.clone(),
            metrics,
        };
        let due = serving.renew(&current)?;
        let keep_fresh = keep_fresh(serving, ca.clone(), due, drain.clone());
        named(helpers, "renewal of our certificate", keep_fresh);
        Ok(Arc::new(server_config(identity, roots, ClientAuth::Optional).context("configure TLS")?))
    }
}
