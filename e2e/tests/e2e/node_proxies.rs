//! The mesh between pods: those that run join it and leave it, what they say then is not readable on the wire, and the proxies of the nodes
//! are replaced under them. Under load, and nobody notices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use meshwright_api::{UpgradePhase, labels};
use meshwright_e2e::product::RELEASES;
use meshwright_e2e::soak;
use meshwright_e2e::testing::{
    Attempt, Backend, Capture, Loads, MARKER, Members, ONE_STEP, eventually, handshakes, is_warm, keep_all,
    kill_node_proxy, mesh_yaml, node_proxies_gone, serve_all_nodes, status, wish,
};

use crate::env::{DEADLINE, Env, MESH};

/// Connections in which nothing may be readable, of all targets together: 30 a second.
const ENOUGH: u64 = 300;
/// Whose pods, logs and configuration are kept of a failure.
const KEPT: [&str; 3] = [Members::NAMESPACE, MESH, soak::OPERATOR_NAMESPACE];
/// Seconds that a connection is kept where proxies are replaced: they wait five minutes for connections to end.
const MAX_AGE: u32 = 30;
/// Between two looks at whether the last plaintext connection is already an old one.
const A_FEW: u64 = 30;

/// With a capture on every node's end of the pods' veth pairs that must see plaintext before, and none afterwards.
#[tokio::test]
async fn pods_that_run_join_the_mesh_and_leave_it_and_nobody_notices() -> Result<()> {
    with_members("joining", None, async |env, members| {
        let (caller, own, others) = members.paths()?;
        ensure!(
            !own.is_empty() && !others.is_empty(),
            "called are {own:?} of the caller's node and {others:?}"
        );
        let capture = Capture::start(&env.cluster, MARKER, members.addresses())?;
        eventually("what is called outside of the mesh to be readable", DEADLINE, || async {
            let seen = capture.seen();
            if seen.newest > Some(ENOUGH) && seen.mutual.is_empty() {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await?;
        joins(env, members, &capture).await?;
        gateways_join_in(env, members, &capture).await?;
        let opened = capture.seen().mutual;
        for called in own.iter().chain(&others) {
            ensure!(
                opened.contains(&(caller, *called)),
                "{caller} opened no mutual TLS to {called}: {opened:?}"
            );
        }
        leaves(env, members, &capture).await?;
        joins(env, members, &capture).await?;
        let seen = capture.stop()?;
        println!(
            "  {} packets, {} with the marker, the last of connection {:?}",
            seen.packets, seen.readable, seen.newest
        );
        Ok(())
    })
    .await
}

/// By an upgrade to another revision, first one node and then the others, and back again by hand while the old proxies are warm.
#[tokio::test]
async fn node_proxies_are_replaced_under_pods_and_back_and_nobody_notices() -> Result<()> {
    with_members("replacing", Some(MAX_AGE), async |env, members| {
        members.label(env, true).await?;
        members.are_listed(env, true).await?;
        let before = status(env).await?.active_revision.context("an active revision")?;
        serve_all_nodes(env, &before).await?;
        let other = mesh_yaml(Some(RELEASES[1]), ONE_STEP).replace("memory: 64Mi", "memory: 72Mi");
        let attempt = Attempt::begin(env, RELEASES[1], &other).await?;
        let warm = attempt.reaches(env, "the old revision to be warm", is_warm).await?;
        ensure!(warm.from == before && warm.to != before, "from {} to {}", warm.from, warm.to);
        let waves = warm.done.iter().filter(|done| done.phase == UpgradePhase::ShiftNodes).count();
        ensure!(waves > 1, "the nodes went over in {waves} waves: {:?}", warm.done);
        serve_all_nodes(env, &warm.to).await?;
        serves_all_members(env, members).await?;
        wish(env, Some((labels::ROLLBACK, &warm.to))).await?;
        attempt.goes_back(env).await?;
        serve_all_nodes(env, &before).await?;
        node_proxies_gone(env, &warm.to).await?;
        serves_all_members(env, members).await
    })
    .await
}

/// Calls of members go through the proxies that the nodes have now.
async fn serves_all_members(env: &Env, members: &Members) -> Result<()> {
    members.are_listed(env, true).await?;
    let counted = handshakes(env).await?;
    members.more_connections(env, ENOUGH).await?;
    have_risen(members, &counted, &handshakes(env).await?)
}

/// One after the other: Envoy and the rules go on, and the agent that comes next takes all of it up.
#[tokio::test]
async fn killed_agents_of_the_nodes_are_missed_by_nobody() -> Result<()> {
    with_members("agents", None, async |env, members| {
        members.label(env, true).await?;
        members.are_listed(env, true).await?;
        for node in env.cluster.node_names().await? {
            let back = kill_node_proxy(env, &node, Some("agent")).await?;
            println!("  the agent of {node} is ready again after {:.1} s", back.as_secs_f64());
            members.are_listed(env, true).await?;
            members.more_connections(env, A_FEW).await?;
        }
        members.more_can_join(env).await
    })
    .await
}

/// Joins, and waits until every new connection is mutual TLS and stays so.
async fn joins(env: &Env, members: &Members, capture: &Capture) -> Result<()> {
    let counted = handshakes(env).await?;
    let start = Instant::now();
    members.label(env, true).await?;
    members.are_listed(env, true).await?;
    let listed = start.elapsed();
    // Connections that are older than this stay as they are.
    let since = eventually("new connections to be unreadable", DEADLINE, || async {
        let all = async {
            let since = members.calls(env).await?.connections;
            members.more_connections(env, A_FEW).await?;
            Ok::<_, anyhow::Error>((since, capture.seen()))
        };
        let (since, seen) = all.await.map_err(|e| format!("{e:#}"))?;
        if seen.newest <= Some(since) { Ok(since) } else { Err(format!("of {since} connections: {seen:?}")) }
    })
    .await?;
    let unreadable = start.elapsed();
    let calls = members.more_connections(env, ENOUGH).await?;
    capture.still_looks()?;
    let seen = capture.seen();
    ensure!(
        seen.newest <= Some(since),
        "connection {:?} is readable, between {:?}; {since} were opened before",
        seen.newest,
        seen.newest_between
    );
    println!(
        "  all listed {:.1} s after the label, all unreadable at {:.1} s; since then {} connections",
        listed.as_secs_f64(),
        unreadable.as_secs_f64(),
        calls.connections - since
    );
    have_risen(members, &counted, &handshakes(env).await?)
}

/// Waits until each gateway proxy has spoken mutual TLS to a member. From then on none speaks plaintext to any.
async fn gateways_join_in(env: &Env, members: &Members, capture: &Capture) -> Result<()> {
    let gateways = members.gateways(env).await?;
    ensure!(!gateways.is_empty(), "no gateway proxy calls members");
    eventually("every gateway proxy to speak mutual TLS to members", DEADLINE, || async {
        let opened: BTreeSet<_> = capture.seen().mutual.into_iter().map(|(from, _)| from).collect();
        let missing: Vec<_> = gateways.difference(&opened).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} of {gateways:?} do not")) }
    })
    .await?;
    let plain = || capture.seen().plain.into_iter().filter(|(from, _)| gateways.contains(from));
    let before: Vec<_> = plain().collect();
    members.more_connections(env, A_FEW).await?;
    let now: Vec<_> = plain().collect();
    ensure!(before == now, "gateway proxies opened plaintext connections: {before:?}, then {now:?}");
    Ok(())
}

/// Leaves, and waits until new connections are plaintext again.
async fn leaves(env: &Env, members: &Members, capture: &Capture) -> Result<()> {
    members.label(env, false).await?;
    members.are_listed(env, false).await?;
    let since = members.calls(env).await?.connections;
    eventually("what is called outside of the mesh to be readable again", DEADLINE, || async {
        let seen = capture.seen();
        if seen.newest > Some(since + A_FEW) {
            Ok(())
        } else {
            Err(format!("of {since} connections: {seen:?}"))
        }
    })
    .await
}

/// The proxies of all nodes that have a pod which is called, the caller's among them, have done handshakes meanwhile.
fn have_risen(members: &Members, before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Result<()> {
    println!("  handshakes with clients of each node's pods: {before:?}, then {now:?}");
    for node in members.nodes_called() {
        let (before, now) = (before.get(&node).copied().unwrap_or(0), now.get(&node).copied().unwrap_or(0));
        ensure!(now > before, "the proxy of {node} has done {before} handshakes, then {now}");
    }
    Ok(())
}

/// Does something with pods of an application while they call each other and clients call them through the gateway. Nothing of that fails,
/// and the pods are the same afterwards.
pub async fn with_members(
    what: &str,
    max_age: Option<u32>,
    acting: impl AsyncFnOnce(&Env, &Members) -> Result<()>,
) -> Result<()> {
    let env = &Env::with_mesh().await?;
    let outcome = undisturbed(env, what, max_age, acting).await;
    let restored = async {
        env.delete_namespace(Members::NAMESPACE).await?;
        soak::restored(env).await?;
        soak::settled(env, true).await
    };
    let restored = restored.await;
    outcome.and(restored)
}

async fn undisturbed(
    env: &Env,
    what: &str,
    max_age: Option<u32>,
    acting: impl AsyncFnOnce(&Env, &Members) -> Result<()>,
) -> Result<()> {
    soak::at(env, RELEASES[1]).await?;
    let members = Members::installed(env, max_age).await?;
    members.label(env, false).await?;
    members.are_listed(env, false).await?;
    let loads = Loads::endless(env, members.backend.address, &members.backend.host(), Backend::PATH)?;
    let acted = acting(env, &members).await;
    let unharmed = members.are_unharmed(env).await;
    if acted.is_err() || unharmed.is_err() {
        // At once: what proxies have may be another thing when the loads have ended.
        keep_all(&env.client, &format!("node-proxies-{what}"), &KEPT).await;
    }
    // Also after a failure: what comes next must not begin under this load.
    let reports = loads.stop(&format!("  {what}")).await;
    acted?;
    unharmed?;
    for report in reports? {
        ensure!(report.failed() == 0, "{what}: {report:?}");
    }
    Ok(())
}
