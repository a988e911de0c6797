//! Steady load with oha, and its report: every response and every connection error is counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const OHA: &str = "1.16.0";

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
            .status()
            .context("start cargo to install oha")?;
        ensure!(status.success(), "cargo install oha {OHA} failed: {status}");
    }
    Ok(binary)
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    child: Child,
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
    /// Starts `rate` requests a second for `seconds`; a new connection for each where `keep_alive` is off.
    ///
    /// # Errors
    /// When oha cannot be started.
    pub fn start(
        oha: &Path,
        to: SocketAddr,
        host: &str,
        path: &str,
        rate: u32,
        seconds: u32,
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
                &rate.to_string(),
                "-z",
                &format!("{seconds}s"),
                "-t",
                "20s",
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
        Ok(Self { child, what })
    }

    /// Waits for the end and reads the report.
    ///
    /// # Errors
    /// When oha fails or prints something else.
    pub async fn report(self) -> Result<LoadReport> {
        let Self { child, what } = self;
        let output =
            tokio::task::spawn_blocking(move || child.wait_with_output()).await?.context("wait for oha")?;
        ensure!(output.status.success(), "oha on {what} ended with {}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("read oha's report on {what}"))
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
