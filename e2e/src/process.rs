//! Daemons: started detached, recorded, and stopped only if they are still what was recorded.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::layout::{Layout, NodeLayout};

/// Enough to know a process again: ids are reused, (id, start time, boot) is not.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    pub name: String,
    pub pid: i32,
    pub start_ticks: u64,
    pub boot_id: String,
}

/// A daemon to start.
pub struct Daemon<'a> {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// None: in the host's namespaces.
    pub node: Option<&'a NodeLayout>,
    pub env: Vec<(String, String)>,
}

impl Daemon<'_> {
    /// Starts it in a session of its own, so that it outlives the tool, and records it.
    pub fn start(self, layout: &Layout) -> Result<Record> {
        let log_path = layout.logs().join(format!("{}.log", self.name));
        let log = open_log(&log_path)?;
        let cgroup = self.node.map_or_else(|| layout.host_cgroup(), |n| n.daemons_cgroup.clone());
        // The shell enters the cgroup before anything else, then becomes the daemon: the id stays the same.
        let mut command = Command::new("sh");
        command.arg("-c").arg(r#"echo $$ > "$0" && exec setsid "$@""#).arg(cgroup::procs_file(&cgroup)?);
        if let Some(node) = self.node {
            command.arg("nsenter").arg(format!("--net=/run/netns/{}", node.netns));
            command.arg(format!("--mount={}", node.mntns.display())).arg("--");
        }
        command.arg(&self.program).args(&self.args).envs(self.env).current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().context("sharing a log file")?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", self.name))?;
        let pid = i32::try_from(child.id()).context("process id")?;
        let start_ticks = stat(pid)
            .map(|s| s.start_ticks)
            .with_context(|| format!("{} ended at once: see {}", self.name, log_path.display()))?;
        let record = Record { name: self.name, pid, start_ticks, boot_id: boot_id()? };
        let dir = records_dir(layout);
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = dir.join(format!("{}.json", record.name));
        std::fs::write(&path, serde_json::to_vec(&record)?)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(record)
    }
}

impl Record {
    pub fn load(layout: &Layout, name: &str) -> Option<Self> {
        let bytes = std::fs::read(records_dir(layout).join(format!("{name}.json"))).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub fn all(layout: &Layout) -> Vec<Self> {
        let Ok(dir) = std::fs::read_dir(records_dir(layout)) else { return Vec::new() };
        let mut all: Vec<Self> = dir
            .flatten()
            .filter_map(|e| std::fs::read(e.path()).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect();
        all.sort_by(|a: &Self, b| a.name.cmp(&b.name));
        all
    }

    pub fn alive(&self) -> bool {
        boot_id().is_ok_and(|b| b == self.boot_id)
            && stat(self.pid).is_some_and(|s| s.start_ticks == self.start_ticks && s.state != 'Z')
    }

    pub fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.alive(), Pid::from_raw(self.pid)) {
            // It may end between the look and the signal, which is what was wanted.
            let _ = kill_process(pid, signal);
        }
    }
}

/// TERM to all, KILL to those that are still there after `patience`, then forget them.
pub fn stop(layout: &Layout, records: &[Record], patience: Duration) -> Result<()> {
    records.iter().for_each(|r| r.signal(Signal::TERM));
    let gone = |limit: Duration| {
        let start = Instant::now();
        while records.iter().any(Record::alive) && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        !records.iter().any(Record::alive)
    };
    if !gone(patience) {
        records.iter().for_each(|r| r.signal(Signal::KILL));
        if !gone(Duration::from_secs(5)) {
            let names: Vec<_> =
                records.iter().filter(|r| r.alive()).map(|r| format!("{} ({})", r.name, r.pid)).collect();
            bail!("still running after SIGKILL: {}; look at them with `ps`", names.join(", "));
        }
    }
    for record in records {
        let _ = std::fs::remove_file(records_dir(layout).join(format!("{}.json", record.name)));
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

fn records_dir(layout: &Layout) -> PathBuf {
    layout.state().join("pids")
}

fn boot_id() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
    Ok(text.trim().to_owned())
}

struct Stat {
    state: char,
    start_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses itself.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat { state: fields.first()?.chars().next()?, start_ticks: fields.get(19)?.parse().ok()? })
}
