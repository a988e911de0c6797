//! The agent, the real Envoy and the real kernel, with a control plane that a test plays.

mod first_calls;
mod leaving;
mod real;
mod stage;

use std::time::{Duration, Instant};

use meshwright_cni::{Answer, Reply};
use meshwright_proto::nodes::{Claim, PodPolicy};

use super::lab::Lab;
use crate::tests::{
    envoy::{free_address, get},
    fake::eventually,
};
use stage::{Stage, names, says};

const APP: &str = "app";

fn claim(revision: &str, epoch: i64) -> Option<Claim> {
    Some(Claim { revision: revision.to_owned(), epoch })
}

/// A pod, and another one with an app on port 9000.
fn pods() -> [Lab; 2] {
    let labs = Lab::pair();
    labs[1].serves(9000, APP);
    labs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_pod_is_captured_survives_restarts_and_is_let_go() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let [pod, peer] = pods();
    let (own, other) = (pod.addresses[0], peer.addresses[0]);
    stage.wrote_down("u1", &pod);
    stage.member("u1", &pod.addresses);
    stage.order(|order| order.claim = claim("old", 1));
    let mut before = pod.connect(other, 9000, 0).unwrap();
    assert_eq!(before.greeting(), APP);
    let envoy = stage.envoy();
    let agent = stage.agent().await;

    eventually("reported", async || stage.captured(1) == Some(names(&["u1"]))).await;
    assert!(before.lives(), "it was there before");
    assert_eq!(says(&pod, other, 9000).await, "outbound of u1");
    assert_eq!(stage.mutual_tls(&peer, own, "u1").await.unwrap(), "inbound of u1");
    assert!(stage.mutual_tls(&peer, own, "u2").await.is_err(), "that is not its identity");
    assert!(stage.list().contains("meshwright-cni"));

    // Alone, the agent: Envoy goes on, and the control plane never hears that the pod is out.
    let (heard, mut kept) = (stage.reports().len(), stage::Http::open(&pod, other, 9000).await);
    assert_eq!(kept.get().await.unwrap(), "outbound of u1");
    agent.kill();
    assert_eq!(says(&pod, other, 9000).await, "outbound of u1");
    let agent = stage.agent().await;
    eventually("reported again", async || stage.reports().len() > heard && stage.captured(1).is_some()).await;
    let again = stage.reports().split_off(heard);
    assert!(again.iter().all(|report| report.serving_epoch == 0 || report.captured.len() == 1), "{again:?}");
    assert_eq!(kept.get().await.unwrap(), "outbound of u1", "its listener was taken away in between");
    eventually("certificate again", async || stage.mutual_tls(&peer, own, "u1").await.is_ok()).await;

    // Alone, Envoy: it gets everything from the agent at once, also while the control plane is away.
    stage.kill_envoy();
    eventually("back", async || stage.mutual_tls(&peer, own, "u1").await.is_ok()).await;
    eventually("back", async || says(&pod, other, 9000).await == "outbound of u1").await;

    // Out: at once for who asks the control plane, at last for everybody.
    let mut kept = stage::Http::open(&pod, other, 9000).await;
    assert_eq!(kept.get().await.unwrap(), "outbound of u1");
    stage.no_member("u1");
    eventually("unlisted", async || stage.captured(1) == Some(names(&[]))).await;
    // Alone again, the agent, which nobody sends the pod's listeners any more.
    agent.kill();
    let heard = stage.reports().len();
    let agent = stage.agent().await;
    let again = async || stage.reports().len() > heard && stage.captured(1) == Some(names(&[]));
    eventually("reported again", again).await;
    assert_eq!(kept.get().await.unwrap(), "outbound of u1", "its listener was taken away");
    eventually("left alone", async || pod.reaches(other, 9000, 0) == APP).await;
    assert_eq!(kept.get().await.unwrap(), "outbound of u1", "the old connection goes on");
    assert_eq!(stage.listens(&pod).len(), 2, "somebody may send to it still");
    assert!(before.lives());
    drop(kept);
    eventually("closed", async || stage.listens(&pod).is_empty()).await;
    eventually("no rules", async || stage.is_untouched(&pod)).await;
    assert!(before.lives());

    // The mesh goes.
    stage.order(|order| order.claim = None);
    eventually("uninstalled", async || !stage.list().contains("meshwright-cni")).await;
    agent.end().await;
    envoy.end().await;
}

