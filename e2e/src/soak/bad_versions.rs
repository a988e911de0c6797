//! Bad versions: each is recognised by what is wrong with it, goes back by itself, costs no more requests than its share, and leaves the
//! revision that serves alone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use meshwright_api::{Rollback, UpgradePhase};

use super::figures::Figure;
use super::mesh::{at, installed, operator, restored};
use super::observe::settled;
use super::under_load::NAMESPACE;
use super::untouched::{Baseline, of_revision, to_mesh};
use crate::product::RELEASES;
use crate::product::faults::{self, FAULTS, Fault};
use crate::testing::{
    Attempt, Audit, Backend, Env, LONGEST, LoadReport, Loads, RATE, eventually, follow, out_of_service,
    revisions_behind, status,
};

/// Enough time to go back from wherever the fault shows, and no more pods than fit.
const SETTINGS: &str = "{ steps: [ { percent: 25, hold: 20s }, { percent: 50, hold: 20s } ], bake: 30s, keepWarm: 10m, \
                        analysis: { deadline: 90s, onInsufficient: RollBack } }";

const LOOK: Duration = Duration::from_millis(100);
/// So long without a write a mesh is at rest.
const REST: Duration = Duration::from_secs(5);

/// What must be said of a fault: one of these causes, in one of these phases.
struct Verdict {
    fault: &'static str,
    causes: &'static [&'static str],
    phases: &'static [UpgradePhase],
}

const fn verdict(
    fault: &'static str,
    causes: &'static [&'static str],
    phases: &'static [UpgradePhase],
) -> Verdict {
    Verdict { fault, causes, phases }
}

const INSTALL: &[UpgradePhase] = &[UpgradePhase::InstallCanary];
const SHIFT: &[UpgradePhase] = &[UpgradePhase::Shift];
/// What takes time to show may have all traffic by then.
const LATER: &[UpgradePhase] = &[
    UpgradePhase::Shift,
    UpgradePhase::ShiftNodes,
    UpgradePhase::Bake,
    UpgradePhase::Promote,
    UpgradePhase::Drain,
];

const VERDICTS: [Verdict; 10] = [
    verdict("crash-at-start", &["ControlPlaneCrashes"], INSTALL),
    verdict("crash-after-a-minute", &["ControlPlaneCrashes", "ControlPlaneRestarts"], LATER),
    verdict("silent-xds", &["ProxiesNotReady"], SHIFT),
    verdict("rejected-configuration", &["ConfigurationRefused"], SHIFT),
    verdict("lost-route", &["ConfigurationLost"], &[UpgradePhase::Compare]),
    verdict("errors", &["ErrorsRose"], SHIFT),
    verdict("slow", &["LatencyRose", "TailLatencyRose"], SHIFT),
    verdict("refused-certificates", &["CertificatesRefused"], SHIFT),
    verdict("leak", &["ControlPlaneMemoryGrows"], LATER),
    verdict("unpullable", &["ImageCannotBePulled"], INSTALL),
];

impl Verdict {
    fn of(fault: Fault) -> Result<&'static Self> {
        VERDICTS
            .iter()
            .find(|v| v.fault == fault.name)
            .with_context(|| format!("a verdict on {}", fault.name))
    }

    fn check(&self, found: &Rollback) -> Result<()> {
        let Rollback { phase, cause, message, .. } = found;
        ensure!(
            self.causes.contains(&cause.as_str()) && self.phases.contains(phase),
            "{} went back in {phase:?} because of {cause} ({message}), expected {:?} in {:?}",
            self.fault,
            self.causes,
            self.phases
        );
        Ok(())
    }
}

/// What was seen of one.
struct Seen {
    to: String,
    rollback: Rollback,
    /// Largest share of the new revision, in percent of connections.
    share: i32,
    /// From when it could get connections to the decision.
    exposed: Duration,
    /// From the request for it to the decision.
    decided: Duration,
    /// From the decision until no connection went to it any more.
    back: Duration,
}

