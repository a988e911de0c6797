//! Readiness is a set of named guards: the process is ready when none is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What the process still waits for. Cheap to clone; all clones are one set.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, usize>>>);

/// Holds the process unready until `ready` is called or the guard is dropped.
///
/// Dropping counts as ready so that a part that ended cannot block the others: a part whose failure must stop the
/// process returns an error from its task, it does not stay unready.
#[must_use = "dropping the guard reports readiness"]
#[derive(Debug)]
pub struct ReadyGuard {
    set: Readiness,
    name: String,
}

impl Readiness {
    /// Adds something to wait for. May be called again later, which makes the process unready again.
    pub fn guard(&self, name: impl Into<String>) -> ReadyGuard {
        let name = name.into();
        *self.lock().entry(name.clone()).or_default() += 1;
        ReadyGuard { set: self.clone(), name }
    }

    /// The names still awaited, sorted; empty means ready.
    pub fn awaited(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// True when nothing is awaited.
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    // A poisoned lock still holds a usable map: no update below can panic half-way.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadyGuard {
    /// Releases the guard.
    pub fn ready(self) {}
}

impl Drop for ReadyGuard {
    fn drop(&mut self) {
        let left = {
            let mut set = self.set.lock();
            if let Some(count) = set.get_mut(&self.name) {
                *count -= 1;
                if *count == 0 {
                    set.remove(&self.name);
                }
            }
            set.keys().cloned().collect::<Vec<_>>()
        };
        if left.is_empty() {
            tracing::info!(done = %self.name, "ready");
        } else {
            tracing::info!(done = %self.name, awaited = ?left, "not ready yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_guard_is_gone() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (caches, lease, twin) =
            (readiness.guard("caches"), readiness.guard("lease"), readiness.guard("lease"));
        assert_eq!(readiness.awaited(), ["caches", "lease"]);
        caches.ready();
        drop(lease);
        assert_eq!(readiness.awaited(), ["lease"]);
        drop(twin);
        assert!(readiness.is_ready());
    }
}
