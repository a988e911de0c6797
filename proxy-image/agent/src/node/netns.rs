//! Pods' network namespaces: found by their path, and entered.

use std::{
    fs::File,
    net::{IpAddr, UdpSocket},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use rustix::{
    fs::{fstat, statfs},
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use socket2::{Domain, Socket, Type};

/// The file system of namespaces.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// An open network namespace of a pod. It lives as long as this does.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens one.
    ///
    /// # Errors
    /// When there is none at that path, or it is the node's own: there we must never change anything.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        ensure!(is_namespace(path), "{} is no namespace", path.display());
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (here, there) = (fstat(File::open("/proc/thread-self/ns/net")?)?, fstat(&file)?);
        ensure!(here.st_ino != there.st_ino, "{} is the node's own network", path.display());
        Ok(Self { path: path.to_owned(), file })
    }

    /// Runs something in it, in a thread of its own: a thread that has been elsewhere is never used for anything else.
    ///
    /// # Errors
    /// When it cannot be entered, or the action failed.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let fd = self.file.as_fd();
        let entered = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)).context("enter it")?;
                act()
            });
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread in it panicked")))
        });
        entered.with_context(|| format!("in network namespace {}", self.path.display()))
    }

    /// Whether one of these addresses is an address of it. What the container runtime wrote down may be about a sandbox that is gone.
    pub fn has_one_of(&self, addresses: &[String]) -> anyhow::Result<bool> {
        let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| address.parse().ok()).collect();
        // Who can bind to an address has it.
        self.within(move || Ok(addresses.iter().any(|address| UdpSocket::bind((*address, 0)).is_ok())))
    }
}

/// Whether the kernel was booted without IPv6; then nobody has a socket of it, in any namespace. Where it is only switched off for interfaces
/// (by sysctl) there are sockets.
pub fn lacks_ipv6() -> bool {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None);
    socket.is_err_and(|error| error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()))
}

/// Whether there is a namespace at this path. The file is there for a moment longer than what is mounted on it.
pub fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.f_type == NSFS_MAGIC)
}

/// The path of a namespace as we see it: in our directory, whatever name that has for others. None if it is not there.
pub fn known_as(directory: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let (parent, name) = (path.parent()?, path.file_name()?);
    let known =
        parent == directory || [Path::new("/run/netns"), Path::new("/var/run/netns")].contains(&parent);
    known.then(|| directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_in_the_directory_or_not_known() {
        let known =
            |path: &str| known_as(Path::new("/run/netns"), path).map(|path| path.display().to_string());
        assert_eq!(known("/var/run/netns/cni-1").as_deref(), Some("/run/netns/cni-1"));
        assert_eq!(known("/run/netns/cni-1").as_deref(), Some("/run/netns/cni-1"));
        for foreign in
            ["/proc/1/ns/net", "/run/netns/../x", "/run/netns/a/b", "/run/netns/..", "/", "", "cni-1"]
        {
            assert_eq!(known(foreign), None, "{foreign}");
        }
        assert_eq!(known_as(Path::new("/lab"), "/lab/a"), Some(PathBuf::from("/lab/a")));
    }

    #[test]
    fn what_is_no_namespace_or_the_nodes_own_is_not_opened() {
        assert!(Netns::open(Path::new("/etc/hostname")).is_err());
        assert!(Netns::open(Path::new("/nonexistent")).is_err());
        let own = Netns::open(Path::new("/proc/self/ns/net"));
        assert!(own.is_err_and(|e| e.to_string().contains("own network")));
    }
}
