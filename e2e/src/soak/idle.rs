//! Nothing changes, so nothing is written.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::figures::Figure;
use super::mesh::present;
use super::under_load::NAMESPACE;
use crate::testing::{Audit, Backend, DEADLINE, Env, Write};

/// What is written before so much silence is the work of earlier rows.
const SETTLED: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_secs(1);

/// Counts what operator and control plane write in this time.
///
/// # Errors
/// With every write, when there was one.
pub async fn run(env: &Env, seconds: u64) -> Result<Vec<Figure>> {
    present(env).await?;
    Backend::installed(env, NAMESPACE).await?;
    let (start, time) = (Instant::now(), Duration::from_secs(seconds));
    while let Some((silence, writes)) = written(env, time).await? {
        if silence > SETTLED {
            bail!("{} writes after {silence:?} of {seconds} s without a change: {writes:?}", writes.len());
        }
        if start.elapsed() > DEADLINE * 2 {
            bail!("never silent for {SETTLED:?}: {writes:?}");
        }
    }
    Ok(vec![Figure::count("writes", 0, "writes"), Figure::count("idle", seconds, "seconds")])
}

/// What is written first in this time, and after how much silence.
async fn written(env: &Env, time: Duration) -> Result<Option<(Duration, Vec<Write>)>> {
    let mut audit = Audit::from_now(env)?;
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::time::sleep(LOOK).await;
        let writes = audit.writes()?;
        if !writes.is_empty() {
            return Ok(Some((start.elapsed(), writes)));
        }
    }
    Ok(None)
}
