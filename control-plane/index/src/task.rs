//! The task that owns the model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshwright_core::config::ServiceRoutes;
use meshwright_core::mesh::MeshResolver;
use meshwright_core::status::Statuses;
use meshwright_core::{Resolution, Resolver};
use meshwright_runtime::{CancellationToken, ReadyGuard};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::event::Event;
use crate::metrics::Metrics;
use crate::output::Output;
use crate::patience::Patience;
use crate::secrets::SecretWatches;
use crate::store::{Change, Store};

/// Least time between two publications. The first event after a pause does not wait at all.
const SPACING: Duration = Duration::from_millis(5);

pub(crate) struct Task {
    pub(crate) store: Store,
    pub(crate) resolver: Resolver,
    pub(crate) mesh: MeshResolver,
    /// What the last resolution made of routes for Services.
    pub(crate) routes: Arc<ServiceRoutes>,
    pub(crate) metrics: Metrics,
    /// Kinds that were not listed yet.
    pub(crate) awaited: BTreeMap<&'static str, ReadyGuard>,
    pub(crate) secrets: SecretWatches,
    pub(crate) patience: Patience,
    pub(crate) output: watch::Sender<Option<Arc<Output>>>,
    pub(crate) statuses: watch::Sender<Option<Arc<Statuses>>>,
}

impl Task {
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>, drain: CancellationToken) {
        let mut change = Change { structural: true, ..Change::default() };
        let mut published: Option<Instant> = None;
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                event = events.recv() => match event {
                    Some(event) => self.take(event, &mut change),
                    None => return,
                },
                () = until(self.patience.until()) => change.structural = true,
            }
            let mut due = published.map(|last| last + SPACING).unwrap_or_else(Instant::now);
            // What is here already belongs to the same publication; what comes until it is due, too.
            loop {
                while let Ok(event) = events.try_recv() {
                    self.take(event, &mut change);
                }
                if Instant::now() >= due {
                    break;
                }
                tokio::select! {
                    () = drain.cancelled() => return,
                    () = sleep_until(due) => {}
                    event = events.recv() => match event {
                        Some(event) => self.take(event, &mut change),
                        None => due = Instant::now(),
                    },
                }
            }
            if self.awaited.is_empty() && !change.is_empty() {
                self.publish(&std::mem::take(&mut change));
                published = Some(Instant::now());
            }
        }
    }

    fn take(&mut self, event: Event, change: &mut Change) {
        self.metrics.events.inc();
        let listed = event.listed();
        change.merge(self.store.apply(event));
        if let Some(what) = listed {
            self.awaited.remove(what);
        }
    }

    fn publish(&mut self, change: &Change) {
        let known = self.output.borrow().clone().unwrap_or_default();
        if change.structural {
            self.resolve(&known, change);
            return;
        }
        let moved = known.with_endpoints(&self.store.world, &change.endpoints, &self.store.kept);
        if moved.is_some() {
            self.metrics.endpoint_updates.inc();
        }
        let mut output = moved.unwrap_or_else(|| (*known).clone());
        if !change.mesh.is_empty() {
            self.resolve_mesh(&mut output, change);
        }
        if output.differs(&known) {
            self.output.send_replace(Some(Arc::new(output)));
        }
    }

    fn resolve_mesh(&mut self, output: &mut Output, change: &Change) {
        let start = std::time::Instant::now();
        output.mesh = self.mesh.resolve(&self.store.world, &change.mesh, &self.routes);
        self.metrics.mesh(&output.mesh, start.elapsed());
        let policies = self.mesh.statuses();
        self.statuses.send_if_modified(|statuses| {
            // Before the first resolution of everything there are none to add to.
            let Some(all) = statuses.as_mut().filter(|all| !Arc::ptr_eq(&all.policies, &policies)) else {
                return false;
            };
            Arc::make_mut(all).policies = policies;
            true
        });
    }

    fn resolve(&mut self, known: &Output, change: &Change) {
        let start = std::time::Instant::now();
        let mut resolution = self.resolver.resolve(&self.store.world);
        self.hold(&mut resolution, known);
        self.metrics.resolutions.inc();
        self.metrics.gateways.set(i64::try_from(resolution.gateways.len()).unwrap_or(i64::MAX));
        self.metrics
            .http_routes
            .set(i64::try_from(resolution.statuses.http_routes.len()).unwrap_or(i64::MAX));
        self.metrics
            .grpc_routes
            .set(i64::try_from(resolution.statuses.grpc_routes.len()).unwrap_or(i64::MAX));
        self.metrics.tcp_routes.set(i64::try_from(resolution.statuses.tcp_routes.len()).unwrap_or(i64::MAX));
        let (world, kept) = (&self.store.world, &self.store.kept);
        let mut output = known.resolved(resolution.gateways, world, &change.endpoints, kept);
        let routes = std::mem::replace(&mut self.routes, resolution.services);
        if !change.mesh.is_empty() || !Arc::ptr_eq(&routes, &self.routes) {
            self.resolve_mesh(&mut output, change);
        }
        // Proxies first: nobody waits for a status as a client waits for a route.
        if self.output.borrow().is_none() || output.differs(known) {
            self.output.send_replace(Some(Arc::new(output)));
        }
        resolution.statuses.policies = self.mesh.statuses();
        self.metrics.resolution_seconds.observe(start.elapsed().as_secs_f64());
        self.statuses.send_if_modified(|statuses| {
            let changed = statuses.as_deref() != Some(&resolution.statuses);
            if changed {
                *statuses = Some(Arc::new(resolution.statuses));
            }
            changed
        });
        self.secrets.set(&resolution.secrets);
        // A Secret that nobody refers to is forgotten at once, key and all.
        self.store.world.secrets.retain(|key, _| resolution.secrets.contains(key));
    }

    /// Gateways that wait for Secrets keep what they had; those that had nothing are not mentioned, which leaves their proxies and their
    /// statuses alone.
    fn hold(&mut self, resolution: &mut Resolution, known: &Output) {
        let statuses = self.statuses.borrow().clone();
        for key in self.patience.held(&resolution.undecided, Instant::now()) {
            match known.gateways.get(&key) {
                Some(gateway) => resolution.gateways.insert(key.clone(), gateway.config.clone()),
                None => resolution.gateways.remove(&key),
            };
            match statuses.as_ref().and_then(|statuses| statuses.gateways.get(&key)) {
                Some(status) => resolution.statuses.gateways.insert(key, status.clone()),
                None => resolution.statuses.gateways.remove(&key),
            };
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
