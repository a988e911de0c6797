//! How long an upgrade takes when nothing but the machine holds it up, what it writes, and how long the way back is.

use std::collections::BTreeMap;

use anyhow::Result;
use meshwright_api::{DonePhase, UpgradeRecord, labels};

use super::report::Report;
use crate::product::RELEASES;
use crate::testing::{
    Attempt, Audit, Backend, DEADLINE, Env, Loads, MESH, apply_yaml, condition, follow, is_warm,
    out_of_service, wish,
};
use crate::{demo, soak};

/// The default steps, each for no longer than it takes to measure it.
const STEPS: &str =
    "steps: [ { percent: 10, hold: 0s }, { percent: 25, hold: 0s }, { percent: 50, hold: 0s } ], bake: 0s";
const BY_OPERATOR: &str = "meshwright-system:";

/// The demo's mesh with the Gateway that the load goes to: from the old release to the new one, back, and on again.
///
/// # Errors
/// When it goes back by itself, or never ends.
pub async fn measure(env: &Env, report: &mut Report) -> Result<()> {
    soak::absent(env).await?;
    apply_yaml(&env.client, &mesh(RELEASES[0], "0s"), MESH).await?;
    condition(&soak::meshes(env), MESH, "Ready", "True", DEADLINE * 2).await?;
    let backend = Backend::installed_for_upgrades(env, super::NAMESPACE).await?;
    let loads = Loads::endless(env, backend.address, &backend.host(), Backend::PATH)?;
    let outcome = there_and_back(env, report).await;
    let reports = loads.stop("upgrade").await;
    outcome?;
    let failed: u64 = reports?.iter().map(|load| load.failed()).sum();
    report.add("requests failed in upgrade, rollback and upgrade", failed as f64, "requests");
    Ok(())
}

async fn there_and_back(env: &Env, report: &mut Report) -> Result<()> {
    let new = RELEASES[1];
    let first = Attempt::begin(env, new, &mesh(new, "10m")).await?;
    let warm = first.reaches(env, "the old revision to be warm", is_warm).await?;
    wish(env, Some((labels::ROLLBACK, &warm.to))).await?;
    // From when the decision is written; asking for it is the user's part.
    follow(env, "the decision to go back", DEADLINE, |status| {
        Ok(first.position(status).and_then(|position| position.rollback.as_ref()).map(drop))
    })
    .await?;
    let back = out_of_service(env, super::NAMESPACE, &warm.to).await?;
    report.add("rollback decided to traffic back", back.as_secs_f64(), "s");
    first.goes_back(env).await?;
    // What went back ends its connections before it is tried again, and that is no part of an upgrade.
    let mut audit = if env.cluster.context().is_none() { Some(Audit::from_now(env)?) } else { None };
    let second = Attempt::begin_again(env, &warm, new, &mesh(new, "0s")).await?;
    second.reaches(env, "the second upgrade to begin", |_| true).await?;
    audit.as_mut().map(Audit::writes).transpose()?;
    let record = second.succeeds(env).await?;
    for (name, seconds) in times(&record) {
        report.add(&name, seconds, "s");
    }
    let Some(audit) = &mut audit else {
        println!("writes: not measured outside, they are counted in the API server's audit log");
        return Ok(());
    };
    let (operator, others): (Vec<_>, Vec<_>) =
        audit.writes()?.into_iter().partition(|write| write.user.starts_with(BY_OPERATOR));
    report.add("writes of the operator for an upgrade", operator.len() as f64, "writes");
    report.add("writes of control planes meanwhile", others.len() as f64, "writes");
    Ok(())
}

/// All of it, and each phase, in seconds.
fn times(record: &UpgradeRecord) -> Vec<(String, f64)> {
    let whole = record.ended.0.duration_since(record.started.0).as_secs_f64();
    let mut times = vec![("upgrade of the demo mesh, default steps without holds".to_owned(), whole)];
    // A phase may come in parts.
    let mut phases = BTreeMap::new();
    for DonePhase { phase, step, seconds, .. } in &record.phases {
        *phases.entry((*phase, *step)).or_insert(0) += seconds;
    }
    times.extend(phases.into_iter().map(|((phase, step), seconds)| {
        let step = step.map(|step| format!(" {step}")).unwrap_or_default();
        (format!("of it {phase:?}{step}"), seconds as f64)
    }));
    times
}

fn mesh(version: &str, keep_warm: &str) -> String {
    demo::mesh(&format!(", version: {version}, upgrade: {{ {STEPS}, keepWarm: {keep_warm} }}"))
}

#[cfg(test)]
mod tests {
    use meshwright_api::Upgrade;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn what_is_measured_are_the_default_steps_of_the_demo() {
        let objects = objects_in(&mesh("0.2.0", "10m")).unwrap();
        let spec = &objects[1].data["spec"];
        assert_eq!((spec["profile"].as_str(), spec["version"].as_str()), (Some("Production"), Some("0.2.0")));
        let percents = |upgrade: &Upgrade| upgrade.steps.iter().map(|step| step.percent).collect::<Vec<_>>();
        let upgrade = Upgrade::deserialize(&spec["upgrade"]).unwrap();
        assert_eq!(percents(&upgrade), percents(&Upgrade::default()));
        assert!(upgrade.steps.iter().all(|step| step.hold == "0s"));
    }

    #[test]
    fn an_upgrade_is_the_sum_of_its_phases_and_what_lies_between() {
        let phase = |phase: &str, step: Option<i32>, seconds: i64| json!({"phase": phase, "step": step, "seconds": seconds});
        let phases = [phase("Shift", Some(2), 4), phase("Preflight", None, 1), phase("Shift", Some(1), 3)];
        let record = json!({
            "from": "m-1", "fromVersion": "0.2.0", "to": "m-2", "toVersion": "0.3.0", "strategy": "Canary",
            "result": "Succeeded", "reason": "", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:10Z",
            "phases": phases,
        });
        let times = times(&serde_json::from_value(record).unwrap());
        let names: Vec<_> = times.iter().map(|(name, seconds)| format!("{name}: {seconds}")).collect();
        assert_eq!(names[1..], ["of it Preflight: 1", "of it Shift 1: 3", "of it Shift 2: 4"]);
        assert_eq!(times[0].1, 10.0);
    }
}
