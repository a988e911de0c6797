//! `make test`, `make demo` and what they share: build, cluster, install.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use meshwright_e2e::product::{self, Dist, Tally, run_cargo_tests};
use meshwright_e2e::testing::ensure_oha;
use meshwright_e2e::{Cluster, conformance};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Unit, property, end-to-end and conformance tests
    Test,
    /// Unit and property tests
    Unit,
    /// Official Gateway API suite, profile GATEWAY-HTTP
    Conformance,
    /// A mesh with Bookinfo to play with
    Demo,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        What::Test => test().await.map(Some),
        What::Unit => unit().map(Some),
        What::Conformance => conformance_alone().await.map(Some),
        What::Demo => demo().await.map(|()| None),
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(tally)) => {
            println!("{} passed, {} failed", tally.passed, tally.failed);
            if tally.failed == 0 && tally.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

async fn test() -> Result<Tally> {
    let fresh = Cluster::current().is_err();
    // The Go programs build beside the Rust tests: neither keeps two cores busy all the time.
    let programs = cluster_command(&["build-programs"]).spawn().context("start building the cluster's programs")?;
    let unit = unit();
    ended(programs)?;
    let mut tally = unit?;
    let _dist = installed().await?;
    tally.add(end_to_end(&["--skip", "deletion::"])?);
    tally.add(conformance::run(&Cluster::current()?).await?);
    tally.add(end_to_end(&["deletion::"])?);
    if fresh {
        run(cluster_command(&["down"]))?;
    }
    Ok(tally)
}

fn unit() -> Result<Tally> {
    let envoy = product::ensure_envoy(&product::cache()?)?;
    let env = [("ENVOY_BIN", envoy.display().to_string())];
    timed("unit and property tests", || run_cargo_tests(&["--workspace", "--lib", "--bins"], &env))
}

fn end_to_end(filter: &[&str]) -> Result<Tally> {
    let mut args = vec!["-p", "meshwright-e2e", "--test", "e2e", "--", "--test-threads=1", "--nocapture"];
    args.extend(filter);
    timed("end-to-end tests", || run_cargo_tests(&args, &[]))
}

async fn conformance_alone() -> Result<Tally> {
    installed().await?;
    conformance::run(&Cluster::current()?).await
}

/// Builds `target/dist`, starts the cluster where none runs, loads the images and applies the install files.
async fn installed() -> Result<Dist> {
    let registry = std::env::var("REGISTRY").unwrap_or_else(|_| "registry.meshwright.example".to_owned());
    let dist = timed("binaries, images, install files", || product::build(&registry, &[]))?;
    ensure_oha(&product::cache()?)?;
    run(cluster_command(&["up"]))?;
    let mut load = cluster_command(&["load"]);
    load.args(dist.images().map(|image| image.archive.clone()));
    timed("images to the nodes", || run(load))?;
    let cluster = Cluster::current()?;
    for file in ["crds.yaml", "install.yaml"] {
        let mut kubectl = Command::new(cluster.kubectl()?);
        kubectl.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["apply", "--server-side", "--force-conflicts", "-f"]);
        run({
            kubectl.arg(dist.folder.join(file));
            kubectl
        })?;
    }
    Ok(dist)
}

async fn demo() -> Result<()> {
    installed().await?;
    meshwright_e2e::demo::show().await
}

fn cluster_command(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["run", "-q", "-p", "meshwright-e2e", "--bin", "cluster", "--"]).args(args);
    command
}

fn run(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn ended(mut child: std::process::Child) -> Result<()> {
    let status = child.wait().context("wait for the cluster's programs")?;
    ensure!(status.success(), "building the cluster's programs ended with {status}");
    Ok(())
}

fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let outcome = step();
    eprintln!("==> {what}: {:.0} s", start.elapsed().as_secs_f64());
    outcome
}
