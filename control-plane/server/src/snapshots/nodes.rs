//! From the mesh to what the proxies of nodes should have: for nodes that have a stream here, and only when something changed for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwright_api::NodeSlot;
use meshwright_core::mesh::Mesh;
use meshwright_index::Output;
use meshwright_runtime::CancellationToken;
use meshwright_xds::mesh::{Ports, Shared, Telemetry, node};
use meshwright_xds::{Snapshot, TypeUrl};
use tokio::sync::watch;

use crate::ads::{NodeKey, NodeRegistry};
use crate::metrics::Metrics;

/// Least time between two passes; the first change after a pause does not wait. Every endpoint of the cluster is looked at in each.
const SPACING: Duration = Duration::from_millis(20);

/// Makes snapshots of meshes.
pub struct NodeTranslator {
    registry: NodeRegistry,
    metrics: Metrics,
    mesh: Arc<Mesh>,
    shared: Shared,
    /// What was published last.
    made: BTreeMap<NodeKey, Arc<Snapshot>>,
    /// Snapshots since the start.
    generation: u64,
}

impl NodeTranslator {
    /// Publishes to this registry what proxies of this trust domain should have; `telemetry` is what they tell.
    pub fn new(registry: NodeRegistry, trust_domain: &str, telemetry: Telemetry, metrics: Metrics) -> Self {
        Self {
            registry,
            metrics,
            mesh: Arc::default(),
            shared: Shared::new(trust_domain).with_telemetry(telemetry),
            made: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Follows the index until `drain` is cancelled.
    pub async fn run(mut self, mut outputs: watch::Receiver<Option<Arc<Output>>>, drain: CancellationToken) {
        let registry = self.registry.clone();
        loop {
            // Before everything was listed proxies keep what they have.
            let output = outputs.borrow_and_update().clone();
            if let Some(output) = output {
                self.publish(&output.mesh);
            }
            let due = tokio::time::Instant::now() + SPACING;
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
                () = registry.came() => {}
            }
            tokio::select! {
                () = drain.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Brings every node that has a stream up to date.
    pub fn publish(&mut self, mesh: &Arc<Mesh>) {
        let open = self.registry.open();
        self.made.retain(|key, _| open.contains(key));
        if open.is_empty() {
            return;
        }
        let known = std::mem::replace(&mut self.mesh, mesh.clone());
        if !self.shared.is_of(mesh) {
            let start = Instant::now();
            self.shared = self.shared.next(mesh);
            self.metrics.nodes.translation_seconds.observe(start.elapsed().as_secs_f64());
        }
        let is_known = Arc::ptr_eq(&known, mesh);
        for key in open {
            if !is_known || !self.made.contains_key(&key) {
                self.publish_node(key);
            }
        }
    }

    /// What did not change costs next to nothing here: what all nodes have is made already, and listeners are remembered.
    fn publish_node(&mut self, key: NodeKey) {
        let mut snapshot = node(&self.shared, &self.mesh, &key.0, ports(key.1));
        if self.made.get(&key).is_some_and(|known| is_same(known, &snapshot)) {
            return;
        }
        self.generation += 1;
        snapshot.set_generation(self.generation);
        let snapshot = Arc::new(snapshot);
        self.registry.publish(&key, snapshot.clone());
        self.made.insert(key, snapshot);
    }
}

/// Whether both have the same resources, by their addresses.
fn is_same(one: &Snapshot, other: &Snapshot) -> bool {
    TypeUrl::ALL.iter().all(|kind| match (one.resources(*kind), other.resources(*kind)) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    })
}

fn ports(slot: NodeSlot) -> Ports {
    let ports = slot.ports();
    Ports { outbound: ports.outbound, inbound: ports.inbound }
}

#[cfg(test)]
mod tests;
