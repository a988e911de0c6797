//! Taking a cluster away, also one that is half there. Nothing stays but logs and built programs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::run;
use crate::layout::Layout;
use crate::process::{Record, stop};
use crate::{cgroup, control_plane, network, node};

/// Stops and removes everything of this checkout's cluster. Without one it does nothing.
pub fn down(layout: &Layout) -> Result<()> {
    if !layout.state().exists() {
        return Ok(());
    }
    let _ = fs::remove_file(layout.up_marker());
    let _ = fs::remove_file(layout.kubeconfig());
    let _ = fs::remove_file(layout.kubectl());
    // Kubelets first, or they restart what is being killed.
    let nodes = layout.nodes();
    let on_nodes: Vec<Record> = nodes.iter().flat_map(|n| node::records(layout, n)).collect();
    let (agents, containerds): (Vec<_>, Vec<_>) =
        on_nodes.into_iter().partition(|r| !r.name.ends_with("containerd"));
    stop(layout, &agents, Duration::from_secs(1))?;
    for node in &nodes {
        cgroup::kill(&node.cgroup)?;
    }
    stop(layout, &containerds, Duration::from_secs(1))?;
    // The API server waits for clients that will not go; there is nothing to save.
    let host: Vec<Record> = control_plane::DAEMONS.iter().filter_map(|d| Record::load(layout, d)).collect();
    stop(layout, &host, Duration::from_millis(300))?;
    // Shims, and whatever a crash left unrecorded.
    cgroup::kill(&layout.cgroup_root())?;

    for node in &nodes {
        unmount(&node.mntns);
    }
    unmount(&layout.namespaces());
    network::remove(layout)?;
    cgroup::remove(&layout.cgroup_root())?;
    remove_state(&layout.state())
}

/// A mount namespace, with all that is mounted in it, ends with its last process and its file.
fn unmount(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = path.display().to_string();
    for _ in mounts.lines().filter(|l| l.split(' ').nth(4) == Some(path.as_str())) {
        let _ = run(Command::new("umount").args(["--lazy", &path]));
    }
}

fn remove_state(state: &Path) -> Result<()> {
    // The mounts' end is not waited for by umount; a folder may be busy for a moment.
    let mut attempt = 0;
    while let Err(error) = fs::remove_dir_all(state) {
        attempt += 1;
        if attempt > 50 {
            return Err(error)
                .with_context(|| format!("removing {}: `mount` shows what is still there", state.display()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Only when no other checkout has a cluster.
    let _ = fs::remove_dir(Layout::state_root());
    Ok(())
}
