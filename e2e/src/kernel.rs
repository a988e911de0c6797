//! What the cluster needs of the kernel and nothing loads by itself. Bridges, veth pairs, overlays and connection tracking are loaded by
//! their first use, and so is nftables where the kernel can; whether it can is tried.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, run_with_input, search_path};

/// Brings the packets that a bridge carries before nftables. Without it the answer of a pod to another one of its node goes straight
/// to that one, past the place where it would get the Service's address back, and is not recognised.
const MODULE: &str = "br_netfilter";
/// By which connections of pods are redirected to their node's proxy.
const TO_REDIRECT: [&str; 4] = ["nf_tables", "nft_chain_nat", "nft_redir", "nft_ct"];
/// Each kind of rule that this takes.
const REDIRECTION: &str = "table inet try {
  chain in { type nat hook prerouting priority -100; tcp flags & (fin|syn|rst|ack) == syn redirect to :1; }
  chain out { type nat hook output priority -100; meta mark 0x539 return; ip protocol tcp redirect to :1; }
  chain guard { type filter hook input priority 0; tcp dport 1 ct status & dnat != dnat drop; }
}
";
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

/// Tries nftables as pods of the mesh need it, in a network of its own that ends with the trial. Modules that the kernel did not load by
/// itself are loaded, and stay.
///
/// # Errors
/// With nft's words, where rules are refused.
pub fn make_redirecting() -> Result<()> {
    let attempt = || {
        let mut nft = Command::new("unshare");
        nft.args(["--net", "--", "nft", "-f", "-"]).env("PATH", search_path());
        run_with_input(&mut nft, REDIRECTION.as_bytes())
    };
    if attempt().is_ok() {
        return Ok(());
    }
    let loaded = run(Command::new("modprobe").arg("-a").args(TO_REDIRECT).env("PATH", search_path()));
    attempt().map(drop).with_context(|| {
        let words = TO_REDIRECT.join(" ");
        let why = loaded.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
        format!(
            "nftables redirects no connections, and pods of the mesh need that: load its modules where this machine's kernel is from, \
             with `modprobe -a {words}`{why}"
        )
    })
}
