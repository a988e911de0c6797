//! Small files that must be whole whenever they are read.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A pod whose namespace has rules of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirected {
    /// Where it is.
    pub netns: PathBuf,
    /// The proxies' ports to which it was ever redirected: connections may be left at each.
    pub ports: Vec<u16>,
}

/// By uid.
pub type AllRedirected = BTreeMap<String, Redirected>;

/// Writes a file; readers see the old one or the new one, also after the power went. The name in between has an ending that no container runtime reads.
///
/// # Errors
/// When the directory is absent or cannot be written to.
pub fn write(path: &Path, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
    let what = || format!("write {}", path.display());
    let name = path.file_name().with_context(what)?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.meshwright-new"));
    let written = || -> std::io::Result<()> {
        // One that was left behind may have other rights.
        remove(&temporary)?;
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(contents)?;
        // Or the new name may be on the disk before what is in it.
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    written().with_context(what)
}

/// Writes a file of JSON, see [`write`].
///
/// # Errors
/// As there.
pub fn write_json(path: &Path, contents: &impl Serialize) -> anyhow::Result<()> {
    write(path, 0o600, &serde_json::to_vec(contents)?)
}

/// Reads a file of JSON; the default if there is none, or none that makes sense.
pub fn read_json<T: DeserializeOwned + Default>(path: &Path) -> T {
    let read = std::fs::read(path).ok().map(|text| serde_json::from_slice(&text));
    let read = read.transpose().inspect_err(|e| tracing::warn!(path = %path.display(), error = %e, "read"));
    read.ok().flatten().unwrap_or_default()
}

/// Removes a file that may be absent.
///
/// # Errors
/// When it is there and stays there.
pub fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("10-x.conflist");
        std::fs::write(folder.path().join(".10-x.conflist.meshwright-new"), "left behind").unwrap();
        for text in ["one", "two"] {
            write(&path, 0o755, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read_json::<BTreeMap<String, u8>>(&path), BTreeMap::new(), "no JSON");
        write_json(&path, &BTreeMap::from([("a", 1)])).unwrap();
        assert_eq!(read_json::<BTreeMap<String, u8>>(&path), [("a".to_owned(), 1)].into());
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(write(Path::new("/nonexistent/x"), 0o600, b"").is_err());
    }
}
