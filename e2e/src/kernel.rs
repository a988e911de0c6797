//! What the cluster needs of the kernel and nothing loads by itself. Bridges, veth pairs, overlays, nftables and connection tracking are
//! loaded by their first use.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, search_path};

/// Brings the packets that a bridge carries before nftables. Without it the answer of a pod to another one of its node goes straight
/// to that one, past the place where it would get the Service's address back, and is not recognised.
const MODULE: &str = "br_netfilter";
/// What it is switched by, in each network namespace for itself.
const SWITCHES: &str = "/proc/sys/net/bridge";

pub fn is_ready() -> bool {
    Path::new(SWITCHES).is_dir()
}

/// Loads it, where [`is_ready`] says no. It stays loaded, but switched off where the machine's own bridges are.
///
/// # Errors
/// Names the module that could not be loaded.
pub fn make_ready() -> Result<()> {
    run(Command::new("modprobe").arg(MODULE).env("PATH", search_path())).with_context(|| {
        format!(
            "the kernel module {MODULE} is missing, and pods reach Services through it: load it where this \
             machine's kernel is from (in a container: on its host), with `modprobe {MODULE}`"
        )
    })?;
    for switch in ["iptables", "ip6tables", "arptables"] {
        let file = Path::new(SWITCHES).join(format!("bridge-nf-call-{switch}"));
        fs::write(&file, "0").with_context(|| format!("writing 0 to {}", file.display()))?;
    }
    Ok(())
}
