//! A network namespace that leads nowhere. What loses the namespace of its pod connects from there, and so not at all, instead of from the
//! node.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

use anyhow::Context;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::store;

/// Makes one and puts it at `link`, for processes that we start from now on: they inherit it. It lives as long as the result or they do.
///
/// Not a mount: where a security module is in force, a container may not mount.
///
/// # Errors
/// When the kernel does not let us, or the link cannot be made.
pub fn make(link: &Path) -> anyhow::Result<File> {
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<File> {
            // SAFETY: the thread keeps its table of file descriptors, and does nothing else but end.
            #[allow(unsafe_code)]
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            File::open("/proc/thread-self/ns/net")
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in it panicked")))
    });
    let namespace = made.context("make an empty network namespace")?;
    fcntl_setfd(&namespace, FdFlags::empty()).context("let envoy inherit the empty network namespace")?;
    let what = || format!("make {}", link.display());
    store::remove(link).with_context(what)?;
    std::os::unix::fs::symlink(format!("/proc/self/fd/{}", namespace.as_raw_fd()), link)
        .with_context(what)?;
    Ok(namespace)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::node::{lab, netns::Netns};

    #[test]
    fn it_leads_nowhere_and_processes_that_we_start_see_it() {
        if lab::nft().is_none() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("blackhole");
        let _first = make(&link).unwrap();
        let _second = make(&link).unwrap();
        let tried = Netns::open(&link).unwrap().within(|| {
            let nowhere = std::net::TcpStream::connect("127.0.0.1:1").map(drop).map_err(|e| e.kind());
            assert_eq!(nowhere, Err(io::ErrorKind::NetworkUnreachable));
            Ok(())
        });
        tried.unwrap();
        let seen = Command::new("stat")
            .args(["--file-system", "--dereference", "--format=%T"])
            .arg(&link)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "nsfs");
    }
}