/// The fault with this number, beginning anew after the last.
fn fault(repetition: u32) -> Result<Fault> {
    FAULTS.into_iter().cycle().nth(repetition as usize % FAULTS.len()).context("a fault")
}

/// Upgrades to a bad version, and sees it go back.
///
/// # Errors
/// When it does not, for the right reason and in time.
pub async fn run(env: &Env, repetition: u32) -> Result<Vec<Figure>> {
    let fault = fault(repetition)?;
    let newest = RELEASES[RELEASES.len() - 1];
    installed(env).await?;
    at(env, newest).await?;
    let backend = Backend::installed_for_upgrades(env, NAMESPACE).await?;
    told(env, fault).await?;
    let mut audit = Audit::from_now(env)?;
    let baseline = Baseline::of(env, NAMESPACE).await?;
    let loads = Loads::endless(env, backend.address, &backend.host(), Backend::PATH)?;
    let start = Instant::now();
    let outcome = recognised(env, fault).await;
    let reports = loads.stop(&format!("  {}", fault.name)).await;
    let (seen, reports) = (outcome?, reports?);
    println!(
        "  {}: {:?} {}: {}",
        fault.name, seen.rollback.phase, seen.rollback.cause, seen.rollback.message
    );
    Verdict::of(fault)?.check(&seen.rollback)?;
    baseline.is_untouched(env, NAMESPACE).await?;
    let writes =
        audit.writes()?.into_iter().filter(|w| of_revision(w, baseline.revision())).collect::<Vec<_>>();
    ensure!(writes.is_empty(), "{} writes to the revision that serves: {writes:?}", writes.len());
    let figures = figures(fault, &seen, &reports)?;
    println!("  {} {:.0} s in all", seen.to, start.elapsed().as_secs_f64());
    // What is left of it ends by itself: whoever needs a settled mesh waits for that.
    operator(env).await?;
    restored(env).await?;
    Ok(figures)
}

/// The operator learns of the bad version, and that alone changes nothing.
///
/// # Errors
/// When it does not, or when it does.
pub async fn told(env: &Env, fault: Fault) -> Result<()> {
    at_rest(env).await?;
    let mut audit = Audit::from_now(env)?;
    let cluster = env.cluster.clone();
    tokio::task::spawn_blocking(move || faults::install(&cluster, fault)).await??;
    knows(env, &[fault.version]).await?;
    settled(env, true).await?;
    let writes = audit.writes()?.into_iter().filter(to_mesh).collect::<Vec<_>>();
    ensure!(writes.is_empty(), "an operator that knows another version wrote to the mesh: {writes:?}");
    Ok(())
}

/// Waits until nothing has been written to the mesh for a while: what a Gateway's new settings bring is not the next operator's doing.
async fn at_rest(env: &Env) -> Result<()> {
    eventually("a mesh at rest", LONGEST, || async {
        let mut audit = Audit::from_now(env).map_err(|e| format!("{e:#}"))?;
        tokio::time::sleep(REST).await;
        let writes =
            audit.writes().map_err(|e| format!("{e:#}"))?.into_iter().filter(to_mesh).collect::<Vec<_>>();
        if writes.is_empty() { Ok(()) } else { Err(format!("{writes:?}")) }
    })
    .await
}

/// Waits until the operator can install these versions.
///
/// # Errors
/// After the deadline, with those that it knows.
pub async fn knows(env: &Env, versions: &[&str]) -> Result<()> {
    installed(env).await?;
    follow(env, &format!("the operator to know {versions:?}"), LONGEST, |status| {
        let known = versions.iter().all(|version| status.available_versions.iter().any(|v| v == version));
        Ok(known.then_some(()))
    })
    .await
}

