//! Who acts on the node: one agent at a time, the one that took over last.
//!
//! A file names the revision that acts and the epoch on which it was told to. It changes under an exclusive lock; whoever changes something on
//! the node holds the lock too, shared, and looks first. So an agent that was not told yet that it is over can do nothing any more, and nobody
//! waits for an agent that hangs.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::store;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The MeshRevision whose agent acts.
    pub revision: String,
    /// The epoch on which it was told to.
    pub epoch: i64,
}

/// What the file says, and who acted before on another epoch or for another revision; none where that was never said.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    held: Option<Held>,
    before: Option<Held>,
}

/// The node's directory, as an agent of one revision sees it.
#[derive(Debug)]
pub struct Claims {
    directory: PathBuf,
    revision: String,
    /// Locked as long as we live.
    _alive: File,
}

impl Claims {
    /// Opens the directory, and waits for an older agent of the same revision to end.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(directory: &Path, revision: &str) -> anyhow::Result<Self> {
        let what = || format!("use {}", directory.display());
        std::fs::create_dir_all(directory).with_context(what)?;
        let alive = open(&alive(directory, revision)).with_context(what)?;
        alive.lock().with_context(what)?;
        Ok(Self { directory: directory.to_owned(), revision: revision.to_owned(), _alive: alive })
    }

    /// Who acts; none before the first one, and after the mesh is gone.
    pub fn held(&self) -> Option<Held> {
        store::read_json(&self.file())
    }

    /// Whether this is who acts, or acted right before: what it wrote down nobody has made untrue since.
    pub fn is_recent(&self, one: &Held) -> bool {
        let Record { held, before } = store::read_json(&self.file());
        [held, before].iter().flatten().any(|known| known == one)
    }

    /// Takes over, if nobody acts on this epoch or a later one. One whose process is gone for good may have been told of epochs that nobody
    /// knows any more, as when the mesh was removed without it, and so may we: `anew` goes by whether it lives, or is us, instead. Returns
    /// whether it is ours.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn take(&self, epoch: i64, anew: bool) -> anyhow::Result<bool> {
        let lock = self.lock()?;
        lock.lock().context("lock the node")?;
        let free = match self.held() {
            None => true,
            Some(held) if held.revision == self.revision => held.epoch <= epoch || anew,
            Some(held) => held.epoch < epoch || (anew && !self.is_alive(&held.revision)?),
        };
        if free {
            let known: Record = store::read_json(&self.file());
            let held = Some(Held { revision: self.revision.clone(), epoch });
            let before = if known.held == held { known.before } else { known.held };
            store::write_json(&self.file(), &Record { held, before })?;
        }
        Ok(free)
    }

    /// Does something that only who acts may do.
    ///
    /// # Errors
    /// When somebody else does, or it failed.
    pub fn acting<T>(&self, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let lock = self.lock()?;
        lock.lock_shared().context("lock the node")?;
        match self.held() {
            Some(held) if held.revision == self.revision => act(),
            Some(held) => bail!("the proxy of revision {} has taken over this node", held.revision),
            None => bail!("no proxy serves this node"),
        }
    }

    /// Nobody acts any more, if it was us.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn give_up(&self) -> anyhow::Result<()> {
        let lock = self.lock()?;
        lock.lock().context("lock the node")?;
        if self.held().is_some_and(|held| held.revision == self.revision) {
            store::remove(&self.file()).context("give up the node")?;
        }
        Ok(())
    }

    /// Whether an agent of this revision runs.
    pub fn is_alive(&self, revision: &str) -> anyhow::Result<bool> {
        match open(&alive(&self.directory, revision))?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(e).context("look for another agent"),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("claim")
    }

    fn lock(&self) -> anyhow::Result<File> {
        open(&self.directory.join("lock")).context("lock the node")
    }
}

fn alive(directory: &Path, revision: &str) -> PathBuf {
    directory.join(format!("alive-{revision}"))
}

