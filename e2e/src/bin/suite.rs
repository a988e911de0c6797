//! `make test`, `make demo` and what they share: build, cluster, install.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use meshwright_e2e::outside::{AUDIT_LOG, NETWORKS, PACKETS, POWER, SIGNALS};
use meshwright_e2e::product::{
    self, Tally, cache, cluster_command, installed, run, run_cargo_tests, timed, workspace,
};
use meshwright_e2e::testing::{Env, ensure_oha};
use meshwright_e2e::{Cluster, conformance, prereq};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// It waits for minutes, and needs nothing but the mesh's own namespace.
const CONTEST: &str = "faults::a_field_that_a_policy_keeps_changing_is_reported_and_not_fought";
const KILLED_AGENTS: &str = "node_proxies::killed_agents_of_the_nodes_are_missed_by_nobody";
const JOINING: &str = "node_proxies::pods_that_run_join_the_mesh_and_leave_it_and_nobody_notices";
const BOOKINFO: &str = "bookinfo::each_step_of_the_walk_through_gives_its_shares";
const BURST: &str = "node_proxies::pods_of_the_mesh_that_start_at_once_hardly_wait_for_it";
const COUNTED: &str = "signals::the_nodes_proxies_count_who_calls_whom";
/// What changes nothing that Gateways see and nothing of the mesh's revision: it runs beside the conformance suite, which mostly waits, in
/// two rows. Those of one row use the same namespace, or take as long as those of the other.
const BESIDE: [[&str; 3]; 2] = [[CONTEST, BOOKINFO, BURST], [KILLED_AGENTS, JOINING, COUNTED]];
/// Every test that there is; `process` is that of Bookinfo's binary.
const ALL: [&str; 7] = ["--workspace", "--lib", "--bins", "--test", "process", "--test", "e2e"];
/// As [`rustix::process::nice`] has it.
const ASIDE: i32 = 15;
/// End-to-end tests that need a cluster on this machine, and what for.
const NOT_OUTSIDE: [(&str, &str); 17] = [
    ("mesh::nothing_is_written_in_two_idle_minutes", AUDIT_LOG),
    (CONTEST, AUDIT_LOG),
    ("faults::an_operator_killed_in_the_middle_converges", SIGNALS),
    ("faults::two_leaders_at_once_cannot_harm", SIGNALS),
    ("faults::when_the_leader_is_killed_the_other_replica_acts", SIGNALS),
    (KILLED_AGENTS, SIGNALS),
    (JOINING, PACKETS),
    ("node_proxies::killed_proxies_of_a_node_cost_that_node_alone_and_not_for_long", SIGNALS),
    ("node_proxies::pods_that_come_and_go_leave_nothing_on_the_nodes", NETWORKS),
    ("node_proxies::while_the_control_plane_is_away_pods_go_on_and_new_ones_wait", SIGNALS),
    ("policy::strict_pods_refuse_plaintext_from_everybody_also_while_envoy_is_stopped", SIGNALS),
    ("under_load::killing_every_control_plane_pod_and_the_operators_leader_fails_no_request", SIGNALS),
    ("under_load::a_killed_gateway_pod_costs_its_own_connections_only", SIGNALS),
    ("under_load::a_lost_node_costs_what_went_to_it_until_its_endpoints_are_gone", POWER),
    ("upgrade::a_newer_operator_writes_nothing_to_an_older_mesh", AUDIT_LOG),
    ("upgrade::bad_version_with_errors_goes_back_by_itself", AUDIT_LOG),
    ("upgrade::bad_version_without_a_route_is_blocked_before_it_gets_traffic", AUDIT_LOG),
];

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
    /// Official Gateway API suite, profiles GATEWAY-HTTP, MESH-HTTP and MESH-GRPC
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
    if outside {
        // First what may be refused there.
        installed(&cluster).await?;
        ensure_oha(&cache()?)?;
    } else {
        prereq::check(&workspace())?;
        let runtime = Handle::current();
        let install = || {
            build_tools()?;
            runtime.block_on(installed(&cluster)).map(drop)
        };
        beside(install, build_tests)?;
    }
    // They get what the cluster's tests, which mostly wait, leave of the processors.
    let units = std::thread::spawn(|| {
        rustix::process::nice(ASIDE).context("lower the priority")?;
        let units = unit();
        build_for_upgrades();
        units
    });
    let mut tally = on_cluster(&cluster, outside).await?;
    match units.join() {
        Ok(units) => tally.add(units?),
        Err(_) => bail!("what ran beside the tests panicked"),
    }
    if fresh {
        run(cluster_command(&["down"]))?;
    }
    Ok(tally)
}

