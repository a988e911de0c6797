//! Puts the parts together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use jiff::Timestamp;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_core::ControllerConfig;
use meshwright_index::{Index, Setup};
use meshwright_k8s::lease::{self, Leadership, LeaseConfig, LeaseHandle};
use meshwright_pki::SpiffeId;
use meshwright_pki::tls::{ClientAuth, DynamicIdentity, DynamicRoots, server_config};
use meshwright_proto::certificates::certificate_service_server::CertificateServiceServer;
use meshwright_proto::inspection::inspection_service_server::InspectionServiceServer;
use meshwright_proto::reports::report_service_server::ReportServiceServer;
use meshwright_runtime::{CancellationToken, Readiness, Shutdown, admin, telemetry};
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::ads::{self, Registry, Streams};
use crate::args::Args;
use crate::certificates::{Callers, Certificates};
use crate::inspection::Inspection;
use crate::metrics::Metrics;
use crate::nacks::{Nacks, Shared};
use crate::reports::{MAX_REPORT, Reports};
use crate::serving::{IssuingCa, IssuingCaFiles, ServingIdentity, accept, keep_fresh, watch_files};
use crate::snapshots::Translator;
use crate::status::{Events, Writer};

/// Requests of agents are small.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Streams on one connection: an agent has one for ADS and asks for a certificate now and then.
const MAX_STREAMS: u32 = 32;
/// How long a stop may take.
const STOP: Duration = Duration::from_secs(5);

/// What is offered to who shows a certificate.
pub(crate) struct Services {
    ads: Arc<ads::Ads>,
    reports: Reports,
    inspection: Inspection,
}

impl Args {
    /// Runs the control plane until it is told to stop.
    ///
    /// # Errors
    /// When it cannot start, or a part of it that cannot be done without has ended.
    pub async fn run(self) -> anyhow::Result<()> {
        let telemetry = telemetry::init("control-plane", &self.telemetry)?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            revision = self.revision,
            mesh = self.mesh_name,
            "starting"
        );
        let shutdown = Shutdown::on_signals()?;
        let drain = shutdown.drain();
        let readiness = Readiness::default();
        let starting = readiness.guard("server");
        let mut metrics_registry = MetricsRegistry::default();
        let metrics = Metrics::register(&mut metrics_registry);
        let index_metrics = meshwright_index::Metrics::register(&mut metrics_registry);
        let client = kube::Client::try_default().await.context("find the API server")?;
        let recorder = self.recorder(client.clone());
        let admin = admin::Admin::new(readiness.clone(), Arc::new(metrics_registry), telemetry.level());
        let admin = admin.serve(self.admin.admin_addr, drain.clone());
        let admin = tokio::spawn(async { admin.await.context("serve admin") });
        // None of these may end before the process: what is left would look healthy and serve a world that stands still.
        let mut tasks = JoinSet::new();
        #[cfg(feature = "faults")]
        crate::faults::start(&mut tasks)?;

        let registry = Registry::default();
        let nacks = Nacks::new(registry.clone());
        let index = Index::spawn(
            Setup {
                client: client.clone(),
                recorder: recorder.clone(),
                controller: ControllerConfig::default(),
                readiness,
                metrics: index_metrics,
            },
            &mut tasks,
            &drain,
        );
        let translator = Translator::new(registry.clone(), nacks.clone(), metrics.clone());
        named(&mut tasks, "translator", translator.run(index.clone(), drain.clone()));
        let events = Events::new(recorder, index.live().clone());
        let mut lease = lease::spawn(client.clone(), self.status_lease(), drain.clone());
        let shared = self.shared(client.clone(), lease.leadership());
        let report = nacks.clone().report(index.clone(), events.clone(), shared, drain.clone());
        named(&mut tasks, "report of refusals", report);
        let writer = Writer::new(client.clone(), lease.leadership(), &index, events, metrics.clone());
        named(&mut tasks, "status writer", writer.run(drain.clone()));