fn open(path: &Path) -> std::io::Result<File> {
    std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(claims: &Claims) -> Option<(String, i64)> {
        claims.held().map(|held| (held.revision, held.epoch))
    }

    #[test]
    fn the_later_epoch_acts_and_the_earlier_one_can_do_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] =
            ["mesh-old", "mesh-new"].map(|revision| Claims::open(folder.path(), revision).unwrap());
        assert!(old.acting(|| Ok(())).is_err(), "nobody has told it to");
        assert!(old.take(1, false).unwrap());
        assert!(old.acting(|| Ok(())).is_ok() && new.acting(|| Ok(())).is_err());
        assert!(!new.take(1, true).unwrap(), "the other lives");
        assert!(new.take(2, false).unwrap());
        let error = old.acting(|| Ok(())).unwrap_err().to_string();
        assert!(error.contains("mesh-new"), "{error}");
        assert!(!old.take(1, true).unwrap() && !old.take(2, true).unwrap());
        assert_eq!(held(&old), Some(("mesh-new".to_owned(), 2)));
        old.give_up().unwrap();
        assert_eq!(held(&old), Some(("mesh-new".to_owned(), 2)), "it was not its to give up");
        assert!(old.take(3, false).unwrap(), "and back");
        assert!(old.take(4, false).unwrap() && !old.take(3, false).unwrap());
        old.give_up().unwrap();
        assert_eq!(held(&new), None);
    }

    #[test]
    fn an_epoch_that_nobody_knows_any_more_dies_with_its_agent() {
        let folder = tempfile::tempdir().unwrap();
        let old = Claims::open(folder.path(), "mesh-old").unwrap();
        assert!(old.take(7, false).unwrap());
        let new = Claims::open(folder.path(), "mesh-new").unwrap();
        assert!(!new.take(1, true).unwrap());
        drop(old);
        assert!(!new.take(1, false).unwrap(), "it may just be starting again");
        assert!(new.take(1, true).unwrap());
        assert_eq!(held(&new), Some(("mesh-new".to_owned(), 1)));
    }

    #[test]
    fn our_own_epoch_goes_back_only_when_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::open(folder.path(), "mesh-1").unwrap();
        assert!(claims.take(7, false).unwrap());
        assert!(!claims.take(3, false).unwrap());
        assert!(claims.take(3, true).unwrap());
        assert_eq!(held(&claims), Some(("mesh-1".to_owned(), 3)));
    }

    #[test]
    fn who_acted_right_before_is_known_also_after_one_that_knows_nothing_of_that() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] =
            ["mesh-old", "mesh-new"].map(|revision| Claims::open(folder.path(), revision).unwrap());
        let recent = |of: &Claims| {
            let all = [("mesh-old", 1), ("mesh-old", 2), ("mesh-new", 3), ("mesh-old", 4), ("mesh-new", 5)];
            let is_recent = |(revision, epoch): &(&str, i64)| {
                of.is_recent(&Held { revision: (*revision).to_owned(), epoch: *epoch })
            };
            all.into_iter().filter(is_recent).map(|(_, epoch)| epoch).collect::<Vec<_>>()
        };
        assert!(recent(&old).is_empty());
        assert!(old.take(1, false).unwrap() && recent(&old) == [1]);
        assert!(old.take(2, false).unwrap() && recent(&old) == [1, 2]);
        assert!(new.take(3, false).unwrap() && recent(&new) == [2, 3]);
        assert!(new.take(3, true).unwrap() && recent(&new) == [2, 3]);
        // An older release writes the rest only.
        store::write(&new.file(), 0o600, br#"{"revision":"mesh-old","epoch":4}"#).unwrap();
        assert!(recent(&new) == [4] && held(&new) == Some(("mesh-old".to_owned(), 4)));
        assert!(new.take(5, false).unwrap() && recent(&new) == [4, 5]);
    }

    #[test]
    fn nobody_takes_over_while_something_is_being_done() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] =
            ["mesh-old", "mesh-new"].map(|revision| Claims::open(folder.path(), revision).unwrap());
        old.take(1, false).unwrap();
        let (begun, begin) = std::sync::mpsc::channel();
        let taken = std::thread::scope(|scope| {
            old.acting(|| {
                let taker = scope.spawn(|| {
                    begun.send(()).unwrap();
                    new.take(2, false).unwrap()
                });
                begin.recv().unwrap();
                // Whoever looks now sees the old one, however long this takes.
                assert_eq!(held(&old), Some(("mesh-old".to_owned(), 1)));
                Ok(taker)
            })
            .unwrap()
            .join()
            .unwrap()
        });
        assert!(taken);
    }
}