/// Probes of the node apart, nothing lets plaintext in but the word that the pod takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strict_outlasts_agent_and_envoy_until_it_is_meant_to_end() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let [pod, peer] = pods();
    pod.serves(9000, "pod's app");
    let own = pod.addresses[0];
    stage.wrote_down("u1", &pod);
    stage.member("u1", &pod.addresses);
    let strict = PodPolicy { refused: true, ..PodPolicy::default() };
    stage.order(|order| {
        order.claim = claim("old", 1);
        order.policies.insert("u1".to_owned(), strict);
    });
    assert_eq!(peer.reaches(own, 9000, 0), "pod's app");
    let envoy = stage.envoy();
    let agent = stage.agent().await;
    eventually("reported", async || stage.captured(1) == Some(names(&["u1"]))).await;
    let refused = |when: &str| assert_eq!(peer.reaches(own, 9000, 0), "connection refused", "{when}");
    refused("from the beginning");

    // Whether they are told to end or not.
    agent.kill();
    refused("without the agent");
    let agent = stage.agent().await;
    let heard = stage.reports().len();
    eventually("reported again", async || stage.reports().len() > heard && stage.captured(1).is_some()).await;
    refused("with the next agent");
    agent.end().await;
    refused("after the agent was told to end");
    envoy.end().await;
    refused("with nobody at all");
    let heard = stage.reports().len();
    let agent = stage.agent().await;
    eventually("heard of", async || stage.reports().len() > heard).await;
    refused("with an agent and without Envoy");
    let envoy = stage.envoy();
    eventually("back", async || stage.mutual_tls(&peer, own, "u1").await.is_ok()).await;
    refused("with both");

    // It leaves: senders hear of that, and speak plaintext to it, before its rules go.
    stage.no_member("u1");
    let since = Instant::now();
    eventually("plaintext", async || peer.reaches(own, 9000, 0) == "pod's app").await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    eventually("no rules", async || stage.is_untouched(&pod)).await;
    agent.end().await;
    envoy.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_starts_is_held_until_it_is_captured_and_others_are_not() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let [pod, peer] = pods();
    stage.order(|order| {
        order.claim = claim("old", 1);
        order.outside = vec!["u3".to_owned()];
    });
    let (envoy, agent) = (stage.envoy(), stage.agent().await);
    eventually("installed", async || stage.list().contains("meshwright-cni")).await;

    let begin = Instant::now();
    assert_eq!(stage.asks("u9", "plain", &peer).await, Reply::Answer(Answer::Outside));
    assert_eq!(stage.asks("u3", "shop", &peer).await, Reply::Answer(Answer::Outside));
    assert!(begin.elapsed() < Duration::from_secs(1));

    // It is asked before the control plane has seen the pod.
    let (asked, ()) = tokio::join!(stage.asks("u1", "shop", &pod), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.member("u1", &[]);
    });
    assert_eq!(asked, Reply::Answer(Answer::Captured));
    assert_eq!(says(&pod, peer.addresses[0], 9000).await, "outbound of u1");
    eventually("reported", async || stage.captured(1) == Some(names(&["u1"]))).await;

    // A pod that is deleted takes everything with it.
    let path = pod.path();
    drop(pod);
    stage.no_member("u1");
    eventually("forgotten", async || stage.captured(1) == Some(names(&[])) && !path.exists()).await;
    eventually("nothing is written down", async || stage.redirected().is_empty()).await;
    agent.end().await;
    envoy.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_handed_over_and_connections_stay_where_they_are() {
    let Some(old) = Stage::new("old", "A").await else { return };
    let new = old.beside("new", "B").await;
    let [pod, peer] = pods();
    let (own, other) = (pod.addresses[0], peer.addresses[0]);
    for stage in [&old, &new] {
        stage.wrote_down("u1", &pod);
        stage.member("u1", &pod.addresses);
        stage.order(|order| order.claim = claim("old", 1));
    }
    let (old_envoy, old_agent) = (old.envoy(), old.agent().await);
    eventually("reported", async || old.captured(1) == Some(names(&["u1"]))).await;
    let mut kept = stage::Http::open(&pod, other, 9000).await;
    assert_eq!(kept.get().await.unwrap(), "outbound of u1 by old");

    let (new_envoy, new_agent) = (new.envoy(), new.agent().await);
    let prepared = async || new.reports().pop().is_some_and(|report| report.prepared == ["u1"]);
    eventually("prepared", prepared).await;
    assert_eq!(new.listens(&pod).len(), 2);
    assert!(new.reports().iter().all(|report| report.serving_epoch == 0));
    assert_eq!(says(&pod, other, 9000).await, "outbound of u1 by old");
    for stage in [&new, &old] {
        stage.order(|order| order.claim = claim("new", 2));
    }
    eventually("taken over", async || new.captured(2) == Some(names(&["u1"]))).await;
    assert_eq!(says(&pod, other, 9000).await, "outbound of u1 by new");
    assert_eq!(new.mutual_tls(&peer, own, "u1").await.unwrap(), "inbound of u1 by new");
    assert_eq!(kept.get().await.unwrap(), "outbound of u1 by old", "its connection is where it was");

    // The old one goes when its last connection has ended, and changes nothing.
    let ending = tokio::spawn(old_agent.end());
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert!(!ending.is_finished(), "a connection is left");
        assert_eq!(kept.get().await.unwrap(), "outbound of u1 by old");
    }
    drop(kept);
    ending.await.unwrap();
    old_envoy.end().await;
    assert_eq!(says(&pod, other, 9000).await, "outbound of u1 by new");
    assert!(new.list().contains("meshwright-cni"));
    new_agent.end().await;
    new_envoy.end().await;
    assert!(new.list().contains("meshwright-cni"), "an ordinary restart");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_the_namespace_of_its_pod_never_leaves_through_the_node() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let backend = crate::tests::envoy::backend("backend").await;
    stage.order(|order| order.claim = claim("old", 1));
    let [through, nowhere] = [free_address().await, free_address().await];
    stage.publish_host(&[("through", through, backend, true), ("nowhere", nowhere, backend, false)]);
    let (envoy, agent) = (stage.envoy(), stage.agent().await);
    eventually("a cluster without a namespace", async || {
        get(through, "/").await.is_some_and(|said| said.contains("backend"))
    })
    .await;
    let said = get(nowhere, "/").await.unwrap();
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    agent.end().await;
    envoy.end().await;
}
