//! Steady load from a pod's network, and how long its requests took.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::testing::Env;

/// Requests a second.
const RATE: u32 = 1000;
/// Requests at once at most.
const AT_ONCE: u32 = 16;
/// Less than that of the rate is another load.
const HELD: f64 = 0.95;

/// How a request is carried from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    Http1,
    Http2,
}

/// What came of one.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    pub requests: f64,
    /// Seconds.
    pub p50: f64,
    pub p99: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    status_code_distribution: BTreeMap<String, u64>,
    error_distribution: BTreeMap<String, u64>,
    latency_percentiles: BTreeMap<String, Option<f64>>,
}

/// Asks from the network of a process for so long, on connections that are kept.
///
/// # Errors
/// When a request failed, or the rate was not held.
pub async fn shoot(
    env: &Env,
    process: i32,
    to: SocketAddr,
    carried: Carried,
    time: Duration,
) -> Result<Shot> {
    let mut oha = Command::new("nsenter");
    oha.arg(format!("--net=/proc/{process}/ns/net")).arg("--").arg(env.oha()?);
    // One thread is enough, and takes less from what is measured.
    oha.args(["--no-tui", "--output-format", "json", "--worker-threads", "1", "-t", "10s"]);
    oha.args(["--wait-ongoing-requests-after-deadline", "-q", &RATE.to_string()]);
    oha.args(["-z", &format!("{}s", time.as_secs())]);
    match carried {
        Carried::Http1 => oha.args(["-c", &AT_ONCE.to_string()]),
        Carried::Http2 => oha.args(["--http2", "-c", "4", "-p", &(AT_ONCE / 4).to_string()]),
    };
    oha.arg(format!("http://{to}/details/0")).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || oha.output()).await?.context("start oha")?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "oha to {to} ended with {}: {complaint}", output.status);
    read(&output.stdout, time).with_context(|| format!("load to {to}, {carried:?}"))
}

fn read(said: &[u8], time: Duration) -> Result<Shot> {
    let said: Said = serde_json::from_slice(said).context("read oha's report")?;
    let good = said.status_code_distribution.get("200").copied().unwrap_or(0);
    let all = said.status_code_distribution.values().chain(said.error_distribution.values()).sum::<u64>();
    // On HTTP/2 what is under way at the end is one.
    let errors: BTreeMap<_, _> =
        said.error_distribution.into_iter().filter(|(text, _)| !text.contains("deadline")).collect();
    ensure!(errors.is_empty() && good + u64::from(AT_ONCE) >= all, "{good} of {all} answered: {errors:?}");
    let wanted = f64::from(RATE) * time.as_secs_f64();
    ensure!(
        good as f64 >= HELD * wanted,
        "{good} requests in {time:?}, {wanted} were wanted: the machine is too busy"
    );
    let percentile = |name: &str| said.latency_percentiles.get(name).copied().flatten();
    Ok(Shot {
        requests: good as f64,
        p50: percentile("p50").context("p50")?,
        p99: percentile("p99").context("p99")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_not_held_or_that_fails_is_no_figure() {
        let said = |good: u64, errors: &str| {
            format!(
                r#"{{"statusCodeDistribution": {{"200": {good}}}, "errorDistribution": {{{errors}}},
                     "latencyPercentiles": {{"p50": 0.0005, "p99": 0.002, "p99.9": null}}}}"#
            )
        };
        let read = |text: String| read(text.as_bytes(), Duration::from_secs(10));
        let shot = read(said(9_990, r#""aborted due to deadline": 3"#)).unwrap();
        assert_eq!((shot.requests, shot.p50, shot.p99), (9990.0, 0.0005, 0.002));
        assert!(read(said(9_000, "")).is_err(), "too slow");
        assert!(read(said(10_000, r#""connection closed": 1"#)).is_err());
    }
}
