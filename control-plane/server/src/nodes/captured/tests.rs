//! The writer against an API server with one MeshNode.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response};
use kube::client::Body;
use meshwright_api::{MeshNode, MeshNodeStatus};
use meshwright_core::mesh::Peer;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::followers::Follower;
use super::super::tests::{mesh, report};
use super::*;
use crate::metrics::counted;

struct Running {
    followers: Followers,
    outputs: watch::Sender<Option<Arc<Output>>>,
    object: Arc<Mutex<Value>>,
    reads: Arc<AtomicUsize>,
    /// Statuses as they were written.
    writes: mpsc::UnboundedReceiver<MeshNodeStatus>,
    metrics: Metrics,
    drain: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

fn claimed(revision: &str, epoch: i64) -> Value {
    json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshNode",
        "metadata": {"namespace": "mesh-ns", "name": "n1", "uid": "a", "resourceVersion": "1"},
        "spec": {"revision": revision, "epoch": epoch}})
}

fn start() -> Running {
    let (sender, writes) = mpsc::unbounded_channel();
    let object = Arc::new(Mutex::new(claimed("mesh-1", 3)));
    let reads = Arc::new(AtomicUsize::new(0));
    let (stored, counter) = (object.clone(), reads.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (sender, stored) = (sender.clone(), stored.clone());
        if request.method() == Method::GET {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        async move {
            let is_write = request.method() == Method::PUT;
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let mut object = stored.lock().unwrap();
            if is_write {
                let sent: MeshNode = serde_json::from_slice(&bytes).unwrap();
                object["status"] = serde_json::to_value(&sent.status).unwrap();
                sender.send(sent.status.unwrap()).unwrap();
            }
            Ok::<_, Infallible>(Response::new(Body::from(object.to_string().into_bytes())))
        }
    });
    let (followers, drain) = (Followers::default(), CancellationToken::new());
    let (outputs, receiver) = watch::channel(None);
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let client = kube::Client::new(service, "mesh-ns");
    let captured = Captured::new(client, "mesh-ns", followers.clone(), receiver, metrics.clone());
    tokio::spawn(captured.run(drain.clone()));
    Running { followers, outputs, object, reads, writes, metrics, drain }
}

impl Running {
    fn publish(&self, mesh: Mesh) {
        self.outputs.send_replace(Some(Arc::new(Output { mesh: Arc::new(mesh), ..Output::default() })));
    }

    fn agent(&self, epoch: i64, captured: &[(&str, &[&str])]) -> Follower {
        let follower = self.followers.opened("n1");
        follower.reported(report(epoch, captured));
        follower
    }

    /// The pods of the next write; None if there is none for an hour.
    async fn next(&mut self) -> Option<Vec<String>> {
        self.within(Duration::from_secs(3600)).await
    }

    async fn within(&mut self, time: Duration) -> Option<Vec<String>> {
        let next = tokio::time::timeout(time, self.writes.recv()).await;
        next.ok().map(|status| status.unwrap().pods.into_iter().map(|pod| pod.uid).collect())
    }
}

const PODS: [(&str, &str, &str); 2] = [("n1", "u1", "10.0.0.1"), ("n1", "u2", "10.0.0.2")];

/// As the watch sees it when these pods of [`PODS`] are listed.
fn listed(uids: &[&str]) -> Mesh {
    let peers = PODS.iter().filter(|(_, uid, _)| uids.contains(uid)).map(|(_, uid, address)| {
        (
            (*address).to_owned(),
            Peer { uid: (*uid).into(), identity: "spiffe://td/x".into(), ..Peer::default() },
        )
    });
    Mesh { peers: Arc::new(peers.collect()), ..mesh(&PODS, Some(("mesh-1", 3))) }
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_reports_is_written_once_and_as_soon_as_we_know_of_it() {
    let mut running = start();
    let agent = running.agent(3, &[("u1", &["10.0.0.1"]), ("u2", &["10.0.0.2"])]);
    assert_eq!(running.next().await, None, "nothing was listed yet");
    running.publish(mesh(&PODS[..1], Some(("mesh-1", 3))));
    assert_eq!(running.next().await, Some(vec!["u1".to_owned()]));
    running.publish(mesh(&PODS, Some(("mesh-1", 3))));
    assert_eq!(running.next().await, Some(vec!["u1".to_owned(), "u2".to_owned()]), "the watch was behind");
    running.publish(listed(&["u1", "u2"]));
    agent.reported(report(3, &[("u2", &["10.0.0.2"]), ("u1", &["10.0.0.1"])]));
    let before = running.reads.load(Ordering::Relaxed);
    assert_eq!(running.next().await, None, "an idle hour writes nothing");
    let reads = running.reads.load(Ordering::Relaxed) - before;
    assert!((10..=13).contains(&reads), "and reads each object every five minutes, not {reads} times");
    agent.reported(report(3, &[("u2", &["10.0.0.2"])]));
    assert_eq!(running.next().await, Some(vec!["u2".to_owned()]));
    drop(agent);
    assert_eq!(running.next().await, None, "pods go on working when their agent is away");
}

#[tokio::test(start_paused = true)]
async fn an_agent_writes_in_its_turn_only() {
    let mut running = start();
    running.publish(listed(&[]));
    let agent = running.agent(0, &[("u1", &["10.0.0.1"])]);
    assert_eq!(running.next().await, None, "it does not serve");
    // The operator has gone on, and our watch does not show it yet.
    *running.object.lock().unwrap() = claimed("mesh-2", 4);
    agent.reported(report(3, &[("u1", &["10.0.0.1"])]));
    assert_eq!(running.next().await, None);
    assert!(counted(&running.metrics.nodes.status_writes, "skipped") > 0);
    *running.object.lock().unwrap() = claimed("mesh-1", 5);
    running.publish(mesh(&PODS, Some(("mesh-1", 5))));
    agent.reported(report(5, &[("u1", &["10.0.0.1"])]));
    assert_eq!(running.next().await, Some(vec!["u1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_status_that_was_lost_is_written_again() {
    let mut running = start();
    running.publish(listed(&[]));
    let _agent = running.agent(3, &[("u1", &["10.0.0.1"])]);
    assert_eq!(running.next().await, Some(vec!["u1".to_owned()]));
    running.publish(listed(&["u1"]));
    assert_eq!(running.next().await, None);
    // Somebody deleted the object, and the operator made it anew.
    *running.object.lock().unwrap() = claimed("mesh-1", 3);
    running.publish(listed(&[]));
    assert_eq!(running.within(SWEEP * 2).await, Some(vec!["u1".to_owned()]));
}