        let reports = Reports::new(&self.trust_domain, &metrics);
        named(&mut tasks, "end of old reports", reports.clone().forget(drain.clone()));
        let services = self.services(registry, nacks, reports, &metrics, &drain);
        let listener =
            TcpListener::bind(self.xds_addr).await.with_context(|| format!("bind {}", self.xds_addr))?;
        let mut server = tokio::spawn(self.serve(client, listener, services, metrics, drain.clone())?);
        starting.ready();

        supervise(&mut server, admin, &mut tasks, &mut lease, &drain).await?;
        stop(lease, server, shutdown.force()).await;
        tracing::info!("stopped");
        Ok(())
    }

    fn recorder(&self, client: kube::Client) -> Recorder {
        let instance = Some(self.pod_name.clone());
        Recorder::new(client, Reporter { controller: "meshwright-control-plane".to_owned(), instance })
    }

    fn status_lease(&self) -> LeaseConfig {
        let name = meshwright_api::names::status_lease(&self.mesh_name);
        LeaseConfig::for_revision(&self.pod_namespace, name, &self.pod_name, &self.revision)
    }

    fn shared(&self, client: kube::Client, leadership: Leadership) -> Shared {
        let lease = meshwright_api::names::status_lease(&self.mesh_name);
        Shared::new(client, &self.pod_namespace, lease, &self.pod_name, leadership)
    }

    /// What is offered to who shows a certificate.
    pub(crate) fn services(
        &self,
        registry: Registry,
        nacks: Nacks,
        reports: Reports,
        metrics: &Metrics,
        drain: &CancellationToken,
    ) -> Services {
        let streams = Streams::default();
        Services {
            ads: ads::service(registry.clone(), nacks, streams.clone(), &self.trust_domain, metrics, drain),
            inspection: Inspection {
                operator: self.operator_id.clone(),
                registry,
                reports: reports.clone(),
                streams,
                metrics: metrics.clone(),
                started: Timestamp::now(),
            },
            reports,
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
        let certificates = Certificates {
            callers: Callers::new(client),
            ca: ca_receiver,
            trust_domain: self.trust_domain.clone(),
            ttl: self.workload_ttl,
            metrics,
        };
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

/// Runs a part that may not end before the process does, and says which it was if it does.
fn named(
    tasks: &mut JoinSet<&'static str>,
    name: &'static str,
    part: impl Future<Output = ()> + Send + 'static,
) {
    tasks.spawn(async move {
        part.await;
        name
    });
}

/// Waits until the process is told to stop. An error if any part ends before: a restart mends what half a control plane does not.
pub(crate) async fn supervise(
    server: &mut JoinHandle<anyhow::Result<()>>,
    admin: JoinHandle<anyhow::Result<()>>,
    tasks: &mut JoinSet<&'static str>,
    lease: &mut LeaseHandle,
    drain: &CancellationToken,
) -> anyhow::Result<()> {
    let what = tokio::select! {
        // A stop is looked for first: after it everything ends, and rightly so.
        biased;
        () = drain.cancelled() => return Ok(()),
        ended = server => {
            ended.context("agents' server panicked")??;
            "agents' server"
        }
        ended = admin => {
            ended.context("admin server panicked")??;
            "admin server"
        }
        Some(ended) = tasks.join_next() => ended.context("a part of the control plane panicked")?,
        // A Lease that is lost is contended for again, so the election has no reason to end.
        ended = lease.ended() => {
            ended.context("contend for the status lease")?;
            "election for the status lease"
        }
    };
    anyhow::bail!("{what} ended unexpectedly")
}

/// Gives the Lease back before going, so that the next holder need not wait for it to expire, and ends what agents have under way.
async fn stop(mut lease: LeaseHandle, server: JoinHandle<anyhow::Result<()>>, force: CancellationToken) {
    let ended = async {
        if let Err(error) = lease.ended().await {
            tracing::warn!(%error, "could not give the lease back");
        }
        if !server.is_finished() {
            // Its result would say no more than that the process was told to stop.
            let _ = server.await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = force.cancelled() => {}
        () = tokio::time::sleep(STOP) => tracing::warn!("stopping without waiting any longer"),
    }
}
