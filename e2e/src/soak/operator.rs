//! The operator is killed, doubled, and replaced in the middle of its work. Points of interruption are counted in its own
//! writes, not in seconds: between two writes nothing that lasts happens, and a slow machine changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kube::api::{DeleteParams, Patch, PatchParams};
use rustix::process::Signal;
use serde_json::json;

use super::figures::Figure;
use super::kill::{kill, signal};
use super::leaders::{another_leader, overwrite, replicas};
use super::mesh::{absent, apply, delete, meshes, present};
use super::observe::settled;
use super::random::Random;
use super::under_load::NAMESPACE;
use crate::testing::{Audit, Backend, DEADLINE, Env, MESH, active_revision, exists};

/// How often to look for new writes: a reconciliation makes some ten in a second.
const LOOK: Duration = Duration::from_millis(5);

/// What is under way when the operator is interrupted.
#[derive(Debug, Clone, PartialEq)]
enum Work {
    Install,
    /// From this revision to another.
    Edit(String),
    Deletion,
}

impl Work {
    /// Whether it is done, so that no more writes are to be expected.
    async fn is_done(&self, env: &Env) -> Result<bool> {
        let Some(mesh) = meshes(env).get_opt(MESH).await? else { return Ok(*self == Self::Deletion) };
        let status = &mesh.data["status"];
        Ok(match self {
            Self::Install => {
                let conditions = status["conditions"].as_array();
                conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
            }
            Self::Edit(from) => {
                status["activeRevision"].as_str().is_some_and(|now| now != from)
                    && status["revisions"].as_array().is_some_and(|all| all.len() == 1)
            }
            Self::Deletion => false,
        })
    }
}

/// Kills the leader, or every replica, in the middle of an install, an edit or a deletion; then it must converge.
///
/// # Errors
/// When it does not.
pub async fn killed(env: &Env, repetition: u32, mut random: Random, writes: u64) -> Result<Vec<Figure>> {
    let (after, everyone) = (random.below(writes + 1), random.below(4) == 0);
    with_gateway(env).await?;
    if repetition.is_multiple_of(3) {
        absent(env).await?
    } else {
        present(env).await?
    }
    let replicas = replicas(env).await?;
    let mut audit = Audit::from_now(env)?;
    let work = match repetition % 3 {
        0 => {
            apply(env).await?;
            Work::Install
        }
        1 => edit(env, &mut random).await?,
        _ => {
            delete(env).await?;
            Work::Deletion
        }
    };
    let under_way = interrupted(env, &mut audit, after, &work).await?;
    println!("  {work:?}: killing {} after {after} writes", if everyone { "all" } else { "the leader" });
    let start = Instant::now();
    for pod in replicas.all().take(if everyone { usize::MAX } else { 1 }) {
        kill(&env.client, pod).await?;
    }
    settled(env, work != Work::Deletion).await?;
    Ok(vec![
        Figure::count("killed", 1, "times"),
        Figure::count("killed before the end", u64::from(under_way), "times"),
        Figure::seconds("settled", start.elapsed()),
    ])
}

/// Two replicas believe that they lead, while there is much to do; then it must converge all the same.
///
/// # Errors
/// When it does not.
pub async fn two_leaders(env: &Env, repetition: u32, mut random: Random) -> Result<Vec<Figure>> {
    with_gateway(env).await?;
    present(env).await?;
    let replicas = replicas(env).await?;
    let Some(other) = replicas.others.first() else { bail!("there is one replica only") };
    let mut audit = Audit::from_now(env)?;
    let after = random.below(12);
    let work = edit(env, &mut random).await?;
    interrupted(env, &mut audit, after, &work).await?;
    let start = Instant::now();
    if repetition.is_multiple_of(2) {
        overwrite(env, other).await?;
    } else {
        // It wakes up with whatever it was about to write, and does not know that time has passed.
        signal(&replicas.leader, Signal::STOP)?;
        let taken_over = another_leader(env, &replicas.leader).await;
        signal(&replicas.leader, Signal::CONT)?;
        taken_over?;
    }
    break_something(env).await?;
    settled(env, true).await?;
    Ok(vec![Figure::count("two leaders", 1, "times"), Figure::seconds("settled", start.elapsed())])
}

/// The leader is killed, and there is something to mend: when does somebody lead, and when is it mended?
///
/// # Errors
/// When nobody does.
pub async fn leader_lost(env: &Env) -> Result<Vec<Figure>> {
    present(env).await?;
    let replicas = replicas(env).await?;
    let start = Instant::now();
    kill(&env.client, &replicas.leader).await?;
    let service = break_something(env).await?;
    another_leader(env, &replicas.leader).await?;
    let leads = start.elapsed();
    exists(&env.api("v1", "Service", "services", MESH), &service, true, DEADLINE).await?;
    let acts = start.elapsed();
    settled(env, true).await?;
    Ok(vec![Figure::seconds("another leads", leads), Figure::seconds("another acts", acts)])
}

/// Makes sure that there is a Gateway, so that a fleet of proxies is installed, edited and deleted with the mesh.
async fn with_gateway(env: &Env) -> Result<()> {
    if env.gateways(NAMESPACE).get_opt(Backend::GATEWAY).await?.is_none() {
        present(env).await?;
        Backend::installed(env, NAMESPACE).await?;
    }
    Ok(())
}

/// Deletes the control plane's Service; gives its name.
async fn break_something(env: &Env) -> Result<String> {
    let name = active_revision(env).await?;
    match env.api("v1", "Service", "services", MESH).delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        other => drop(other?),
    }
    Ok(name)
}

/// Asks for other memory, which makes a new revision: the change with the most steps.
async fn edit(env: &Env, random: &mut Random) -> Result<Work> {
    let from = active_revision(env).await?;
    let mesh = meshes(env).get(MESH).await?;
    let now = mesh.data.pointer("/spec/controlPlane/resources/requests/memory").cloned().unwrap_or_default();
    let choices: Vec<String> = [64, 72, 80, 88, 96]
        .map(|mebibytes| format!("{mebibytes}Mi"))
        .into_iter()
        .filter(|m| now != **m)
        .collect();
    let Some(memory) = choices.get(random.below(choices.len() as u64) as usize) else {
        bail!("nothing to choose from");
    };
    let patch = json!({"spec": {"controlPlane": {"resources": {"requests": {"memory": memory}}}}});
    meshes(env).patch(MESH, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(Work::Edit(from))
}

/// Waits for this many writes by the operator; false when the work was done before.
async fn interrupted(env: &Env, audit: &mut Audit, after: u64, work: &Work) -> Result<bool> {
    let start = Instant::now();
    let mut looked = start;
    let mut written = 0;
    loop {
        let by_operator = |user: &str| user.starts_with("meshwright-system:");
        written += audit.writes()?.iter().filter(|write| by_operator(&write.user)).count() as u64;
        if written >= after {
            return Ok(true);
        }
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            if work.is_done(env).await? {
                return Ok(false);
            }
        }
        if start.elapsed() > DEADLINE * 2 {
            bail!("{work:?} is not done and the operator made {written} writes");
        }
        tokio::time::sleep(LOOK).await;
    }
}
