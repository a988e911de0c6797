//! The processes of the proxy of one node, where the nodes are this machine's: how much they use, what they hold, and their end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use rustix::process::{Pid, Signal, kill_process};

use super::{Env, MESH, get_on_socket, processes};

/// Envoy's admin socket among the files of its container.
pub(super) const ADMIN: &str = "run/proxy/admin.sock";
/// The same in a gateway.
pub(super) const ADMIN_OF_GATEWAYS: &str = "run/meshwright/admin.sock";
/// The kernel counts time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// Of one node.
#[derive(Debug, Clone)]
pub struct NodeProxy {
    pub pod: Pod,
}

impl NodeProxy {
    /// The only one of this node.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn of(env: &Env, node: &str) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), MESH);
        let of_node = ListParams::default()
            .labels("meshwright.io/component=node")
            .fields(&format!("spec.nodeName={node}"));
        let mut found = pods.list(&of_node).await.context("list node proxies")?.items;
        match (found.pop(), found.len()) {
            (Some(pod), 0) => Ok(Self { pod }),
            (_, others) => bail!("not one node proxy on {node}, besides one of them {others}"),
        }
    }

    fn processes(&self, container: Option<&str>) -> Result<Vec<Pid>> {
        let found = processes(&self.pod, container)?;
        ensure!(!found.is_empty(), "{} runs nothing in {container:?}", self.pod.name_any());
        Ok(found)
    }

    /// Kills every process of one container, or of all.
    ///
    /// # Errors
    /// When there is nothing to kill.
    pub fn kill(&self, container: Option<&str>) -> Result<()> {
        for process in self.processes(container)? {
            // One of them may end with another.
            let _ = kill_process(process, Signal::KILL);
        }
        Ok(())
    }

    /// Sends a signal to every process of one container.
    ///
    /// # Errors
    /// When there is none, or one of them does not get it.
    pub fn signal(&self, container: &str, signal: Signal) -> Result<()> {
        let mut all = self.processes(Some(container))?.into_iter();
        all.try_for_each(|process| kill_process(process, signal)).context("send a signal")
    }

    /// Resident memory of a container's processes, in bytes.
    ///
    /// # Errors
    /// When it runs nothing, or the kernel does not say.
    pub fn resident(&self, container: &str) -> Result<u64> {
        resident(&self.processes(Some(container))?)
    }

    /// Processor time that a container's processes have used.
    ///
    /// # Errors
    /// When it runs nothing, or the kernel does not say.
    pub fn used(&self, container: &str) -> Result<Duration> {
        used(&self.processes(Some(container))?)
    }

    /// How many files of each kind a container's processes hold: `socket`, `net` for network namespaces, and others.
    ///
    /// # Errors
    /// When it runs nothing, or the kernel does not say.
    pub fn held(&self, container: &str) -> Result<BTreeMap<String, usize>> {
        let mut held = BTreeMap::new();
        for process in self.processes(Some(container))? {
            let folder = format!("/proc/{}/fd", process.as_raw_pid());
            for file in std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))?.flatten() {
                // It may have been closed since.
                let Ok(to) = std::fs::read_link(file.path()) else { continue };
                *held.entry(kind(&to.to_string_lossy())).or_default() += 1;
            }
        }
        Ok(held)
    }

    /// What Envoy's admin answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let process = *self.processes(Some("envoy"))?.first().context("a process")?;
        let socket = PathBuf::from(format!("/proc/{}/root/{ADMIN}", process.as_raw_pid()));
        Ok(get_on_socket(&socket, path).await?.body)
    }
}

/// Processor time of processes.
///
/// # Errors
/// When the kernel does not say.
pub fn used(processes: &[Pid]) -> Result<Duration> {
    processes.iter().map(|process| ticks(&of(*process, "stat")?).map(|ticks| TICK * ticks)).sum()
}

fn resident(processes: &[Pid]) -> Result<u64> {
    processes.iter().map(|process| resident_in(&of(*process, "status")?)).sum()
}

fn of(process: Pid, file: &str) -> Result<String> {
    let path = format!("/proc/{}/{file}", process.as_raw_pid());
    std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
}

/// Bytes in `/proc/<pid>/status`.
fn resident_in(status: &str) -> Result<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    Ok(kib.context("VmRSS")?.parse::<u64>().context("VmRSS")? * 1024)
}

/// Of user and kernel together in `/proc/<pid>/stat`. The name before them may have spaces and brackets in it.
fn ticks(stat: &str) -> Result<u32> {
    let fields = stat.rsplit_once(')').context("a name")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u32>);
    ticks.sum::<Result<u32, _>>().context("read the time of a process")
}

fn kind(link: &str) -> String {
    match link.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None if link.starts_with("/run/netns/") => "net".to_owned(),
        None => "file".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 5 0 0 0 250 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(ticks(stat).unwrap(), 300);
        assert_eq!(resident_in("VmPeak:\t9 kB\nVmRSS:\t    7 kB\n").unwrap(), 7168);
        assert!(resident_in("VmPeak:\t9 kB\n").is_err());
    }

    #[test]
    fn a_network_namespace_is_told_from_a_socket_and_a_file() {
        let kinds =
            ["socket:[1]", "net:[4026531992]", "/run/netns/cni-1", "anon_inode:[eventpoll]", "/dev/null"];
        assert_eq!(kinds.map(kind), ["socket", "net", "net", "anon_inode", "file"]);
    }
}
