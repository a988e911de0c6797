//! The snapshot of each Gateway, made once and shared by all of its streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use meshwright_core::model::ObjectId;
use meshwright_core::{GatewayConfig, ObjectKey};
use meshwright_xds::{Snapshot, TypeUrl, envoy};
use tokio::sync::watch;
use tokio::time::Instant;

/// A Gateway with Secrets that were not read yet is left out for so long after the start, see `meshwright_index`; and a little more, for
/// what comes then to be made.
const SETTLE: Duration = Duration::from_secs(12);

struct Entry {
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// What the snapshot was made from.
    config: Option<Arc<GatewayConfig>>,
}

/// A Gateway, what was made for it, and from what.
pub type Published = (ObjectKey, Arc<Snapshot>, Arc<GatewayConfig>);

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<Mutex<BTreeMap<ObjectKey, Entry>>>,
    /// When every Gateway had been published for the first time.
    complete: Arc<OnceLock<Instant>>,
}

impl Registry {
    /// Snapshots of a Gateway, from now on. One that is not known (yet) has a snapshot that says nothing: the stream waits, and a proxy
    /// that comes with a configuration keeps it.
    pub fn subscribe(&self, gateway: &ObjectKey) -> watch::Receiver<Arc<Snapshot>> {
        self.lock().entry(gateway.clone()).or_insert_with(Entry::unknown).snapshots.subscribe()
    }

    /// Publishes a Gateway's resources and what they were made from.
    pub fn publish(&self, gateway: &ObjectKey, snapshot: Arc<Snapshot>, config: Arc<GatewayConfig>) {
        #[cfg(feature = "faults")]
        let snapshot = crate::faults::distorted(crate::faults::chosen(), snapshot);
        let mut entries = self.lock();
        let entry = entries.entry(gateway.clone()).or_insert_with(Entry::unknown);
        entry.config = Some(config);
        entry.snapshots.send_replace(snapshot);
    }

    /// Forgets Gateways that are gone, or not ours any more, unless a stream is still open: it keeps what it has. Pods of a Gateway that is
    /// gone go with it, and one that is merely not accepted is published like any other.
    pub fn retain(&self, keep: impl Fn(&ObjectKey) -> bool) {
        self.lock().retain(|gateway, entry| {
            if !keep(gateway) {
                entry.config = None;
            }
            entry.config.is_some() || entry.snapshots.receiver_count() > 0
        });
    }

    /// Every Gateway that the index knows has been published.
    pub fn completed(&self) {
        self.complete.get_or_init(Instant::now);
    }

    /// All Gateways that there are; None while some may not be known yet.
    pub fn published(&self) -> Option<Vec<Published>> {
        if self.complete.get()?.elapsed() < SETTLE {
            return None;
        }
        let entries = self.lock();
        let known = entries.iter().filter_map(|(gateway, entry)| {
            Some((gateway.clone(), entry.snapshots.borrow().clone(), entry.config.clone()?))
        });
        Some(known.collect())
    }

    /// The objects behind a resource, while the Gateway still has a resource of that name.
    pub fn origins(&self, gateway: &ObjectKey, kind: TypeUrl, name: &str) -> BTreeSet<ObjectId> {
        let entries = self.lock();
        let config = entries.get(gateway).and_then(|entry| entry.config.clone());
        drop(entries);
        config.map(|config| envoy::origins(&config, kind, name)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn unknown() -> Self {
        Self { snapshots: watch::channel(Arc::new(Snapshot::unknown())).0, config: None }
    }
}
