//! Build, cluster, install: the way that demo, tests, soak and bench have in common.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Dist, build, cache};
use crate::Cluster;
use crate::testing::ensure_oha;

/// Builds `target/dist`, starts the cluster where none runs, loads the images and applies the install files.
///
/// # Errors
/// Names the step that failed.
pub async fn installed() -> Result<Dist> {
    let registry = std::env::var("REGISTRY").unwrap_or_else(|_| "registry.meshwright.example".to_owned());
    let dist = timed("binaries, images, install files", || build(&registry, &[]))?;
    ensure_oha(&cache()?)?;
    run(cluster_command(&["up"]))?;
    let mut load = cluster_command(&["load"]);
    load.args(dist.images().map(|image| image.archive.clone()));
    timed("images to the nodes", || run(load))?;
    apply_files(&Cluster::current()?, &dist.folder)?;
    Ok(dist)
}

/// Applies `crds.yaml` and `install.yaml` of this folder.
///
/// # Errors
/// When kubectl does.
pub fn apply_files(cluster: &Cluster, dist: &Path) -> Result<()> {
    for file in ["crds.yaml", "install.yaml"] {
        let mut kubectl = Command::new(cluster.kubectl()?);
        kubectl.arg("--kubeconfig").arg(cluster.kubeconfig());
        kubectl.args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(dist.join(file));
        run(kubectl)?;
    }
    Ok(())
}

/// The program `cluster` with these arguments.
pub fn cluster_command(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "-q", "-p", "meshwright-e2e", "--bin", "cluster", "--"]).args(args);
    command
}

/// Runs a command to its end, its output shown.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// Says how long a step took.
///
/// # Errors
/// The step's.
pub fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let outcome = step();
    eprintln!("==> {what}: {:.0} s", start.elapsed().as_secs_f64());
    outcome
}
