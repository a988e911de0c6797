//! From the index's output to snapshots, once per Gateway and only for Gateways that something changed for.

mod made;
mod nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::ClusterRef;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::{ObjectKey, difference};
use meshwright_index::{GatewayOutput, Index, Output};
use meshwright_runtime::CancellationToken;
use meshwright_xds::envoy::Backends;
use tokio::time::Instant;

use self::made::{AllBackends, Made};
use crate::ads::Registry;
use crate::metrics::Metrics;
use crate::nacks::Nacks;

pub use nodes::NodeTranslator;

/// Makes snapshots of outputs.
pub struct Translator {
    made: BTreeMap<ObjectKey, Made>,
    /// What was published last.
    output: Arc<Output>,
    /// The same, with who of the endpoints is in the mesh.
    backends: AllBackends,
    registry: Registry,
    nacks: Nacks,
    metrics: Metrics,
}

impl Translator {
    /// Publishes to this registry.
    pub fn new(registry: Registry, nacks: Nacks, metrics: Metrics) -> Self {
        Self {
            made: BTreeMap::new(),
            output: Arc::default(),
            backends: AllBackends::new(),
            registry,
            nacks,
            metrics,
        }
    }

    /// Follows the index until `drain` is cancelled.
    pub async fn run(mut self, index: Index, drain: CancellationToken) {
        let mut outputs = index.output();
        let mut kept = BTreeSet::new();
        loop {
            let output = outputs.borrow_and_update().clone();
            if let Some(output) = output {
                self.publish(output);
            }
            let lingering = self.lingering();
            if lingering != kept {
                index.keep_clusters(lingering.clone()).await;
                kept = lingering;
            }
            let expiry = self.next_expiry();
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
                () = until(expiry) => self.expire(Instant::now()),
            }
        }
    }

    /// Brings every Gateway up to date.
    pub fn publish(&mut self, output: Arc<Output>) {
        let last = std::mem::replace(&mut self.output, output.clone());
        let moved = self.follow_backends(&last, &output);
        for (key, gateway) in &output.gateways {
            self.publish_gateway(key, gateway, &moved);
        }
        let before = self.made.len();
        self.made.retain(|key, _| output.gateways.contains_key(key));
        if before != self.made.len() {
            self.registry.retain(|key| output.gateways.contains_key(key));
        }
        self.registry.completed();
        // A resource that is gone cannot be refused any more.
        self.nacks.recheck();
    }

    /// Returns the clusters whose backends are others than before.
    fn follow_backends(&mut self, last: &Output, output: &Output) -> Vec<Arc<ClusterRef>> {
        let peers = &output.mesh.peers;
        let is_same = |one: &Arc<Endpoints>, other: &Arc<Endpoints>| {
            Arc::ptr_eq(one, other) && Arc::ptr_eq(&last.mesh.peers, peers)
        };
        let touched: Vec<_> = difference(&last.endpoints, &output.endpoints, is_same).cloned().collect();
        let moves = |cluster: &Arc<ClusterRef>| {
            let found = output.endpoints.get(cluster).map(|found| Backends::new(found.clone(), peers));
            if self.backends.get(cluster).map(AsRef::as_ref) == found.as_ref() {
                return false;
            }
            match found {
                Some(found) => self.backends.insert(cluster.clone(), Arc::new(found)),
                None => self.backends.remove(cluster),
            };
            true
        };
        touched.into_iter().filter(moves).collect()
    }

    fn publish_gateway(&mut self, key: &ObjectKey, gateway: &Arc<GatewayOutput>, moved: &[Arc<ClusterRef>]) {
        if !self.made.contains_key(key) {
            self.made.insert(key.clone(), Made::default());
        }
        let Some(made) = self.made.get_mut(key) else { return };
        if made.is_of(gateway) {
            if !made.follow_backends(moved, &self.backends) {
                return;
            }
        } else {
            let start = std::time::Instant::now();
            made.follow(gateway, moved, &self.backends, self.nacks.is_behind(key), Instant::now());
            self.metrics.translated(start.elapsed());
        }
        self.registry.publish(key, made.snapshot().clone(), gateway.config.clone());
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.made.values().filter_map(Made::next_expiry).min()
    }

    /// Every cluster that lingers somewhere.
    fn lingering(&self) -> BTreeSet<ClusterRef> {
        self.made.values().flat_map(Made::lingering).cloned().collect()
    }

    /// Takes away the clusters that lingered long enough.
    fn expire(&mut self, now: Instant) {
        for (key, made) in &mut self.made {
            let Some(gateway) = self.output.gateways.get(key) else { continue };
            if made.expire(self.nacks.is_behind(key), now) {
                self.registry.publish(key, made.snapshot().clone(), gateway.config.clone());
            }
        }
    }
}

/// Sleeps until then; for ever if there is no such time.
pub(crate) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(crate) mod tests;
