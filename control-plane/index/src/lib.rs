//! From watches to configuration: holds the model of the cluster, resolves it when it changes, and publishes what proxies should do and
//! what statuses should say.
//!
//! One task owns the model; everything else talks to it over channels. An event is taken in at once when nothing is going on and together
//! with its neighbours when much is; an EndpointSlice, a Pod or a MeshNode never leads to a resolution of Gateways. Nothing is published before every kind was listed
//! once: half a world would take routes away from proxies that have them.

mod apply;
mod convert;
mod event;
mod live;
mod metrics;
mod output;
mod patience;
mod secrets;
mod sources;
mod store;
mod task;
#[cfg(test)]
mod tests;
mod understood;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::ClusterRef;
use meshwright_core::mesh::{MeshResolver, Rules};
use meshwright_core::model::ObjectId;
use meshwright_core::status::Statuses;
use meshwright_core::{ControllerConfig, Resolver};
use meshwright_runtime::{CancellationToken, Readiness};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use live::{Live, LiveObjects, Touched};
pub use metrics::Metrics;
pub use output::{GatewayOutput, Output};

/// How many updates may wait for the task; a watch that is ahead of it waits too.
const EVENTS: usize = 1024;

/// What the index needs.
pub struct Setup {
    /// Reads everything.
    pub client: kube::Client,
    /// For Events about objects that do not decode.
    pub recorder: kube::runtime::events::Recorder,
    /// What is ours.
    pub controller: ControllerConfig,
    /// The mesh between services; None for one of gateways only, where no pods, MeshNodes, GRPCRoutes and TCPRoutes are read and
    /// routes have no Services as parents.
    pub mesh: Option<MeshSetup>,
    /// Gets a guard for each kind until it was listed.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Metrics,
}

impl Setup {
    /// Without a mesh nothing of Services as parents is ours.
    fn controller(&self) -> ControllerConfig {
        let has_mesh = self.controller.has_mesh && self.mesh.is_some();
        ControllerConfig { has_mesh, ..self.controller.clone() }
    }
}

/// The mesh whose control plane this is.
pub struct MeshSetup {
    /// Where its MeshNodes are.
    pub namespace: String,
    /// SPIFFE trust domain of the pods' identities.
    pub trust_domain: String,
    /// What decides about membership besides labels.
    pub rules: Rules,
}

/// A running index.
#[derive(Clone)]
pub struct Index {
    output: watch::Receiver<Option<Arc<Output>>>,
    statuses: watch::Receiver<Option<Arc<Statuses>>>,
    live: LiveObjects,
    events: mpsc::Sender<event::Event>,
}

impl Index {
    /// Starts the watches and the task as `tasks`, with their names; all end when `drain` is cancelled, and none may end before.
    pub fn spawn(setup: Setup, tasks: &mut JoinSet<&'static str>, drain: &CancellationToken) -> Self {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (output_sender, output) = watch::channel(None);
        let (statuses_sender, statuses) = watch::channel(None);
        let live = LiveObjects::default();
        let awaited = sources::spawn(&setup, &events, tasks, drain);
        let secrets = secrets::SecretWatches::new(setup.client.clone(), events.clone(), drain.clone());
        let controller = setup.controller();
        let (rules, trust_domain) = match setup.mesh {
            Some(mesh) => (mesh.rules, mesh.trust_domain),
            None => Default::default(),
        };
        let task = task::Task {
            store: store::Store::new(live.clone()),
            resolver: Resolver::new(controller),
            mesh: MeshResolver::new(rules, trust_domain),
            routes: Arc::default(),
            metrics: setup.metrics,
            awaited,
            secrets,
            patience: patience::Patience::default(),
            output: output_sender,
            statuses: statuses_sender,
        };
        let run = task.run(receiver, drain.clone());
        tasks.spawn(async {
            run.await;
            "index"
        });
        Self { output, statuses, live, events }
    }

    /// What the proxies should do; None until everything was listed once.
    pub fn output(&self) -> watch::Receiver<Option<Arc<Output>>> {
        self.output.clone()
    }

    /// What the statuses should say; None until everything was listed once.
    pub fn statuses(&self) -> watch::Receiver<Option<Arc<Statuses>>> {
        self.statuses.clone()
    }

    /// The objects whose status is ours to write, as last seen.
    pub fn live(&self) -> &LiveObjects {
        &self.live
    }

    /// Asks for the endpoints of these clusters, whether a Gateway names them or not: proxies may still know them.
    pub async fn keep_clusters(&self, clusters: BTreeSet<ClusterRef>) {
        // As below.
        let _ = self.events.send(event::Event::Kept(clusters)).await;
    }

    /// Says which objects' configuration proxies refuse at the moment; they appear in the statuses.
    pub async fn set_rejections(&self, rejections: BTreeMap<ObjectId, String>) {
        // Fails only when the index has ended, and then there is nobody to tell.
        let _ = self.events.send(event::Event::Rejections(rejections)).await;
    }
}
