//! Which pods have a stream open here: a revision that proxies still listen to is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_core::ObjectKey;

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<u64, ObjectKey>>>);

impl Streams {
    /// A stream of this pod is open now.
    pub fn opened(&self, stream: u64, pod: ObjectKey) {
        self.lock().insert(stream, pod);
    }

    /// A stream has ended.
    pub fn closed(&self, stream: u64) {
        self.lock().remove(&stream);
    }

    /// Pods with at least one stream.
    pub fn pods(&self) -> BTreeSet<ObjectKey> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, ObjectKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_there_until_its_last_stream_has_ended() {
        let (streams, pod) = (Streams::default(), ObjectKey::new("shop", "edge-1"));
        streams.opened(1, pod.clone());
        streams.opened(2, pod.clone());
        streams.closed(1);
        assert_eq!(streams.pods(), [pod].into());
        streams.closed(2);
        streams.closed(2);
        assert!(streams.pods().is_empty());
    }
}
