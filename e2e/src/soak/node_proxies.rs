//! The proxies of the nodes are replaced under pods that call each other, pods join and leave, and proxies end in every way that a process can.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meshwright_api::{UpgradePhase, labels};

use super::figures::Figure;
use super::kill::{fresh, kill, replaced};
use super::mesh::present;
use super::rollout::{EACH, GLIMPSE, lived};
use super::with_members::with_members;
use crate::product::RELEASES;
use crate::testing::{
    Attempt, EachNode, Env, IN_PLACE, MESH, Many, Members, NodeProxy, Path, Streams, are_listed, handshakes,
    is_warm, kill_node_proxy, mesh_yaml, node_proxies_gone, out_of_service, serve_all_nodes, status, wish,
};

/// Connections in which nothing may fail after something was done, of all targets together: 30 a second.
const ENOUGH: u64 = 300;
/// Seconds that a connection is kept where proxies are replaced: they wait five minutes for connections to end.
const MAX_AGE: u32 = 30;
/// One step, and enough time to go back. Whoever called a minute ago, and no more now, must not hold it up for longer than a deadline.
const WAVES: &str = "{ steps: [ { percent: 50, hold: 10s } ], bake: 10s, keepWarm: 5m, \
                     analysis: { deadline: 3m, onInsufficient: Continue } }";
/// Pods of the nodes' proxies.
pub const NODE_PROXIES: &str = "meshwright.io/component=node";
/// Namespace of the pods that are asked on every path.
const NAMESPACE: &str = "each-node";
/// Of questions before something ends, and after it is there again.
const LEAD: Duration = Duration::from_secs(5);
/// Longer is no short outage any more, on the slowest machine: about three seconds are wanted, and this is what fails.
const LONGEST_OUTAGE: Duration = Duration::from_secs(15);

