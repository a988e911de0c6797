//! What pods had taken when they began to refuse plaintext, until that is ended.
//!
//! Connections and not ports: a port that a process listened on is free once it stops, and the kernel gives it to the next connection that
//! the pod or Envoy opens from there.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{netns::is_namespace, sockets::Cookies};

/// Of so many namespaces it is known, before those are forgotten that are gone.
const MOST: usize = 512;

/// Connections by namespace. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Takers(Arc<Mutex<BTreeMap<PathBuf, Cookies>>>);

impl Takers {
    /// Those of a namespace.
    pub fn of(&self, namespace: &Path) -> Cookies {
        self.lock().get(namespace).cloned().unwrap_or_default()
    }

    /// Looks again, knowing what was known.
    ///
    /// # Errors
    /// Those of the look.
    pub fn note(
        &self,
        namespace: &Path,
        look: impl FnOnce(&Cookies) -> anyhow::Result<Cookies>,
    ) -> anyhow::Result<()> {
        let taken = look(&self.of(namespace))?;
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|path, _| is_namespace(path));
        }
        all.insert(namespace.to_owned(), taken);
        Ok(())
    }

    /// They are ended.
    pub fn forget(&self, namespace: &Path) {
        self.lock().remove(namespace);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Cookies>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
