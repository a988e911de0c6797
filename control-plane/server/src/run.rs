//! Puts the parts together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_core::ControllerConfig;
use meshwright_index::{Index, Setup};
use meshwright_k8s::lease::{self, LeaseConfig, LeaseHandle};
use meshwright_pki::SpiffeId;
use meshwright_pki::tls::{ClientAuth, DynamicIdentity, DynamicRoots, server_config};
use meshwright_proto::certificates::certificate_service_server::CertificateServiceServer;
use meshwright_runtime::{CancellationToken, Readiness, Shutdown, admin, telemetry};
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::ads::{self, Registry};
use crate::args::Args;
use crate::certificates::{Callers, Certificates};
use crate::metrics::Metrics;
use crate::nacks::Nacks;
use crate::serving::{IssuingCa, IssuingCaFiles, ServingIdentity, accept, keep_fresh, watch_files};
use crate::snapshots::Translator;
use crate::status::{Events, Writer};

/// Requests of agents are small.
const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// How long a stop may take.
const STOP: Duration = Duration::from_secs(5);

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
        let recorder = Recorder::new(
            client.clone(),
            Reporter {
                controller: "meshwright-control-plane".to_owned(),
                instance: Some(self.pod_name.clone()),
            },
        );
        let admin = admin::Admin::new(readiness.clone(), Arc::new(metrics_registry), telemetry.level());
        let admin = tokio::spawn(admin.serve(self.admin.admin_addr, drain.clone()));

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
            &drain,
        );
        let translator = Translator::new(registry.clone(), nacks.clone(), metrics.clone());
        tokio::spawn(translator.run(index.output(), drain.clone()));
        let events = Events::new(recorder, index.live().clone());
        tokio::spawn(nacks.clone().report(index.clone(), events.clone(), drain.clone()));

        let lease = lease::spawn(client.clone(), self.status_lease(), drain.clone());
        let writer = Writer::new(client.clone(), lease.leadership(), &index, events, metrics.clone());
        let writer = tokio::spawn(writer.run(drain.clone()));

        let ads = ads::service(registry, nacks, &self.trust_domain, &metrics, &drain);
        let listener =
            TcpListener::bind(self.xds_addr).await.with_context(|| format!("bind {}", self.xds_addr))?;
        let mut server = tokio::spawn(self.serve(client, listener, ads, metrics, drain.clone())?);
        starting.ready();

        tokio::select! {
            ended = &mut server => ended.context("agents' server panicked")??,
            ended = admin => ended.context("admin server panicked")??,
            ended = writer => ended.context("status writer panicked")?,
            () = drain.cancelled() => {}
        }
        anyhow::ensure!(drain.is_cancelled(), "a part of the control plane ended unexpectedly");
        stop(lease, server, shutdown.force()).await;
        tracing::info!("stopped");
        Ok(())
    }

    fn status_lease(&self) -> LeaseConfig {
        let name = meshwright_api::names::status_lease(&self.mesh_name);
        LeaseConfig::for_revision(&self.pod_namespace, name, &self.pod_name, &self.revision)
    }

    /// The server for agents: certificates and ADS on one port.
    pub(crate) fn serve(
        &self,
        client: kube::Client,
        listener: TcpListener,
        ads: Arc<ads::Ads>,
        metrics: Metrics,
        drain: CancellationToken,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
        let (files, ca) = IssuingCaFiles::open(&self.issuing_ca_dir)?;
        let (ca_sender, ca_receiver) = watch::channel(Arc::new(ca));
        let tls = self.tls(&ca_receiver, metrics.clone(), &drain)?;
        tokio::spawn(watch_files(files, ca_sender, drain.clone()));
        let certificates = Certificates {
            callers: Callers::new(client),
            ca: ca_receiver,
            trust_domain: self.trust_domain.clone(),
            ttl: self.workload_ttl,
            metrics,
        };
        let router = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(CertificateServiceServer::new(certificates).max_decoding_message_size(64 * 1024))
            .add_service(
                AggregatedDiscoveryServiceServer::from_arc(ads).max_decoding_message_size(MAX_REQUEST),
            );
        let connections = accept(listener, tls, drain.clone());
        Ok(async move {
            router
                .serve_with_incoming_shutdown(connections, drain.cancelled_owned())
                .await
                .context("serve agents")
        })
    }

    fn tls(
        &self,
        ca: &watch::Receiver<Arc<IssuingCa>>,
        metrics: Metrics,
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
        tokio::spawn(keep_fresh(serving, ca.clone(), due, drain.clone()));
        Ok(Arc::new(server_config(identity, roots, ClientAuth::Optional).context("configure TLS")?))
    }
}

/// Gives the Lease back before going, so that the next holder need not wait for it to expire, and ends what agents have under way.
async fn stop(
    mut lease: LeaseHandle,
    server: tokio::task::JoinHandle<anyhow::Result<()>>,
    force: CancellationToken,
) {
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
