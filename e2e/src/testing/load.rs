//! Steady load with oha, and its report: every response and every connection error is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::RATE;

const OHA: &str = "1.16.0";
/// Longest time that an answer may take before it counts as a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The same for a load that is ended before its time, which has to wait for as long.
pub const SHORT_PATIENCE: Duration = Duration::from_secs(10);

/// Path of the load generator; built once into the cache.
///
/// # Errors
/// When cargo cannot build it.
pub fn ensure_oha(cache: &Path) -> Result<PathBuf> {
    let root = cache.join("bin").join(format!("oha-{OHA}"));
    let binary = root.join("bin/oha");
    if !binary.exists() {
        let status = Command::new("cargo")
            .args(["install", "--quiet", "--locked", "oha", "--version", OHA, "--root"])
            .arg(&root)
            // Without it the load generator is built in half the time.
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .status()
            .context("start cargo to install oha")?;
        ensure!(status.success(), "cargo install oha {OHA} failed: {status}");
    }
    Ok(binary)
}

/// A running load; it does not outlive this.
#[derive(Debug)]
pub struct Load {
    child: Option<Child>,
    what: String,
}

/// What oha counted.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Responses by status code.
    pub status_code_distribution: BTreeMap<String, u64>,
    /// Failures without a response, by text. Requests that were under way at the planned end are not failures.
    pub error_distribution: BTreeMap<String, u64>,
}

impl Load {
    /// Starts [`RATE`] requests a second for `seconds`; a new connection for each where `keep_alive` is off. An answer that takes longer than
    /// `patience` is a failure.
    ///
    /// # Errors
    /// When oha cannot be started.
    pub fn start(
        oha: &Path,
        to: SocketAddr,
        host: &str,
        path: &str,
        seconds: u32,
        patience: Duration,
        keep_alive: bool,
    ) -> Result<Self> {
        let mut command = Command::new(oha);
        command
            .args([
                "--no-tui",
                "--output-format",
                "json",
                "--wait-ongoing-requests-after-deadline",
                "-c",
                "16",
            ])
            .args([
                "-q",
                &RATE.to_string(),
                "-z",
                &format!("{seconds}s"),
                "-t",
                &format!("{}s", patience.as_secs()),
                "-H",
                &format!("host: {host}"),
            ]);
        if !keep_alive {
            command.arg("--disable-keepalive");
        }
        let url = format!("http://{to}{path}");
        let child =
            command.arg(&url).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start oha")?;
        let what = format!("{url} ({})", if keep_alive { "keep-alive" } else { "new connections" });
        Ok(Self { child: Some(child), what })
    }

    /// Ends it before its time. What is under way then is not counted, so whatever could have failed must have had its time to.
    ///
    /// # Errors
    /// When oha cannot be told.
    pub fn interrupt(&self) -> Result<()> {
        let Some(child) = &self.child else { return Ok(()) };
        kill_process(Pid::from_child(child), Signal::INT)
            .with_context(|| format!("interrupt oha on {}", self.what))
    }

    /// Waits for the end and reads the report.
    ///
    /// # Errors
    /// When oha fails or prints something else.
    pub async fn report(mut self) -> Result<LoadReport> {
        let what = std::mem::take(&mut self.what);
        let child = self.child.take().context("a load is reported once")?;
        let output =
            tokio::task::spawn_blocking(move || child.wait_with_output()).await?.context("wait for oha")?;
        ensure!(output.status.success(), "oha on {what} ended with {}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("read oha's report on {what}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already, which is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl LoadReport {
    /// Requests in all.
    pub fn total(&self) -> u64 {
        self.status_code_distribution.values().sum::<u64>() + self.error_distribution.values().sum::<u64>()
    }

    /// Requests that were not answered with 200.
    pub fn failed(&self) -> u64 {
        self.total() - self.status_code_distribution.get("200").copied().unwrap_or(0)
    }
}