async fn on_cluster(cluster: &Cluster, outside: bool) -> Result<Tally> {
    let mut filter = vec!["--skip", "deletion::"];
    if outside {
        for (test, why) in NOT_OUTSIDE {
            println!("not run outside: {test}, {why}");
            filter.extend(["--skip", test]);
        }
    } else {
        filter.extend(BESIDE.iter().flatten().flat_map(|test| ["--skip", *test]));
    }
    let mut tally = end_to_end(&filter)?;
    let conformance = conformance::ready(cluster).await?;
    let hurrying = hurrying().await?;
    let conformance = || timed("conformance", || conformance::run(conformance));
    if outside {
        tally.add(conformance()?);
    } else {
        let [one, other] = BESIDE;
        let rows = || beside(|| end_to_end(&one), || end_to_end(&other));
        let (conformance, (one, other)) = beside(conformance, rows)?;
        [conformance, one, other].into_iter().for_each(|of| tally.add(of));
    }
    hurrying.abort();
    tally.add(end_to_end(&["deletion::"])?);
    Ok(tally)
}

fn build_tests() -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).args(["test", "-q", "--no-run"]).args(ALL);
    timed("tests built", || run(cargo))
}

fn unit() -> Result<Tally> {
    let envoy = product::ensure_envoy(&cache()?)?;
    let env = [("ENVOY_BIN", envoy.display().to_string())];
    timed("unit and property tests", || {
        // Examples in documentation cannot be run together with others.
        let tests = ["--workspace", "--no-fail-fast", "--lib", "--bins", "--test", "process"];
        let mut tally = run_cargo_tests(&tests, &env)?;
        tally.add(run_cargo_tests(&["--workspace", "--no-fail-fast", "--doc"], &env)?);
        Ok(tally)
    })
}

/// Before a test of an upgrade waits for it, which says so itself where it cannot be built.
fn build_for_upgrades() {
    if let Err(error) = product::build_faulty() {
        eprintln!("the control plane with faults is not built yet: {error:#}");
    }
}

fn end_to_end(filter: &[&str]) -> Result<Tally> {
    // Of the whole workspace, or cargo would build it another time with fewer features.
    let mut args = vec!["--workspace", "--test", "e2e", "--", "--test-threads=1", "--nocapture"];
    args.extend(filter);
    timed("end-to-end tests", || run_cargo_tests(&args, &[]))
}

async fn conformance_alone() -> Result<Tally> {
    let cluster = Cluster::chosen()?.disposable().await?;
    installed(&cluster).await?;
    let conformance = conformance::ready(&cluster).await?;
    let hurrying = hurrying().await?;
    let tally = conformance::run(conformance);
    hurrying.abort();
    tally
}

/// The suite's namespaces end sooner as long as this runs.
async fn hurrying() -> Result<JoinHandle<()>> {
    Ok(tokio::spawn(Env::connect().await?.hurry(conformance::NAMESPACES)))
}

async fn demo() -> Result<()> {
    let cluster = Cluster::chosen()?;
    installed(&cluster).await?;
    meshwright_e2e::demo::show(&cluster).await
}

/// Programs that end-to-end tests need and unit tests do not.
fn build_tools() -> Result<()> {
    run(cluster_command(&["build-programs"]))?;
    product::build_plugin()?;
    ensure_oha(&cache()?).map(drop)
}

/// Does both at once: neither keeps two cores busy all the time.
fn beside<A: Send, B>(
    background: impl FnOnce() -> Result<A> + Send,
    tests: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let background = scope.spawn(background);
        let tests = tests();
        match background.join() {
            Ok(outcome) => Ok((outcome?, tests?)),
            Err(_) => bail!("what ran beside the tests panicked"),
        }
    })
}
