//! A node: namespaces, containerd, kubelet, kube-proxy.

mod config;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{in_node, run, run_with_input, search_path};
use crate::layout::{Layout, NodeLayout};
use crate::process::{Daemon, Record, stop};
use crate::{cgroup, network, programs};

pub const PAUSE_IMAGE: &str = "e2e.meshwright.io/pause:1";
const CNI_PLUGINS: [&str; 4] = ["bridge", "loopback", "host-local", "portmap"];

/// Makes the node's namespaces, folders, cgroups and configuration files.
pub fn make(layout: &Layout, node: &NodeLayout) -> Result<()> {
    cgroup::make_for_pods(&node.cgroup)?;
    cgroup::make_tracking(&node.daemons_cgroup)?;
    let bin = node.data.join("cni-bin");
    for dir in ["kubelet", "containerd", "cni-bin", "cni-conf", "pod-logs", "sysctl"] {
        let dir = node.data.join(dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&dir)
            .with_context(|| format!("creating {}", dir.display()))?;
    }
    for plugin in CNI_PLUGINS {
        // A copy for every node: pods may add plugins and replace them.
        let (from, to) = (programs::path(&layout.root, plugin)?, bin.join(plugin));
        fs::copy(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    config::write(layout, node)?;
    network::make_node(layout, node)?;
    make_mounts(node)
}

/// The node's own view of the file system: what programs and pods find at the usual places is the node's.
///
/// Everything mounted here vanishes with the namespace, so a crash leaves no mounts behind.
fn make_mounts(node: &NodeLayout) -> Result<()> {
    const SCRIPT: &str = r#"
mount --make-rshared /
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/node /run/netns /run/containerd /run/lock
mount --bind "$0" /run/node
for d in etc opt var/lib var/log; do
  mkdir -p /run/overlay/$d/upper /run/overlay/$d/work
  mount -t overlay overlay -o lowerdir=/$d,upperdir=/run/overlay/$d/upper,workdir=/run/overlay/$d/work /$d
done
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni/results /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers
mount --bind /run/node/cni-conf /etc/cni/net.d
mount --bind /run/node/cni-bin /opt/cni/bin
mount --bind /run/node/kubelet /var/lib/kubelet
mount --bind /run/node/containerd /var/lib/containerd
mount --bind /run/node/pod-logs /var/log/pods
rm -f /etc/resolv.conf
echo "$1" > /etc/hostname
: > /etc/resolv.conf
# kubelet wants these values and would set them for the whole machine.
for s in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
         kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  f=/run/node/sysctl/$(echo ${s%%=*} | tr / .)
  echo ${s#*=} > $f
  mount --bind $f /proc/sys/${s%%=*}
done
"#;
    fs::write(&node.mntns, b"").with_context(|| format!("creating {}", node.mntns.display()))?;
    let mut command = Command::new("unshare");
    command.arg(format!("--mount={}", node.mntns.display())).args([
        "--propagation",
        "private",
        "--",
        "sh",
        "-ec",
    ]);
    command.arg(SCRIPT).arg(&node.data).arg(&node.name);
    run(&mut command).with_context(|| format!("making the mounts of {}", node.name)).map(drop)
}

/// Starts containerd and waits until it answers.
pub fn start_containerd(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let name = daemon_name(node, "containerd");
    let runc = programs::path(&layout.root, "runc")?;
    let runc_dir = runc.parent().unwrap_or(Path::new("/"));
    let record = Daemon {
        name: name.clone(),
        program: programs::path(&layout.root, "containerd")?,
        args: vec!["--config".into(), "/run/node/containerd.toml".into()],
        node: Some(node),
        // The shim looks for runc on the path when it is only asked about its features.
        env: vec![("PATH".to_owned(), format!("{}:{}", runc_dir.display(), search_path()))],
    }
    .start(layout)?;
    // Its socket is in the node's mounts, which /proc shows.
    let socket = PathBuf::from(format!("/proc/{}/root/run/containerd/containerd.sock", record.pid));
    let start = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        let log = layout.logs().join(format!("{name}.log"));
        if !record.alive() {
            bail!("{name} ended: see {}", log.display());
        }
        if start.elapsed() > Duration::from_secs(30) {
            bail!("{name} did not open its socket in 30 s: see {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Starts what talks to the API server.
pub fn start_kubernetes(layout: &Layout, node: &NodeLayout) -> Result<()> {
    // kube-proxy runs `nft`.
    let env = vec![("PATH".to_owned(), search_path())];
    Daemon {
        name: daemon_name(node, "kubelet"),
        program: programs::path(&layout.root, "kubelet")?,
        args: config::kubelet_args(node),
        node: Some(node),
        env: env.clone(),
    }
    .start(layout)?;
    Daemon {
        name: daemon_name(node, "kube-proxy"),
        program: programs::path(&layout.root, "kube-proxy")?,
        args: vec!["--config=/run/node/kube-proxy.json".into()],
        node: Some(node),
        env,
    }
    .start(layout)?;
    Ok(())
}

/// Brings images into the node, also under `name@digest`.
pub fn load(layout: &Layout, node: &NodeLayout, archive: &Path) -> Result<()> {
    let names = crate::images::read_index(archive)?;
    let ctr = programs::path(&layout.root, "ctr")?;
    let ctr = || {
        let mut command = in_node(&node.netns, &node.mntns, &ctr);
        command.args(["--namespace", "k8s.io", "images"]);
        command
    };
    let file = fs::File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let output = ctr().args(["import", "-"]).stdin(file).output().context("starting ctr")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("importing {} into {}: {}", archive.display(), node.name, text.trim());
    }
    for (name, digest) in names {
        let (repository, _) =
            name.rsplit_once(':').with_context(|| format!("the image {name} has no tag"))?;
        let by_digest = format!("{repository}@{digest}");
        run(ctr().args(["tag", "--force", &name, &by_digest]))
            .with_context(|| format!("naming {by_digest} on {}", node.name))?;
    }
    Ok(())
}

/// What a power cut does: the link goes down, and every process of the node ends at once.
pub fn lose(layout: &Layout, node: &NodeLayout) -> Result<()> {
    network::set_link(node, false)?;
    cgroup::kill(&node.daemons_cgroup)?;
    cgroup::kill(&node.cgroup)?;
    stop(layout, &records(layout, node), Duration::ZERO)
}

/// Undoes [`lose`].
pub fn bring_back(layout: &Layout, node: &NodeLayout) -> Result<()> {
    network::set_link(node, true)?;
    start_containerd(layout, node)?;
    start_kubernetes(layout, node)
}

pub fn records(layout: &Layout, node: &NodeLayout) -> Vec<Record> {
    ["kubelet", "kube-proxy", "containerd"]
        .iter()
        .filter_map(|program| Record::load(layout, &daemon_name(node, program)))
        .collect()
}

pub fn daemon_name(node: &NodeLayout, program: &str) -> String {
    format!("{}-{program}", node.name)
}

/// Runs a program in the node, with input: for tests that look at a node from inside.
pub fn exec(node: &NodeLayout, program: &Path, args: &[&str], input: &[u8]) -> Result<String> {
    run_with_input(in_node(&node.netns, &node.mntns, program).args(args), input)
}
