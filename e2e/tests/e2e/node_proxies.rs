//! The mesh between pods: those that run join it and leave it, what they say then is not readable on the wire, and the proxies of the nodes
//! are replaced under them. Under load, and nobody notices.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Result, ensure};
use meshwright_e2e::soak::{self, What, have_risen};
use meshwright_e2e::testing::{Capture, MARKER, Members, eventually, handshakes, kill_node_proxy};

use crate::env::{DEADLINE, Env};

/// Connections in which nothing may be readable, of all targets together: 30 a second.
const ENOUGH: u64 = 300;
/// Between two looks at whether the last plaintext connection is already an old one.
const A_FEW: u64 = 30;

/// With a capture on every node's end of the pods' veth pairs that must see plaintext before, and none afterwards.
#[tokio::test]
async fn pods_that_run_join_the_mesh_and_leave_it_and_nobody_notices() -> Result<()> {
    with_members("joining", async |env, members| {
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
    soak::once(&Env::with_mesh().await?, What::NodeHandover, 1).await
}

/// Only what goes to its node and comes from it waits for an Envoy that ended, or for all of its pod.
#[tokio::test]
async fn killed_proxies_of_a_node_cost_that_node_alone_and_not_for_long() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::NodeProxiesKilled, 1).await
}

/// Many at once, on one node.
#[tokio::test]
async fn pods_of_the_mesh_that_start_at_once_hardly_wait_for_it() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::CniBurst { pods: 30 }, 0).await
}

/// Neither listeners nor rules, certificates, sockets or networks.
#[tokio::test]
async fn pods_that_come_and_go_leave_nothing_on_the_nodes() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::PodChurn { pods: 12 }, 0).await
}

/// As long as it takes to see it; `make soak` does so for ten minutes.
#[tokio::test]
async fn while_the_control_plane_is_away_pods_go_on_and_new_ones_wait() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::ControlPlaneAway { minutes: 1 }, 0).await
}

/// One after the other: Envoy and the rules go on, and the agent that comes next takes all of it up.
#[tokio::test]
async fn killed_agents_of_the_nodes_are_missed_by_nobody() -> Result<()> {
    with_members("agents", async |env, members| {
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

/// What [`soak::with_members`] does, without figures.
pub async fn with_members(what: &str, acting: impl AsyncFnOnce(&Env, &Members) -> Result<()>) -> Result<()> {
    let env = &Env::with_mesh().await?;
    let acting = async |env: &Env, members: &Members| acting(env, members).await.map(|()| Vec::new());
    soak::with_members(env, what, None, acting).await.map(drop)
}
