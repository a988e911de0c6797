//! An upgrade under load that is disturbed wherever it is: it ends as it should, and no request fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshwright_api::{UpgradePhase, UpgradeStatus};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::figures::Figure;
use super::kill::{is_ready, kill, pods};
use super::leaders::{leader, overwrite};
use super::mesh::{CONTROL_PLANE_PODS, OPERATOR_NAMESPACE, OPERATOR_PODS, at, restored};
use super::observe::settled;
use super::random::Random;
use super::under_load::{NAMESPACE, none_failed};
use crate::product::RELEASES;
use crate::testing::{
    Attempt, Backend, DEADLINE, Env, LONGEST, Loads, MESH, drain, eventually, uncordon, watched,
};

/// Long enough for each place to be disturbed in.
const SETTINGS: &str = "{ steps: [ { percent: 25, hold: 20s }, { percent: 50, hold: 20s } ], bake: 20s, keepWarm: 30s, \
                        analysis: { deadline: 5m } }";

/// What is done to an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Disturbance {
    /// SIGKILL of the operator that leads.
    LeaderKilled,
    /// SIGKILL of all of them.
    OperatorKilled,
    /// Another one leads, and the old leader does not know.
    LeaderChanged,
    /// SIGKILL of a pod of either control plane.
    ControlPlaneKilled,
    NodeDrained,
}

const DISTURBANCES: [Disturbance; 5] = [
    Disturbance::LeaderKilled,
    Disturbance::OperatorKilled,
    Disturbance::LeaderChanged,
    Disturbance::ControlPlaneKilled,
    Disturbance::NodeDrained,
];

/// Where an upgrade can be disturbed: phases, and within those that move traffic before and after it has moved.
const PLACES: [(UpgradePhase, bool); 14] = [
    (UpgradePhase::Planned, false),
    (UpgradePhase::Preflight, false),
    (UpgradePhase::InstallCanary, false),
    (UpgradePhase::Compare, false),
    (UpgradePhase::Shift, false),
    (UpgradePhase::Shift, true),
    (UpgradePhase::ShiftNodes, false),
    (UpgradePhase::ShiftNodes, true),
    (UpgradePhase::Bake, false),
    (UpgradePhase::Bake, true),
    (UpgradePhase::Promote, false),
    (UpgradePhase::Drain, false),
    (UpgradePhase::Drain, true),
    (UpgradePhase::Retire, false),
];

/// Number of the place in [`PLACES`].
fn place(position: &UpgradeStatus) -> Option<usize> {
    let here = (position.phase, position.measured_since.is_some());
    PLACES.iter().position(|place| *place == here)
}

/// After as many repetitions as there are disturbances, each place had every one of them.
fn disturbance(place: usize, repetition: u32) -> Disturbance {
    let turn = (place + repetition as usize) % DISTURBANCES.len();
    DISTURBANCES.get(turn).copied().unwrap_or(Disturbance::LeaderKilled)
}

/// One upgrade, disturbed once in every place that it is seen in.
///
/// # Errors
/// When it goes back, never ends, or a request failed.
pub async fn run(env: &Env, repetition: u32, mut random: Random) -> Result<Vec<Figure>> {
    at(env, RELEASES[0]).await?;
    let backend = Backend::installed_for_upgrades(env, NAMESPACE).await?;
    let loads = Loads::endless(env, backend.address, &backend.host(), Backend::PATH)?;
    let start = Instant::now();
    let mut drains = Drains::new();
    let outcome = disturbed(env, repetition, &mut random, &mut drains).await;
    let took = start.elapsed();
    let drained = all(&mut drains).await;
    // A node must not stay cordoned, whatever came of it.
    for node in env.cluster.node_names().await? {
        uncordon(env, &node).await?;
    }
    let reports = loads.stop("  disturbed upgrade").await;
    let done = outcome?;
    drained?;
    let mut figures = none_failed(&reports?)?;
    restored(env).await?;
    settled(env, true).await?;
    let mut times = BTreeMap::<String, u64>::new();
    for (phase, what) in done {
        *times.entry(format!("{what:?}")).or_default() += 1;
        *times.entry(format!("in {phase:?}")).or_default() += 1;
    }
    figures.extend(times.into_iter().map(|(name, n)| Figure::count(&name, n, "times")));
    figures.push(Figure::seconds("took", took));
    Ok(figures)
}

type Drains = JoinSet<Result<()>>;

