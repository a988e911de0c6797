//! One session: the rows that are missing, one repetition after the other, until all are done or the time is over.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;

use super::random::Random;
use super::record::{Attempt, Record, append, counting, finished, forget, load, standing};
use super::table::{ROWS, Row, What};
use super::under_load::NAMESPACE;
use super::{
    analysis, away, bad_versions, churn, deletion, disturbed, idle, inputs, loss, mesh, node_proxies,
    operator, under_load, uninstall, upgrade,
};
use crate::Cluster;
use crate::product::{self, cache, workspace};
use crate::soak::figures::Figure;
use crate::testing::{Env, MESH, ensure_oha, keep_all};

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// This row only, whether or not it is missing.
    pub row: Option<String>,
    /// No repetition begins after this, counted from the first; building and installing come before.
    pub time: Option<Duration>,
}

/// How a row's turn ended.
#[derive(Debug, PartialEq)]
enum Turn {
    Finished,
    OutOfTime,
    Failed,
}

struct Session {
    root: PathBuf,
    /// Context of a cluster outside: what happens there says nothing about the rows of `docs/soak.jsonl`.
    outside: Option<String>,
    start: Instant,
    time: Option<Duration>,
}

/// Runs what is missing and prints where every row stands; false when a repetition failed.
///
/// # Errors
/// When the rows cannot be run at all.
pub async fn run(options: Options) -> Result<bool> {
    let cluster = Cluster::chosen()?;
    let outside = cluster.context().map(str::to_owned);
    let mut session = Session { root: workspace(), outside, start: Instant::now(), time: options.time };
    let rows = session.missing(options.row.as_deref())?;
    let mut failed = BTreeSet::new();
    let mut broken = None;
    if !rows.is_empty() {
        let env = if rows.iter().any(|(row, _)| row.what.needs_cluster()) {
            product::installed(&cluster.disposable().await?).await?;
            ensure_oha(&cache()?)?;
            let env = Env::connect().await?;
            mesh::recover(&env).await?;
            Some(env)
        } else {
            None
        };
        session.start = Instant::now();
        for (row, inputs) in rows {
            match session.turn(env.as_ref(), row, &inputs).await {
                Ok(Turn::Finished) => {}
                Ok(Turn::OutOfTime) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
                Ok(Turn::Failed) => {
                    failed.insert(row.name);
                    let Some(env) = env.as_ref().filter(|_| row.what.needs_cluster()) else { continue };
                    // What cannot be mended would fail every row that follows.
                    if let Err(error) = mesh::recover(env).await {
                        broken =
                            Some(error.context(format!("after {} the cluster does not recover", row.name)));
                        break;
                    }
                }
            }
        }
    }
    session.print_table(&failed)?;
    broken.map_or(Ok(failed.is_empty()), Err)
}

impl Session {
    fn records(&self) -> PathBuf {
        match &self.outside {
            None => self.root.join("docs/soak.jsonl"),
            Some(_) => self.folder().join("soak.jsonl"),
        }
    }

    fn attempts(&self) -> PathBuf {
        self.folder().join("attempts.jsonl")
    }

    fn folder(&self) -> PathBuf {
        let folder = self.root.join("target/soak");
        match &self.outside {
            None => folder,
            // Names of contexts may have slashes in them.
            Some(context) => folder.join(context.replace(|c: char| !c.is_ascii_alphanumeric(), "-")),
        }
    }

