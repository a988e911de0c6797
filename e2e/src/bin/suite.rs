//! `make test`, `make demo` and what they share: build, cluster, install.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use meshwright_e2e::product::{self, Tally, cluster_command, installed, run, run_cargo_tests, timed};
use meshwright_e2e::{Cluster, conformance, prereq};

/// End-to-end tests that need a cluster on this machine, and what for.
const NOT_OUTSIDE: [(&str, &str); 8] = [
    ("mesh::nothing_is_written_in_five_idle_minutes", AUDIT),
    ("faults::a_field_that_a_policy_keeps_changing_is_reported_and_not_fought", AUDIT),
    ("faults::an_operator_killed_in_the_middle_converges", SIGNALS),
    ("faults::two_leaders_at_once_cannot_harm", SIGNALS),
    ("faults::when_the_leader_is_killed_the_other_replica_acts", SIGNALS),
    ("under_load::killing_every_control_plane_pod_and_the_operators_leader_fails_no_request", SIGNALS),
    ("under_load::a_killed_gateway_pod_costs_its_own_connections_only", SIGNALS),
    ("under_load::a_lost_node_costs_what_went_to_it_until_its_endpoints_are_gone", "it cuts a node's power"),
];
const AUDIT: &str = "it reads the API server's audit log";
const SIGNALS: &str = "it sends signals to processes of pods";

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
        What::Unit => prereq::to_fetch().and_then(|()| unit()).map(Some),
        What::Conformance => conformance_alone().await.map(Some),
        What::Demo => demo().await.map(|()| None),
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(tally)) => {
            for reason in &tally.reasons {
                println!("failed: {reason}");
            }
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
    let cluster = Cluster::chosen()?.disposable().await?;
    let (outside, fresh) = (cluster.context().is_some(), Cluster::current().is_err());
    let mut tally = if outside {
        // First what may be refused there.
        installed(&cluster).await?;
        unit()?
    } else {
        prereq::check(&product::workspace())?;
        // The Go programs build beside the Rust tests: neither keeps two cores busy all the time.
        let programs =
            cluster_command(&["build-programs"]).spawn().context("start building the cluster's programs")?;
        let unit = unit();
        ended(programs)?;
        let tally = unit?;
        installed(&cluster).await?;
        tally
    };
    let mut filter = vec!["--skip", "deletion::"];
    if outside {
        for (test, why) in NOT_OUTSIDE {
            println!("not run outside: {test}, {why}");
            filter.extend(["--skip", test]);
        }
    }
    tally.add(end_to_end(&filter)?);
    tally.add(conformance::run(&cluster).await?);
    tally.add(end_to_end(&["deletion::"])?);
    if fresh {
        run(cluster_command(&["down"]))?;
    }
    Ok(tally)
}

fn unit() -> Result<Tally> {
    let envoy = product::ensure_envoy(&product::cache()?)?;
    let env = [("ENVOY_BIN", envoy.display().to_string())];
    timed("unit and property tests", || {
        run_cargo_tests(&["--workspace", "--lib", "--bins", "--no-fail-fast"], &env)
    })
}

fn end_to_end(filter: &[&str]) -> Result<Tally> {
    let mut args = vec!["-p", "meshwright-e2e", "--test", "e2e", "--", "--test-threads=1", "--nocapture"];
    args.extend(filter);
    timed("end-to-end tests", || run_cargo_tests(&args, &[]))
}

async fn conformance_alone() -> Result<Tally> {
    let cluster = Cluster::chosen()?.disposable().await?;
    installed(&cluster).await?;
    conformance::run(&cluster).await
}

async fn demo() -> Result<()> {
    let cluster = Cluster::chosen()?;
    installed(&cluster).await?;
    meshwright_e2e::demo::show(&cluster).await
}

fn ended(mut child: std::process::Child) -> Result<()> {
    let status = child.wait().context("wait for the cluster's programs")?;
    ensure!(status.success(), "building the cluster's programs ended with {status}");
    Ok(())
}