async fn disturbed(
    env: &Env,
    repetition: u32,
    random: &mut Random,
    drains: &mut Drains,
) -> Result<Vec<(UpgradePhase, Disturbance)>> {
    let mut seen = watched(env);
    let attempt = Attempt::at(env, RELEASES[1], SETTINGS).await?;
    let (mut places, mut done) = (BTreeSet::new(), Vec::new());
    loop {
        // The newest status only: what has passed meanwhile cannot be disturbed any more.
        let (position, over) = {
            let status = seen.borrow_and_update();
            attempt.must_not_go_back(&status)?;
            let position = attempt.position(&status).cloned();
            let over = position.is_none() && attempt.record(&status).is_some();
            (position, over)
        };
        if over {
            return Ok(done);
        }
        let place = position.as_ref().and_then(place).filter(|place| places.insert(*place));
        if let (Some(place), Some(position)) = (place, position) {
            let what = disturbance(place, repetition);
            println!("  {:?} {}: {what:?}", position.phase, position.step.unwrap_or_default());
            let disturbed = disturb(env, what, random, drains).await;
            disturbed.with_context(|| format!("{what:?} in {:?}", position.phase))?;
            done.push((position.phase, what));
            continue;
        }
        match timeout(LONGEST, seen.changed()).await {
            Ok(changed) => changed.context("follow the mesh")?,
            Err(_) => bail!("nothing changed for {LONGEST:?}: {:?}", seen.borrow().upgrade),
        }
    }
}

async fn disturb(env: &Env, what: Disturbance, random: &mut Random, drains: &mut Drains) -> Result<()> {
    match what {
        Disturbance::LeaderKilled => {
            let (leader, _) = operators(env).await?;
            kill(&env.client, &leader).await
        }
        Disturbance::OperatorKilled => {
            let (leader, others) = operators(env).await?;
            for pod in others.iter().chain([&leader]) {
                kill(&env.client, pod).await?;
            }
            Ok(())
        }
        Disturbance::LeaderChanged => {
            let (_, others) = operators(env).await?;
            overwrite(env, others.first().context("another operator")?).await
        }
        Disturbance::ControlPlaneKilled => {
            let all = pods(env, MESH, CONTROL_PLANE_PODS).await?;
            let running: Vec<&Pod> = all.iter().filter(|pod| is_ready(pod)).collect();
            let victim = running.get(random.below(running.len() as u64) as usize);
            kill(&env.client, victim.context("a control plane that runs")?).await
        }
        Disturbance::NodeDrained => {
            let nodes = env.cluster.node_names().await?;
            let node = nodes.get(random.below(nodes.len() as u64) as usize).context("a node")?.clone();
            all(drains).await?;
            let env = env.clone();
            // Not waited for: the upgrade goes on meanwhile, and short phases must not be over when it is.
            drains.spawn(async move {
                let drained = drain(&env, &node).await;
                uncordon(&env, &node).await?;
                drained
            });
            Ok(())
        }
    }
}

async fn all(drains: &mut Drains) -> Result<()> {
    while let Some(drained) = drains.join_next().await {
        drained??;
    }
    Ok(())
}

/// The leader, and at least one other that runs. Unlike [`super::leaders::replicas`] it minds no restarts: there are many here.
async fn operators(env: &Env) -> Result<(Pod, Vec<Pod>)> {
    eventually("an operator that leads and another one", DEADLINE, || async {
        let leader = leader(env).await.map_err(|e| format!("{e:#}"))?.ok_or("nobody leads")?;
        let all = pods(env, OPERATOR_NAMESPACE, OPERATOR_PODS).await.map_err(|e| format!("{e:#}"))?;
        let (leading, others): (Vec<Pod>, Vec<Pod>) =
            all.into_iter().filter(is_ready).partition(|pod| pod.name_any() == leader);
        match leading.into_iter().next() {
            Some(leader) if !others.is_empty() => Ok((leader, others)),
            _ => Err(format!("{leader} leads, {} others are ready", others.len())),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_repetitions_every_place_has_had_every_disturbance() {
        for (place, name) in PLACES.iter().enumerate() {
            let all: BTreeSet<_> = (0..5).map(|repetition| disturbance(place, repetition)).collect();
            assert_eq!(all.len(), DISTURBANCES.len(), "{name:?}");
        }
    }

    #[test]
    fn every_phase_up_to_the_end_is_a_place() {
        let phases: BTreeSet<UpgradePhase> = PLACES.iter().map(|place| place.0).collect();
        assert_eq!(phases.len(), 10);
        assert!(!phases.contains(&UpgradePhase::RollingBack));
    }
}
