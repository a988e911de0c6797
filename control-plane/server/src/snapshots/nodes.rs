//! From the mesh to what the proxies of nodes should have: for nodes that have a stream here, and only when something changed for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stub::{Ports, Shared, node};
use meshwright_api::NodeSlot;
use meshwright_core::mesh::{Mesh, Node};
use meshwright_index::Output;
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;

use crate::ads::{NodeKey, NodeRegistry};
use crate::metrics::Metrics;

/// What a node's snapshot was made from, besides what all have in common.
type Source = Option<Arc<Node>>;

/// Makes snapshots of meshes.
pub struct NodeTranslator {
    registry: NodeRegistry,
    metrics: Metrics,
    mesh: Arc<Mesh>,
    shared: Shared,
    made: BTreeMap<NodeKey, Source>,
    /// Snapshots since the start.
    generation: u64,
}

impl NodeTranslator {
    /// Publishes to this registry.
    pub fn new(registry: NodeRegistry, metrics: Metrics) -> Self {
        Self {
            registry,
            metrics,
            mesh: Arc::default(),
            shared: Shared::default(),
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
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
                () = registry.came() => {}
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
        if !Arc::ptr_eq(&self.mesh.services, &mesh.services) || !Arc::ptr_eq(&self.mesh.peers, &mesh.peers) {
            self.shared = Shared::next(&self.shared, mesh);
            self.made.clear();
        }
        self.mesh = mesh.clone();
        for key in open {
            self.publish_node(key);
        }
    }

    fn publish_node(&mut self, key: NodeKey) {
        let source = self.mesh.nodes.get(&key.0);
        if self.made.get(&key).is_some_and(|made| is_same(made.as_ref(), source)) {
            return;
        }
        let source = source.cloned();
        let start = std::time::Instant::now();
        let mut snapshot = node(&self.shared, &self.mesh, &key.0, ports(key.1));
        self.generation += 1;
        snapshot.set_generation(self.generation);
        self.metrics.nodes.translation_seconds.observe(start.elapsed().as_secs_f64());
        self.registry.publish(&key, Arc::new(snapshot));
        self.made.insert(key, source);
    }
}

fn is_same(one: Option<&Arc<Node>>, other: Option<&Arc<Node>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn ports(slot: NodeSlot) -> Ports {
    let ports = slot.ports();
    Ports { outbound: ports.outbound, inbound: ports.inbound }
}

#[cfg(test)]
mod tests;