/// In one step there, and back; every other time with all steps and with streams through the gateway, and back by hand while the old proxies
/// are warm.
///
/// # Errors
/// When somebody noticed.
pub async fn handover(env: &Env, repetition: u32) -> Result<Vec<Figure>> {
    with_members(env, "handover", Some(MAX_AGE), async |env, members| {
        members.label(env, true).await?;
        members.are_listed(env, true).await?;
        let before = status(env).await?.active_revision.context("an active revision")?;
        serve_all_nodes(env, &before).await?;
        let figures = if repetition.is_multiple_of(2) {
            in_place(env, &before).await?
        } else {
            by_hand(env, members, &before).await?
        };
        serves_all_members(env, members).await?;
        Ok(figures)
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

/// Another revision, as any change of a setting that reaches proxies makes one.
fn other(upgrade: &str) -> String {
    mesh_yaml(Some(RELEASES[1]), upgrade).replace("memory: 64Mi", "memory: 72Mi")
}

async fn in_place(env: &Env, before: &str) -> Result<Vec<Figure>> {
    let start = Instant::now();
    let record = Attempt::begin(env, RELEASES[1], &other(IN_PLACE)).await?.succeeds(env).await?;
    ensure!(record.from == before && record.to != before, "from {} to {}", record.from, record.to);
    serve_all_nodes(env, &record.to).await?;
    let there = start.elapsed();
    node_proxies_gone(env, before).await?;
    let start = Instant::now();
    let yaml = mesh_yaml(Some(RELEASES[1]), IN_PLACE);
    let back = Attempt::begin(env, RELEASES[1], &yaml).await?.succeeds(env).await?;
    serve_all_nodes(env, &back.to).await?;
    let took = start.elapsed();
    node_proxies_gone(env, &record.to).await?;
    Ok(vec![
        Figure::count("hand-overs of all nodes", 2, "times"),
        Figure::seconds("all nodes handed over", there),
        Figure::seconds("all nodes handed back", took),
    ])
}

async fn by_hand(env: &Env, members: &Members, before: &str) -> Result<Vec<Figure>> {
    members.backend.install_streams(env).await?;
    let mut streams = Streams::to(env, &members.backend).await?;
    let outcome = there_and_back(env, members, &mut streams, before).await;
    let ended = streams.close().await;
    let (warm, mut figures) = outcome?;
    figures.extend(lived(&ended?, false)?);
    node_proxies_gone(env, &warm).await?;
    Ok(figures)
}

/// Gives the revision that served meanwhile.
async fn there_and_back(
    env: &Env,
    members: &Members,
    streams: &mut Streams,
    before: &str,
) -> Result<(String, Vec<Figure>)> {
    streams.open(EACH).await?;
    let start = Instant::now();
    let attempt = Attempt::begin(env, RELEASES[1], &other(WAVES)).await?;
    let warm = attempt.reaches(env, "the old revision to be warm", is_warm).await?;
    ensure!(warm.from == before && warm.to != before, "from {} to {}", warm.from, warm.to);
    let waves: Vec<_> = warm.done.iter().filter(|done| done.phase == UpgradePhase::ShiftNodes).collect();
    ensure!(waves.len() > 1, "the nodes went over in {} waves: {:?}", waves.len(), warm.done);
    for wave in waves {
        println!("  wave {:?} took {} s: {:?}", wave.step, wave.seconds, wave.verdict);
    }
    serve_all_nodes(env, &warm.to).await?;
    let there = start.elapsed();
    // All of these go to the new revision.
    streams.open(EACH).await?;
    serves_all_members(env, members).await?;
    wish(env, Some((labels::ROLLBACK, &warm.to))).await?;
    let start = Instant::now();
    let (gateways, nodes) = tokio::join!(out_of_service(env, Members::NAMESPACE, &warm.to), async {
        serve_all_nodes(env, before).await.map(|()| start.elapsed())
    });
    let (gateways, nodes) = (gateways?, nodes?);
    let cause = attempt.goes_back(env).await?.rollback.map(|rollback| rollback.cause).unwrap_or_default();
    ensure!(cause == "Requested", "a rollback by hand has the cause {cause}");
    streams.told_for(GLIMPSE).await?;
    let figures = vec![
        Figure::count("hand-overs of all nodes", 2, "times"),
        Figure::seconds("all nodes handed over, with steps", there),
        Figure::seconds("all nodes handed back by hand", nodes),
        Figure::seconds("traffic of gateways back by hand", gateways),
    ];
    Ok((warm.to, figures))
}

/// Joins and leaves so many times.
///
/// # Errors
/// When somebody noticed, or a connection was no mutual TLS where it had to be.
pub async fn join_leave(env: &Env, times: u32) -> Result<Vec<Figure>> {
    with_members(env, "join-leave", None, async |env, members| {
        let mut figures = vec![Figure::count("joined and left", u64::from(times), "times")];
        for _ in 0..times {
            let counted = handshakes(env).await?;
            let start = Instant::now();
            members.label(env, true).await?;
            members.are_listed(env, true).await?;
            figures.push(Figure::seconds("all listed after the label", start.elapsed()));
            members.more_connections(env, ENOUGH).await?;
            have_risen(members, &counted, &handshakes(env).await?)?;
            members.label(env, false).await?;
            members.are_listed(env, false).await?;
            members.more_connections(env, ENOUGH).await?;
        }
        Ok(figures)
    })
    .await
}

/// The proxies of all nodes that have a pod which is called, the caller's among them, have done handshakes meanwhile.
///
/// # Errors
/// When one has not.
pub fn have_risen(
    members: &Members,
    before: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
) -> Result<()> {
    println!("  handshakes with clients of each node's pods: {before:?}, then {now:?}");
    for node in members.nodes_called() {
        let (before, now) = (before.get(&node).copied().unwrap_or(0), now.get(&node).copied().unwrap_or(0));
        ensure!(now > before, "the proxy of {node} has done {before} handshakes, then {now}");
    }
    Ok(())
}

/// Every process of one container of a node's proxy, or of both, is killed while pods of all nodes ask each other on every path.
///
/// # Errors
/// When paths that do not touch the node notice, an agent's end is noticed by anybody, or an outage does not end.
pub async fn killed(env: &Env, repetition: u32) -> Result<Vec<Figure>> {
    present(env).await?;
    // The kubelet puts off the second start of a container, and that is not what is measured.
    fresh(env, MESH, NODE_PROXIES).await?;
    let nodes = env.cluster.node_names().await?;
    let node = nodes.get(repetition as usize % nodes.len().max(1)).context("a node")?;
    let each = each_node(env).await?;
    let mut figures = Vec::new();
    for (what, container) in [("agent", Some("agent")), ("Envoy", Some("envoy")), ("pod", None)] {
        let probes = each.probes(env).await?;
        tokio::time::sleep(LEAD).await;
        let start = Instant::now();
        let back = match container {
            Some(_) => kill_node_proxy(env, node, container).await,
            None => killed_for_good(env, node, nodes.len()).await,
        };
        // The outage ends when traffic is back, not by the pod's word.
        tokio::time::sleep(LEAD).await;
        let paths = probes.stop().await?;
        figures.push(Figure::seconds(&format!("{what} killed to ready again"), back?));
        figures.extend(judged(what, node, &paths, start)?);
        are_listed(env, &each.pods, true).await?;
    }
    env.delete_namespace(NAMESPACE).await?;
    Ok(figures)
}

/// All of its processes, and the pod object too: the next pod starts at once. Gives when that is Ready.
async fn killed_for_good(env: &Env, node: &str, count: usize) -> Result<Duration> {
    let (proxy, start) = (NodeProxy::of(env, node).await?, Instant::now());
    kill(&env.client, &proxy.pod).await?;
    replaced(env, MESH, NODE_PROXIES, std::slice::from_ref(&proxy.pod), count).await?;
    Ok(start.elapsed())
}

/// Pods of the mesh on every node, in a namespace of their own.
///
/// # Errors
/// When they do not run, or are not listed.
pub async fn each_node(env: &Env) -> Result<EachNode> {
    // Of a repetition that broke.
    if super::mesh::namespaces(env).get_opt(NAMESPACE).await?.is_some() {
        env.delete_namespace(NAMESPACE).await?;
    }
    Many::namespace(env, NAMESPACE, true).await?;
    let each = EachNode::installed(env, NAMESPACE).await?;
    are_listed(env, &each.pods, true).await?;
    Ok(each)
}

/// What the paths come to when something of this node's proxy was killed.
///
/// # Errors
/// When somebody noticed who must not, or for too long.
pub fn judged(what: &str, node: &str, paths: &[Path], killed: Instant) -> Result<Vec<Figure>> {
    let asked: u64 = paths.iter().map(|path| path.asked).sum();
    let noticed: Vec<&Path> = paths.iter().filter(|path| !path.failed.is_empty()).collect();
    let failed: u64 = noticed.iter().map(|path| path.failed.len() as u64).sum();
    for path in &noticed {
        let Path { from, to, failures, .. } = path;
        println!(
            "  {what} of {node} killed: {} failures from {from} to {to}: {failures:?}",
            path.failed.len()
        );
        ensure!(
            path.touches(node),
            "{what} of {node} was killed, and {from} could not ask {to}: {failures:?}"
        );
        ensure!(
            what != "agent",
            "the agent of {node} was killed, and {from} could not ask {to}: {failures:?}"
        );
        let early = path.failed.iter().filter(|at| **at < killed).count();
        ensure!(
            early == 0,
            "{early} questions from {from} to {to} failed before {what} was killed: {failures:?}"
        );
    }
    let mut figures = vec![
        Figure::count("questions", asked, "questions"),
        Figure::count(&format!("failed when {what} was killed"), failed, "questions"),
    ];
    let end = Instant::now();
    if let Some(outage) = noticed.iter().filter_map(|path| path.outage(killed, end)).max() {
        println!("  {what} of {node} killed: traffic back after {:.1} s", outage.as_secs_f64());
        ensure!(outage < LONGEST_OUTAGE, "{what} of {node} killed: traffic back only after {outage:?}");
        figures.push(Figure::seconds(&format!("{what} killed to traffic back"), outage));
    }
    Ok(figures)
}
