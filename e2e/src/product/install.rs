//! Build, cluster, install: the way that demo, tests, soak and bench have in common.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{Dist, build, workspace};
use crate::{Cluster, prereq};

/// What `REGISTRY` is where nobody sets it: enough for a cluster that the images are loaded into.
const NO_REGISTRY: &str = "registry.meshwright.example";

/// Builds `target/dist` and applies the install files. The checkout's own cluster is started where it does not run, and the images
/// are loaded into it; one outside pulls them from the registry that they were pushed to.
///
/// # Errors
/// Names the step that failed.
pub async fn installed(cluster: &Cluster) -> Result<Dist> {
    let registry = registry(std::env::var("REGISTRY").unwrap_or_default(), cluster.context())?;
    // First what may be refused.
    match cluster.context() {
        Some(_) => drop(cluster.kube_system().await?),
        None => prereq::check(&workspace())?,
    }
    let dist = timed("binaries, images, install files", || build(&registry, &[]))?;
    if cluster.context().is_some() {
        dist.ensure_pushed()?;
    } else {
        run(cluster_command(&["up"]))?;
        let mut load = cluster_command(&["load"]);
        load.args(dist.images().into_iter().map(|image| image.archive.as_path()));
        timed("images to the nodes", || run(load))?;
    }
    apply_files(cluster, &dist.folder)?;
    Ok(dist)
}

fn registry(given: String, context: Option<&str>) -> Result<String> {
    let given = if given.is_empty() { NO_REGISTRY.to_owned() } else { given };
    ensure!(
        context.is_none() || given != NO_REGISTRY,
        "a cluster outside pulls its images from a registry: run `make dist REGISTRY=prefix`, then target/dist/push.sh, then this with \
         the same REGISTRY"
    );
    Ok(given)
}

/// Applies `crds.yaml` and `install.yaml` of this folder.
///
/// # Errors
/// When kubectl does.
pub fn apply_files(cluster: &Cluster, dist: &Path) -> Result<()> {
    ["crds.yaml", "install.yaml"].into_iter().try_for_each(|file| apply_file(cluster, &dist.join(file)))
}

/// Applies a file as the documentation says it.
///
/// # Errors
/// When kubectl does.
pub fn apply_file(cluster: &Cluster, path: &Path) -> Result<()> {
    let mut kubectl = cluster.kubectl()?;
    kubectl.args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(path);
    run(kubectl)
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

#[cfg(test)]
mod tests {
    use super::{NO_REGISTRY, registry};

    #[test]
    fn a_cluster_outside_needs_a_registry_and_the_own_one_does_not() {
        let ours = "registry.example.com/mesh".to_owned();
        assert_eq!(registry(String::new(), None).unwrap(), NO_REGISTRY);
        assert_eq!(registry(ours.clone(), None).unwrap(), ours);
        assert_eq!(registry(ours.clone(), Some("kind")).unwrap(), ours);
        for missing in ["", NO_REGISTRY] {
            assert!(registry(missing.to_owned(), Some("kind")).is_err());
        }
    }
}
