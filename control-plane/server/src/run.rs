//! Puts the parts together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_core::ControllerConfig;
use meshwright_index::{Index, Setup};
use meshwright_k8s::lease::{self, Leadership, LeaseConfig, LeaseHandle};
use meshwright_runtime::{CancellationToken, Readiness, Shutdown, admin, telemetry};
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::args::Args;
use crate::metrics::Metrics;
use crate::nacks::Shared;
use crate::nodes::{Captured, Troubles};
use crate::server::State;
use crate::snapshots::{NodeTranslator, Translator};
use crate::status::{Events, Writer};

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
        let recorder = self.recorder(client.clone());
        let admin = admin::Admin::new(readiness.clone(), Arc::new(metrics_registry), telemetry.level());
        let admin = admin.serve(self.admin.admin_addr, drain.clone());
        let admin = tokio::spawn(async { admin.await.context("serve admin") });
        // None of these may end before the process: what is left would look healthy and serve a world that stands still.
        let mut tasks = JoinSet::new();
        #[cfg(feature = "faults")]
        crate::faults::start(&mut tasks)?;

        let index = Index::spawn(
            Setup {
                client: client.clone(),
                recorder: recorder.clone(),
                controller: ControllerConfig::default(),
                mesh: self.mesh(),
                readiness,
                metrics: index_metrics,
            },
            &mut tasks,
            &drain,
        );
        let state = State::new(&self, index.output(), &metrics);
        let translator = Translator::new(state.registry.clone(), state.nacks.clone(), metrics.clone());
        named(&mut tasks, "translator", translator.run(index.clone(), drain.clone()));
        self.spawn_nodes(&state, client.clone(), recorder.clone(), &metrics, &mut tasks, &drain);
        let events = Events::new(recorder, index.live().clone());
        let mut lease = lease::spawn(client.clone(), self.status_lease(), drain.clone());
        let shared = self.shared(client.clone(), lease.leadership());
        let report = state.nacks.clone().report(index.clone(), events.clone(), shared, drain.clone());
        named(&mut tasks, "report of refusals", report);
        let writer = Writer::new(client.clone(), lease.leadership(), &index, events, metrics.clone());
        named(&mut tasks, "status writer", writer.run(drain.clone()));

        named(&mut tasks, "end of old reports", state.reports.clone().forget(drain.clone()));
        let services = self.services(state, &metrics, &drain);
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

    /// What goes on for nodes besides their streams.
    fn spawn_nodes(
        &self,
        state: &State,
        client: kube::Client,
        recorder: Recorder,
        metrics: &Metrics,
        tasks: &mut JoinSet<&'static str>,
        drain: &CancellationToken,
    ) {
        let State { nodes, nacks, followers, outputs, .. } = state;
        let (domain, telemetry) = (&self.trust_domain, self.proxy_telemetry());
        let translator =
            NodeTranslator::new(nodes.clone(), nacks.clone(), domain, telemetry, metrics.clone());
        named(tasks, "translator of nodes", translator.run(outputs.clone(), drain.clone()));
        let (followers, outputs) = (followers.clone(), outputs.clone());
        let captured = Captured::new(client, &self.pod_namespace, followers, outputs, metrics.clone());
        named(tasks, "writer of MeshNodes", captured.run(drain.clone()));
        let troubles = Troubles::new(recorder, state.followers.clone(), state.outputs.clone());
        named(tasks, "events on pods", troubles.run(drain.clone()));
    }
}

/// Runs a part that may not end before the process does, and says which it was if it does.
pub(crate) fn named(
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
