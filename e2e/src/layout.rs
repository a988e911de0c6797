//! Every name, address and folder of a cluster, derived from the checkout, so that two checkouts on one
//! machine never disturb each other.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Pod ranges are 10.(100+slot), service ranges 10.(160+slot): 56 slots keep them apart.
const SLOTS: u8 = 56;
const STATE_ROOT: &str = "/var/lib/meshwright-e2e";
pub const NODES: u8 = 3;

/// Where the cluster of one checkout lives.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The workspace's root.
    pub root: PathBuf,
    pub slot: u8,
}

/// One node: `n` counts from 1.
#[derive(Clone, Debug)]
pub struct NodeLayout {
    pub n: u8,
    pub name: String,
    pub zone: &'static str,
    pub ip: Ipv4Addr,
    pub pod_cidr: String,
    /// Network namespace, also the name of the veth's end in the host.
    pub netns: String,
    /// A file that holds the node's mount namespace.
    pub mntns: PathBuf,
    /// Folder on the host; the node sees it as `/run/node`.
    pub data: PathBuf,
    /// cgroup of the pods, below every hierarchy's root; without a leading slash.
    pub cgroup: String,
    /// cgroup of containerd, shims, kubelet and kube-proxy.
    pub daemons_cgroup: String,
}

impl Layout {
    /// The layout of the checkout around the working directory, with the slot it holds, or the first free one.
    pub fn find() -> Result<Self> {
        let root = checkout()?;
        let first = Sha256::digest(root.as_os_str().as_encoded_bytes())[0] % SLOTS;
        let slots = || (0..SLOTS).map(move |i| (first + i) % SLOTS);
        if let Some(slot) = slots().find(|s| owner(*s).as_deref() == Some(root.as_path())) {
            return Ok(Self { root, slot });
        }
        match slots()
            .find(|s| owner(*s).is_none() && !Path::new(&format!("/sys/class/net/mw{s}-br")).exists())
        {
            Some(slot) => Ok(Self { root, slot }),
            None => bail!(
                "all {SLOTS} places for clusters under {STATE_ROOT} are taken: run `cluster down` in the checkouts named by {STATE_ROOT}/*/root"
            ),
        }
    }

    /// Takes the slot for this checkout. Fails if another checkout took it meanwhile.
    pub fn claim(&self) -> Result<()> {
        if owner(self.slot).as_deref() == Some(self.root.as_path()) {
            return Ok(());
        }
        std::fs::create_dir_all(STATE_ROOT).with_context(|| format!("creating {STATE_ROOT}"))?;
        let claim = PathBuf::from(format!("{STATE_ROOT}/.claim-{}", std::process::id()));
        std::fs::create_dir_all(&claim).with_context(|| format!("creating {}", claim.display()))?;
        std::fs::write(claim.join("root"), self.root.as_os_str().as_encoded_bytes())
            .with_context(|| format!("writing {}/root", claim.display()))?;
        // A rename onto a folder that is not empty fails: only one checkout wins.
        std::fs::rename(&claim, self.state()).with_context(|| {
            format!(
                "{} was taken by another checkout meanwhile: run `cluster up` again",
                self.state().display()
            )
        })
    }

    /// State of the running cluster; gone after `down`.
    pub fn state(&self) -> PathBuf {
        PathBuf::from(format!("{STATE_ROOT}/{}", self.slot))
    }