    /// Why the row cannot be tried on this cluster.
    fn not_here(&self, row: &Row) -> Option<&'static str> {
        self.outside.as_ref().and_then(|_| row.what.local_because())
    }

    fn is_over(&self) -> bool {
        self.time.is_some_and(|time| self.start.elapsed() >= time)
    }

    /// Rows with the hash of their files, taken before anything is built from them.
    fn missing(&self, only: Option<&str>) -> Result<Vec<(&'static Row, String)>> {
        if let Some(name) = only {
            let Some(row) = ROWS.iter().find(|row| row.name == name) else {
                let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                bail!("there is no row {name}; rows are {}", known.join(", "));
            };
            if let Some(why) = self.not_here(row) {
                bail!("{name} cannot be run outside: {why}");
            }
            return Ok(vec![(row, inputs::hash(&self.root, row)?)]);
        }
        let records = load::<Record>(&self.records())?;
        let mut missing = Vec::new();
        for row in ROWS {
            if let Some(why) = self.not_here(row) {
                println!("not run outside: {}, {why}", row.name);
                continue;
            }
            let inputs = inputs::hash(&self.root, row)?;
            if counting(&records, row, &inputs).is_none() {
                missing.push((row, inputs));
            }
        }
        Ok(missing)
    }

    async fn turn(&self, env: Option<&Env>, row: &Row, inputs: &str) -> Result<Turn> {
        loop {
            let standing = standing(&load::<Attempt>(&self.attempts())?, row, inputs);
            if standing.next >= row.needed {
                let date = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let commit = inputs::commit(&self.root, row)?;
                let record = finished(row, &standing, commit, date, inputs);
                println!("{}: {:?}", row.name, record.figures);
                append(&self.records(), &record)?;
                forget(&self.attempts(), row)?;
                return Ok(Turn::Finished);
            }
            if self.is_over() {
                return Ok(Turn::OutOfTime);
            }
            let repetition = standing.next;
            println!("{} {} of {}", row.name, repetition + 1, row.needed);
            let random = Random::of_repetition(row.seed, repetition);
            let outcome = repeat(env, row.what, random, repetition).await;
            if inputs::hash(&self.root, row)? != inputs {
                bail!("files that {} depends on changed since the images were built: start again", row.name);
            }
            let failed = outcome.is_err();
            let (figures, error) = match outcome {
                Ok(figures) => (figures, None),
                Err(error) => (Vec::new(), Some(format!("{error:#}"))),
            };
            if let Some(error) = &error {
                eprintln!("{} {} of {} failed: {error}", row.name, repetition + 1, row.needed);
                if let Some(env) = env.filter(|_| row.what.needs_cluster()) {
                    kept(env, &format!("soak-{}-{repetition}", row.name), error).await;
                }
            }
            let attempt =
                Attempt { row: row.name.to_owned(), inputs: inputs.to_owned(), repetition, figures, error };
            append(&self.attempts(), &attempt)?;
            if failed {
                return Ok(Turn::Failed);
            }
        }
    }

    fn print_table(&self, failed: &BTreeSet<&str>) -> Result<()> {
        let records = load::<Record>(&self.records())?;
        let attempts = load::<Attempt>(&self.attempts())?;
        println!("\n{:28} {:10} {:>7}  {:10} figures", "row", "state", "done", "commit");
        for row in ROWS {
            let inputs = inputs::hash(&self.root, row).context("hash what a row depends on")?;
            let record = counting(&records, row, &inputs);
            let standing = standing(&attempts, row, &inputs);
            let (state, done) = match (record, standing.next) {
                _ if failed.contains(row.name) => ("failed", standing.next),
                _ if self.not_here(row).is_some() => ("not here", 0),
                (Some(record), _) => ("done", record.repetitions),
                (None, 0) => ("missing", 0),
                (None, next) => ("begun", next),
            };
            let commit = record.map_or("-", |r| r.commit.get(..8).unwrap_or(&r.commit));
            let figures = record.map(|r| r.figures.clone()).unwrap_or_default();
            let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
            let done = format!("{done}/{}", row.needed);
            println!("{:28} {state:10} {done:>7}  {commit:10} {}", row.name, figures.join(", "));
        }
        Ok(())
    }
}

/// One repetition outside any row, as a test does it, on whatever the last test left; prints its figures.
///
/// # Errors
/// When what must never happen did; logs and Events are kept.
pub async fn once(env: &Env, what: What, repetition: u32) -> Result<()> {
    match repeat(Some(env), what, Random::of_repetition(1, repetition), repetition).await {
        Ok(figures) => {
            println!("{what:?}: {figures:?}");
            Ok(())
        }
        Err(error) => {
            let text = format!("{what:?} {repetition}");
            kept(env, &text.replace(|c: char| !c.is_ascii_alphanumeric(), "-"), &format!("{error:#}")).await;
            // What this one broke must not fail the next test.
            mesh::recover(env).await.with_context(|| format!("recover after: {error:#}"))?;
            Err(error)
        }
    }
}

/// Keeps what can tell later why something failed.
async fn kept(env: &Env, name: &str, error: &str) {
    keep_all(&env.client, name, &[NAMESPACE, MESH, mesh::OPERATOR_NAMESPACE]).await;
    let folder = workspace().join("target/kept").join(name);
    if let Err(error) = std::fs::write(folder.join("error.txt"), error) {
        eprintln!("could not keep the error: {error}");
    }
}

async fn repeat(env: Option<&Env>, what: What, random: Random, repetition: u32) -> Result<Vec<Figure>> {
    let cluster = || env.context("a cluster");
    match what {
        What::OperatorKilled { writes } => operator::killed(cluster()?, repetition, random, writes).await,
        What::TwoLeaders => operator::two_leaders(cluster()?, repetition, random).await,
        What::LeaderLost => operator::leader_lost(cluster()?).await,
        What::UnderLoad { action, seconds } => under_load::run(cluster()?, action, seconds, repetition).await,
        What::GatewayKilled { seconds } => loss::gateway_killed(cluster()?, random, seconds).await,
        What::NodeLost { seconds } => loss::node_lost(cluster()?, repetition, seconds).await,
        What::Deleted(target) => deletion::run(cluster()?, target).await,
        What::Idle { seconds } => idle::run(cluster()?, seconds).await,
        What::Upgrade { asking } => upgrade::run(cluster()?, asking).await,
        What::EqualUpgrade => upgrade::equal(cluster()?).await,
        What::DisturbedUpgrade => disturbed::run(cluster()?, repetition, random).await,
        What::BadVersion => bad_versions::run(cluster()?, repetition).await,
        What::NodeHandover => node_proxies::handover(cluster()?, repetition).await,
        What::JoinLeave { times } => node_proxies::join_leave(cluster()?, times).await,
        What::NodeProxiesKilled => node_proxies::killed(cluster()?, repetition).await,
        What::ControlPlaneAway { minutes } => away::run(cluster()?, repetition, minutes).await,
        What::PodChurn { pods } => churn::churn(cluster()?, repetition, pods).await,
        What::CniBurst { pods } => churn::burst(cluster()?, repetition, pods).await,
        What::InstallUninstall => uninstall::run(cluster()?, repetition).await,
        What::Analysis { upgrades, first_seed } => {
            tokio::task::spawn_blocking(move || analysis::run(repetition, upgrades, first_seed)).await?
        }
    }
}
