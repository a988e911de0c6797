//! `make test`, `make demo` and what they share: build, cluster, install.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use meshwright_e2e::outside::{AUDIT_LOG, NETWORKS, PACKETS, POWER, SIGNALS};
use meshwright_e2e::product::{
    self, Tally, build_test, cache, cluster_command, installed, run, run_cargo_tests, run_test, timed,
    workspace,
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
const IDENTITIES: &str = "policy::an_identity_is_refused_and_another_is_not";
const SPLIT: &str =
    "tcp_route::connections_follow_the_weights_of_a_tcp_route_and_the_service_itself_when_it_is_gone";
const WRONG: &str = "gateway::a_missing_secret_fails_its_listener_only_and_a_missing_backend_answers_500";
/// What changes nothing that others' Gateways see and nothing of the mesh's revision: it runs beside the conformance suite, which mostly waits,
/// in two rows. Those of one row use the same namespace, or take as long as those of the other; names decide the order within a row.
const BESIDE: [&[&str]; 2] = [
    &[BOOKINFO, CONTEST, WRONG, BURST, IDENTITIES],
    // Nothing that waits for agents runs beside the first of these, which kills them.
    &[KILLED_AGENTS, JOINING, COUNTED, SPLIT],
];
const HANDOVER: &str = "node_proxies::node_proxies_are_replaced_under_pods_and_back_and_nobody_notices";
/// What is measured in seconds at most: it may run while unit tests are built and run.
const FIRST: [&str; 4] = ["api::", "faults::", "mesh::", HANDOVER];
/// It leaves a mesh with another setting, and the way back takes a minute and a half: the next one begins with another mesh.
const TWO_LEADERS: &str = "faults::two_leaders_at_once_cannot_harm";
const UPGRADES: &str = "upgrade::";
/// They take the mesh away.
const DELETION: &str = "deletion::";
/// As [`rustix::process::nice`] has it.
const ASIDE: i32 = 15;
/// End-to-end tests that need a cluster on this machine, and what for.
const NOT_OUTSIDE: [(&str, &str); 17] = [
    ("mesh::nothing_is_written_in_two_idle_minutes", AUDIT_LOG),
    (CONTEST, AUDIT_LOG),
    ("faults::an_operator_killed_in_the_middle_converges", SIGNALS),
    (TWO_LEADERS, SIGNALS),
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
    let program = if outside {
        // First what may be refused there.
        installed(&cluster).await?;
        ensure_oha(&cache()?)?;
        build_tests()?
    } else {
        prereq::check(&workspace())?;
        let runtime = Handle::current();
        let install = || {
            build_tools()?;
            runtime.block_on(installed(&cluster)).map(drop)
        };
        beside(install, build_tests)?.1
    };
    // They are built and run with what the cluster's tests, which mostly wait, leave of the processors.
    let units = std::thread::spawn(|| {
        rustix::process::nice(ASIDE).context("lower the priority")?;
        let units = unit();
        build_for_upgrades();
        units
    });
    let mut tally = on_cluster(&cluster, &program, outside).await?;
    match units.join() {
        Ok(units) => tally.add(units?),
        Err(_) => bail!("what ran beside the tests panicked"),
    }
    if fresh {
        run(cluster_command(&["down"]))?;
    }
    Ok(tally)
}

async fn on_cluster(cluster: &Cluster, program: &Path, outside: bool) -> Result<Tally> {
    let end_to_end = |only: &[&str], but: &[&str]| end_to_end(program, only, but);
    // At another time, or never.
    let mut other: Vec<&str> = if outside {
        NOT_OUTSIDE.iter().for_each(|(test, why)| println!("not run outside: {test}, {why}"));
        NOT_OUTSIDE.iter().map(|(test, _)| *test).collect()
    } else {
        BESIDE.into_iter().flatten().copied().chain([TWO_LEADERS]).collect()
    };
    let mut tally = end_to_end(&FIRST, &other)?;
    if !outside {
        tally.add(end_to_end(&[TWO_LEADERS], &[])?);
    }
    tally.add(end_to_end(&[UPGRADES], &other)?);
    other.extend(FIRST.into_iter().chain([UPGRADES, DELETION]));
    tally.add(end_to_end(&[], &other)?);
    let conformance = conformance::ready(cluster).await?;
    let hurrying = hurrying().await?;
    let conformance = || timed("conformance", || conformance::run(conformance));
    if outside {
        tally.add(conformance()?);
    } else {
        let [one, other] = BESIDE;
        let rows = || beside(|| end_to_end(one, &[]), || end_to_end(other, &[]));
        let (conformance, (one, other)) = beside(conformance, rows)?;
        [conformance, one, other].into_iter().for_each(|of| tally.add(of));
    }
    hurrying.abort();
    tally.add(end_to_end(&[DELETION], &[])?);
    Ok(tally)
}

/// Those on the cluster; the rest is built beside them.
fn build_tests() -> Result<PathBuf> {
    timed("end-to-end tests built", || build_test("e2e"))
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

/// Runs those with one of these in their names, or all where there are none, without those that have one of the others.
fn end_to_end(program: &Path, only: &[&str], but: &[&str]) -> Result<Tally> {
    let mut args = vec!["--test-threads=1", "--nocapture"];
    args.extend(only);
    args.extend(but.iter().flat_map(|test| ["--skip", *test]));
    timed("end-to-end tests", || run_test(program, "e2e", &args))
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