    pub fn state_root() -> &'static Path {
        Path::new(STATE_ROOT)
    }

    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// A tmpfs that holds the mount namespaces' files.
    pub fn namespaces(&self) -> PathBuf {
        self.state().join("ns")
    }

    /// Written when `up` has finished; its absence marks leftovers.
    pub fn up_marker(&self) -> PathBuf {
        self.state().join("up")
    }

    /// What users read: kubeconfig, audit log, logs.
    pub fn output(&self) -> PathBuf {
        self.root.join("target/cluster")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.output().join("kubeconfig")
    }

    /// kubectl of the cluster's version, for users; there while the cluster is.
    pub fn kubectl(&self) -> PathBuf {
        self.output().join("bin/kubectl")
    }

    /// What a shell needs to use the cluster.
    pub fn environment(&self) -> String {
        let output = self.output();
        format!("export PATH={}/bin:$PATH KUBECONFIG={}", output.display(), self.kubeconfig().display())
    }

    pub fn logs(&self) -> PathBuf {
        self.output().join("logs")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.output().join("audit.log")
    }

    pub fn bridge(&self) -> String {
        format!("mw{}-br", self.slot)
    }

    /// The host's address on the bridge: the API server.
    pub fn host_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.slot, 1)
    }

    /// For what only the control plane's own processes talk to; pods cannot reach it.
    pub fn loopback_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 30, self.slot, 1)
    }

    pub fn api_url(&self) -> String {
        format!("https://{}:6443", self.host_ip())
    }

    pub fn pod_cidr(&self) -> String {
        format!("10.{}.0.0/16", 100 + self.slot)
    }

    pub fn service_cidr(&self) -> String {
        format!("10.{}.0.0/16", 160 + self.slot)
    }

    pub fn service_ip(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 160 + self.slot, 0, last)
    }

    /// Addresses that Services of type LoadBalancer are given.
    pub fn lb_pool(&self) -> Vec<Ipv4Addr> {
        (200..=250).map(|last| Ipv4Addr::new(172, 30, self.slot, last)).collect()
    }

    pub fn cgroup_root(&self) -> String {
        format!("meshwright-e2e-{}", self.slot)
    }

    pub fn host_cgroup(&self) -> String {
        format!("{}/host", self.cgroup_root())
    }

    pub fn node(&self, n: u8) -> Result<NodeLayout> {
        if !(1..=NODES).contains(&n) {
            bail!("there is no node {n}: nodes are 1 to {NODES}");
        }
        let (slot, cgroups) = (self.slot, self.cgroup_root());
        Ok(NodeLayout {
            n,
            name: format!("node-{n}"),
            zone: ["a", "b", "c"][usize::from(n - 1) % 3],
            ip: Ipv4Addr::new(172, 30, slot, 10 + n),
            pod_cidr: format!("10.{}.{n}.0/24", 100 + slot),
            netns: format!("mw{slot}-n{n}"),
            mntns: self.namespaces().join(format!("n{n}")),
            data: self.state().join(format!("n{n}")),
            cgroup: format!("{cgroups}/n{n}"),
            daemons_cgroup: format!("{cgroups}/n{n}-daemons"),
        })
    }

    pub fn nodes(&self) -> Vec<NodeLayout> {
        (1..=NODES).filter_map(|n| self.node(n).ok()).collect()
    }
}

/// Where programs, toolchains and image archives are kept between runs, shared by all checkouts.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MESHWRIGHT_CACHE") {
        return Ok(dir.into());
    }
    let home =
        std::env::var_os("HOME").context("neither MESHWRIGHT_CACHE nor HOME is set: set MESHWRIGHT_CACHE")?;
    Ok(PathBuf::from(home).join(".cache/meshwright"))
}

fn owner(slot: u8) -> Option<PathBuf> {
    std::fs::read_to_string(format!("{STATE_ROOT}/{slot}/root")).ok().map(PathBuf::from)
}

/// The working directory decides, not where this program was compiled: checkouts may share a target folder.
fn checkout() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("MESHWRIGHT_E2E_ROOT") {
        return Ok(root.into());
    }
    let start = std::env::current_dir().context("reading the working directory")?;
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    start
        .ancestors()
        .chain(compiled.ancestors())
        .find(|dir| dir.join("e2e/cluster/kubernetes/go.mod").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("no checkout of meshwright around {}: run this inside one", start.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_all_slots_are_disjoint() {
        let mut seen = std::collections::BTreeSet::new();
        for slot in 0..SLOTS {
            let layout = Layout { root: "/".into(), slot };
            assert!(seen.insert(layout.pod_cidr()), "{}", layout.pod_cidr());
            assert!(seen.insert(layout.service_cidr()), "{}", layout.service_cidr());
        }
    }

    #[test]
    fn a_shell_finds_kubectl_and_its_cluster() {
        let layout = Layout { root: "/src".into(), slot: 0 };
        let path = layout.kubectl().parent().unwrap().display().to_string();
        let expected = format!("export PATH={path}:$PATH KUBECONFIG=/src/target/cluster/kubeconfig");
        assert_eq!(layout.environment(), expected);
    }

    #[test]
    fn interface_names_fit() {
        let layout = Layout { root: "/".into(), slot: SLOTS - 1 };
        assert!(layout.bridge().len() <= 15);
        assert!(layout.nodes().iter().all(|n| n.netns.len() <= 15));
    }
}
