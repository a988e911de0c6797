//! Nothing changes, so nothing is written.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::figures::Figure;
use super::mesh::present;
use super::under_load::NAMESPACE;
use crate::testing::{Audit, Backend, DEADLINE, Env, Write};

/// Silence that says that the work of earlier rows has ended.
const SETTLED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// Counts what operator and control plane write in this time.
///
/// # Errors
/// With every write, when there was one.
pub async fn run(env: &Env, seconds: u64) -> Result<Vec<Figure>> {
    present(env).await?;
    Backend::installed(env, NAMESPACE).await?;
    let start = Instant::now();
    loop {
        let writes = written(env, SETTLED).await?;
        if writes.is_empty() {
            break;
        }
        if start.elapsed() > DEADLINE * 2 {
            bail!("never silent for {SETTLED:?}: {writes:?}");
        }
    }
    let writes = written(env, Duration::from_secs(seconds)).await?;
    if !writes.is_empty() {
        bail!("{} writes in {seconds} s without a change: {writes:?}", writes.len());
    }
    Ok(vec![Figure::count("writes", 0, "writes"), Figure::count("idle", seconds, "seconds")])
}

/// What is written in this time; stops at the first.
async fn written(env: &Env, time: Duration) -> Result<Vec<Write>> {
    let mut audit = Audit::from_now(env)?;
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        let writes = audit.writes()?;
        if !writes.is_empty() {
            return Ok(writes);
        }
    }
    Ok(Vec::new())
}
