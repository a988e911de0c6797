//! From the mesh to what the proxies of nodes should have: for nodes that have a stream here, and only when something changed for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meshwright_api::NodeSlot;
use meshwright_core::mesh::Mesh;
use meshwright_index::Output;
use meshwright_runtime::CancellationToken;
use meshwright_xds::mesh::{Ports, Shared, Telemetry, node};
use meshwright_xds::{Snapshot, TypeUrl};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ads::{NodeKey, NodeRegistry};
use crate::metrics::Metrics;
use crate::nacks::Nacks;
use crate::snapshots::until;

/// Least time between two passes; the first change after a pause does not wait. Every endpoint of the cluster is looked at in each.
const SPACING: Duration = Duration::from_millis(20);

/// Makes snapshots of meshes.
pub struct NodeTranslator {
    registry: NodeRegistry,
    nacks: Nacks,
    metrics: Metrics,
    mesh: Arc<Mesh>,
    shared: Shared,
    /// What was published last.
    made: BTreeMap<NodeKey, Arc<Snapshot>>,
    /// Snapshots since the start.
    generation: u64,
}

impl NodeTranslator {
    /// Publishes to this registry what proxies of this trust domain should have; `telemetry` is what they tell. Which routes the tables of
    /// routes have, `nacks` is told.
    pub fn new(
        registry: NodeRegistry,
        nacks: Nacks,
        trust_domain: &str,
        telemetry: Telemetry,
        metrics: Metrics,
    ) -> Self {
        Self {
            registry,
            nacks,
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
            let (due, end) = (Instant::now() + SPACING, self.shared.next_end());
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
                () = registry.came() => {}
                () = until(end) => {}
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
            // Its time would be over again and again otherwise.
            self.shared.let_go(Instant::now());
            return;
        }
        let known = std::mem::replace(&mut self.mesh, mesh.clone());
        if !self.shared.is_of(mesh) {
            let start = std::time::Instant::now();
            self.shared = self.shared.next(mesh);
            self.metrics.nodes.translation_seconds.observe(start.elapsed().as_secs_f64());
            let versions = [self.shared.version_of_routes(), self.shared.version_of_connections()];
            self.nacks.published(versions, &mesh.routes);
        }
        let has_let_go = self.shared.let_go(Instant::now());
        let is_known = Arc::ptr_eq(&known, mesh) && !has_let_go;
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
