//! An upgrade, also back by hand and again, under load and with streams open all the time: no request fails, and no stream ends before the
//! pod that carries it had to.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshwright_api::labels;

use super::figures::Figure;
use super::mesh::{at, present, restored};
use super::observe::settled;
use super::rollout::{EACH, GLIMPSE, lived};
use super::under_load::{NAMESPACE, none_failed};
use crate::product::RELEASES;
use crate::testing::{
    Approver, Attempt, Backend, Env, Loads, QUICK, Stream, Streams, is_ending, is_warm, out_of_service,
    status, wish,
};

/// Steps as in [`QUICK`], and enough time to go back.
const WITH_TIME: &str = "{ steps: [ { percent: 25, hold: 10s }, { percent: 50, hold: 10s } ], bake: 10s, keepWarm: 5m, \
                         analysis: { deadline: 3m } }";
/// As [`QUICK`], and somebody has to agree to each step.
const ASKING: &str = "{ steps: [ { percent: 25, hold: 10s }, { percent: 50, hold: 10s } ], bake: 10s, keepWarm: 1s, \
                      analysis: { deadline: 3m }, approval: EveryStep }";

/// From the old release to the new one: back while the old one is warm, and to the new one again, with every drain to its very end; or,
/// `asking`, there only, and somebody agrees to each step.
///
/// # Errors
/// When a request failed, a stream was cut, or an upgrade did not end as it should.
pub async fn run(env: &Env, asking: bool) -> Result<Vec<Figure>> {
    at(env, RELEASES[0]).await?;
    let backend = Backend::installed_for_upgrades(env, NAMESPACE).await?;
    backend.install_streams(env).await?;
    let mut streams = Streams::to(env, &backend).await?;
    let loads = Loads::endless(env, backend.address, &backend.host(), Backend::PATH)?;
    let outcome =
        if asking { agreed_to(env, &mut streams).await } else { there_and_back(env, &mut streams).await };
    let closed = streams.close().await;
    // Also after a failure: the next repetition must not begin under the load of this one.
    let reports = loads.stop("  upgrade").await;
    let (mut figures, mut ended) = outcome?;
    ended.extend(closed?);
    figures.extend(lived(&ended, !asking)?);
    figures.extend(none_failed(&reports?)?);
    restored(env).await?;
    settled(env, true).await?;
    Ok(figures)
}

/// Gives those streams that are closed by now, too.
async fn agreed_to(env: &Env, streams: &mut Streams) -> Result<(Vec<Figure>, Vec<Stream>)> {
    streams.open(EACH).await?;
    let attempt = Attempt::at(env, RELEASES[1], ASKING).await?;
    Approver::new(env, &attempt).await?.every_step().await?;
    attempt.reaches(env, "the old revision to end its connections", is_ending).await?;
    streams.told_for(GLIMPSE).await?;
    let ended = streams.close().await?;
    // These stay on the new revision.
    streams.open(EACH).await?;
    Ok((vec![succeeded(env, &attempt).await?], ended))
}

async fn there_and_back(env: &Env, streams: &mut Streams) -> Result<(Vec<Figure>, Vec<Stream>)> {
    let new = RELEASES[1];
    streams.open(EACH).await?;
    let first = Attempt::at(env, new, WITH_TIME).await?;
    let warm = first.reaches(env, "the old revision to be warm", is_warm).await?;
    // All of these go to the new revision.
    streams.open(EACH).await?;
    wish(env, Some((labels::ROLLBACK, &warm.to))).await?;
    let back = out_of_service(env, NAMESPACE, &warm.to).await?;
    let position = first.goes_back(env).await?;
    let cause = position.rollback.map(|rollback| rollback.cause).unwrap_or_default();
    ensure!(cause == "Requested", "a rollback by hand has the cause {cause}");
    let second = Attempt::again(env, &warm, new, QUICK).await?;
    Ok((vec![Figure::seconds("traffic back", back), succeeded(env, &second).await?], Vec::new()))
}

async fn succeeded(env: &Env, attempt: &Attempt) -> Result<Figure> {
    let record = attempt.succeeds(env).await?;
    let took = record.ended.0.duration_since(record.started.0);
    println!("  {}: {:?}", record.reason, record.phases);
    Ok(Figure::seconds("last upgrade", Duration::try_from(took).unwrap_or_default()))
}

/// From one release to the other, which are equal: it must not go back.
///
/// # Errors
/// When it did, or a request failed.
pub async fn equal(env: &Env) -> Result<Vec<Figure>> {
    present(env).await?;
    let backend = Backend::installed_for_upgrades(env, NAMESPACE).await?;
    let now = status(env).await?.version;
    let other = RELEASES.into_iter().find(|version| now.as_deref() != Some(*version)).unwrap_or(RELEASES[0]);
    let loads = Loads::endless(env, backend.address, &backend.host(), Backend::PATH)?;
    let upgraded = async { Attempt::at(env, other, QUICK).await?.succeeds(env).await }.await;
    let reports = loads.stop(&format!("  upgrade to {other}")).await;
    let record = upgraded?;
    restored(env).await?;
    let mut figures = none_failed(&reports?)?;
    let took = record.ended.0.duration_since(record.started.0);
    figures.extend([
        Figure::count("equal upgrades", 1, "upgrades"),
        Figure::count("went back", 0, "upgrades"),
        Figure::seconds("took", Duration::try_from(took).unwrap_or_default()),
    ]);
    Ok(figures)
}