async fn recognised(env: &Env, fault: Fault) -> Result<Seen> {
    let start = Instant::now();
    let attempt = Attempt::at(env, fault.version, SETTINGS).await?;
    let (mut share, mut exposed) = (0, None);
    let (to, rollback) = loop {
        let seen = status(env).await?;
        if let Some(position) = attempt.position(&seen) {
            share = share.max(position.share.as_ref().map_or(0, |share| share.connections));
            let shifted = position.phase >= UpgradePhase::Shift && exposed.is_none();
            if shifted && revisions_behind(env, NAMESPACE).await?.contains_key(&position.to) {
                exposed = Some(Instant::now());
            }
            if let Some(rollback) = &position.rollback {
                break (position.to.clone(), rollback.clone());
            }
        } else if let Some(record) = attempt.record(&seen) {
            bail!("version {} with fault {} ended as {:?}", fault.version, fault.name, record.result);
        }
        ensure!(start.elapsed() < LONGEST, "{} was not recognised: {:?}", fault.name, seen.upgrade);
        tokio::time::sleep(LOOK).await;
    };
    let (decided, exposed) = (start.elapsed(), exposed.map_or(Duration::ZERO, |since| since.elapsed()));
    let back = out_of_service(env, NAMESPACE, &to).await?;
    attempt.goes_back(env).await?;
    Ok(Seen { to, rollback, share, exposed, decided, back })
}

fn figures(fault: Fault, seen: &Seen, reports: &[LoadReport]) -> Result<Vec<Figure>> {
    let failed: u64 = reports.iter().map(LoadReport::failed).sum();
    let bound = bound(seen.share, seen.exposed);
    ensure!(
        failed <= bound,
        "{}: {failed} requests failed, more than {bound}, which are {} % of all in {:.1} s: {reports:?}",
        fault.name,
        seen.share,
        seen.exposed.as_secs_f64()
    );
    Ok(vec![
        Figure::count("failed", failed, "requests"),
        Figure::count("requests", reports.iter().map(LoadReport::total).sum(), "requests"),
        Figure::count("they might have been", bound, "requests"),
        Figure::seconds(&format!("{}: asked for to decision", fault.name), seen.decided),
        Figure::seconds("decision to traffic back", seen.back),
    ])
}

/// Requests that go to a share in this time, of both loads.
fn bound(share: i32, exposed: Duration) -> u64 {
    (f64::from(share) / 100.0 * f64::from(2 * RATE) * exposed.as_secs_f64()).ceil() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn rollback(phase: UpgradePhase, cause: &str) -> Rollback {
        let (cause, message, decided) = (cause.to_owned(), String::new(), Time(Timestamp::UNIX_EPOCH));
        Rollback { phase, cause, message, decided, generation: None, traffic_back: None }
    }

    #[test]
    fn every_fault_has_a_verdict_and_a_turn() {
        let faults: BTreeSet<_> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(faults, VERDICTS.iter().map(|verdict| verdict.fault).collect());
        let turns: BTreeSet<_> = (0..10).map(|turn| fault(turn).unwrap().name).collect();
        assert_eq!((turns.len(), fault(15).unwrap().name), (10, "errors"));
    }

    #[test]
    fn another_cause_or_phase_is_no_recognition() {
        let of = |name: &str| VERDICTS.iter().find(|v| v.fault == name).unwrap();
        assert!(of("errors").check(&rollback(UpgradePhase::Shift, "ErrorsRose")).is_ok());
        assert!(of("errors").check(&rollback(UpgradePhase::Shift, "LatencyRose")).is_err());
        assert!(of("lost-route").check(&rollback(UpgradePhase::Shift, "ConfigurationLost")).is_err());
    }

    #[test]
    fn a_version_that_never_had_a_share_may_fail_nothing() {
        assert_eq!(bound(0, Duration::from_secs(100)), 0);
        assert_eq!(bound(25, Duration::ZERO), 0);
        assert_eq!(bound(25, Duration::from_secs(10)), 500);
    }
}
