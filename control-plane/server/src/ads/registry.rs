//! The snapshot of each Gateway, made once and shared by all of its streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_core::model::ObjectId;
use meshwright_core::{GatewayConfig, ObjectKey};
use meshwright_xds::{Snapshot, TypeUrl, envoy};
use tokio::sync::watch;

struct Entry {
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// What the snapshot was made from.
    config: Option<Arc<GatewayConfig>>,
}

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<ObjectKey, Entry>>>);

impl Registry {
    /// Snapshots of a Gateway, from now on. One that is not known (yet) has a snapshot that says nothing: the stream waits, and a proxy
    /// that comes with a configuration keeps it.
    pub fn subscribe(&self, gateway: &ObjectKey) -> watch::Receiver<Arc<Snapshot>> {
        self.lock().entry(gateway.clone()).or_insert_with(Entry::unknown).snapshots.subscribe()
    }

    /// Publishes a Gateway's resources and what they were made from.
    pub fn publish(&self, gateway: &ObjectKey, snapshot: Arc<Snapshot>, config: Arc<GatewayConfig>) {
        let mut entries = self.lock();
        let entry = entries.entry(gateway.clone()).or_insert_with(Entry::unknown);
        entry.config = Some(config);
        entry.snapshots.send_replace(snapshot);
    }

    /// Forgets Gateways that are gone, or not ours any more, unless a stream is still open: it keeps what it has. Pods of a Gateway that is
    /// gone go with it, and one that is merely not accepted is published like any other.
    pub fn retain(&self, keep: impl Fn(&ObjectKey) -> bool) {
        self.lock().retain(|gateway, entry| keep(gateway) || entry.snapshots.receiver_count() > 0);
    }

    /// The objects behind a resource, while the Gateway still has a resource of that name.
    pub fn origins(&self, gateway: &ObjectKey, kind: TypeUrl, name: &str) -> BTreeSet<ObjectId> {
        let entries = self.lock();
        let config = entries.get(gateway).and_then(|entry| entry.config.clone());
        drop(entries);
        config.map(|config| envoy::origins(&config, kind, name)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn unknown() -> Self {
        Self { snapshots: watch::channel(Arc::new(Snapshot::unknown())).0, config: None }
    }
}
