//! The snapshot of each node that has a stream here. Nodes without one cost nothing: their proxies follow other replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_api::NodeSlot;
use meshwright_xds::Snapshot;
use tokio::sync::{Notify, watch};

/// A node, and the ports of its proxy.
pub type NodeKey = (String, NodeSlot);

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct NodeRegistry {
    snapshots: Arc<Mutex<BTreeMap<NodeKey, watch::Sender<Arc<Snapshot>>>>>,
    came: Arc<Notify>,
}

impl NodeRegistry {
    /// Snapshots for the proxy of a node, from now on; until the first is made, one that says nothing.
    pub fn subscribe(&self, node: &str, slot: NodeSlot) -> watch::Receiver<Arc<Snapshot>> {
        let unknown = || watch::channel(Arc::new(Snapshot::unknown())).0;
        let receiver = self.lock().entry((node.to_owned(), slot)).or_insert_with(unknown).subscribe();
        self.came.notify_one();
        receiver
    }

    /// Waits until there may be a node that was not there before.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// Those with a stream; what was published for others is forgotten.
    pub fn open(&self) -> BTreeSet<NodeKey> {
        let mut snapshots = self.lock();
        snapshots.retain(|_, sender| sender.receiver_count() > 0);
        snapshots.keys().cloned().collect()
    }

    /// Publishes what the proxy of this node should have, if it has a stream still.
    pub fn publish(&self, key: &NodeKey, snapshot: Arc<Snapshot>) {
        if let Some(sender) = self.lock().get(key) {
            sender.send_replace(snapshot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeKey, watch::Sender<Arc<Snapshot>>>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_as_long_as_it_has_a_stream() {
        let registry = NodeRegistry::default();
        let key: NodeKey = ("n1".to_owned(), NodeSlot::A);
        registry.publish(&key, Arc::default());
        assert!(registry.open().is_empty(), "nobody asked");
        let (first, second) = (registry.subscribe("n1", NodeSlot::A), registry.subscribe("n1", NodeSlot::A));
        let other = registry.subscribe("n1", NodeSlot::B);
        assert!(first.borrow().get(meshwright_xds::TypeUrl::Listener, "x").is_none());
        let snapshot = Arc::new(Snapshot::default());
        registry.publish(&key, snapshot.clone());
        assert!(Arc::ptr_eq(&first.borrow(), &snapshot) && Arc::ptr_eq(&second.borrow(), &snapshot));
        assert!(!Arc::ptr_eq(&other.borrow(), &snapshot), "its ports are others");
        drop((first, other));
        assert_eq!(registry.open(), [key].into());
        drop(second);
        assert!(registry.open().is_empty());
    }
}
