//! cgroups of the cluster, on v1 and v2. Only folders of its own; the machine's hierarchies stay as they are, but on
//! v2 the root goes on to hand down the controllers that pods needed.

mod v2;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The hierarchy that tracks which processes belong to the cluster: on v1 one in which membership limits nothing.
fn tracking() -> PathBuf {
    if is_v2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join("pids") }
}

/// The folders of every hierarchy.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if is_v2() {
        return Ok(vec![ROOT.into()]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(ROOT).with_context(|| format!("reading {ROOT}"))?.flatten() {
        let path = entry.path();
        // cpu and cpuacct may be links to one folder; a link would make the same folder twice.
        if !path.is_symlink() && path.join("cgroup.procs").exists() {
            all.push(path);
        }
    }
    if all.is_empty() {
        bail!("no cgroup hierarchy is mounted at {ROOT}: mount cgroup2 there");
    }
    Ok(all)
}

pub fn procs_file(name: &str) -> Result<PathBuf> {
    let file = tracking().join(name).join("cgroup.procs");
    if !file.exists() {
        bail!("the cgroup {} is missing: run `cluster down`, then `cluster up`", file.display());
    }
    Ok(file)
}

/// Makes a cgroup for daemons: in the tracking hierarchy only.
pub fn make_tracking(name: &str) -> Result<()> {
    let dir = tracking().join(name);
    fs::create_dir_all(&dir).with_context(|| format!("creating the cgroup {}", dir.display()))
}

/// Makes a cgroup for pods, in every hierarchy, with every controller.
pub fn make_for_pods(name: &str) -> Result<()> {
    for root in hierarchies()? {
        let mut dir = root.clone();
        for part in Path::new(name).components() {
            if is_v2() {
                v2::hand_down(&dir)?;
            }
            let parent = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).with_context(|| format!("creating the cgroup {}", dir.display()))?;
            // A new cpuset is empty on v1, and nothing can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !is_v2() && dir.join(file).exists() {
                    let value =
                        fs::read_to_string(parent.join(file)).with_context(|| format!("reading {file}"))?;
                    fs::write(dir.join(file), value.trim())
                        .with_context(|| format!("writing {}/{file}", dir.display()))?;
                }
            }
        }
        if is_v2() {
            v2::hand_down(&dir)?;
        }
    }
    Ok(())
}

/// Kills everything in a cgroup and below. Only processes that this tool put there, and their children, are in it.
pub fn kill(name: &str) -> Result<()> {
    let dir = tracking().join(name);
    let start = Instant::now();
    loop {
        let pids = members(&dir);
        if pids.is_empty() {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(10) {
            bail!("processes {pids:?} in {} survive SIGKILL: look at them with `ps`", dir.display());
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn members(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.parse().ok())
        // 0 stands for a process of another pid namespace, a zombie waits only for its parent.
        .filter(|pid| *pid > 0 && !is_zombie(*pid))
        .collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            pids.extend(members(&entry.path()));
        }
    }
    pids
}

fn is_zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|s| s.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(true)
}

/// Removes a cgroup from every hierarchy, innermost first.
pub fn remove(name: &str) -> Result<()> {
    for root in hierarchies()? {
        let dir = root.join(name);
        let start = Instant::now();
        // The kernel lets go of a killed process's cgroup a little later.
        while dir.exists() {
            match remove_tree(&dir) {
                Ok(()) => break,
                Err(e) if start.elapsed() > Duration::from_secs(5) => {
                    return Err(e).with_context(|| format!("removing the cgroup {}", dir.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}
