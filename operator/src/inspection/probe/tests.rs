use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A gateway pod; what it was asked for.
#[derive(Debug, Default)]
struct Pod {
    connections: AtomicUsize,
    requests: AtomicUsize,
    hosts: Mutex<BTreeSet<String>>,
}

async fn serve(listener: TcpListener, pod: Arc<Pod>, status: u16) {
    while let Ok((stream, _)) = listener.accept().await {
        pod.connections.fetch_add(1, Ordering::Relaxed);
        let pod = pod.clone();
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            pod.requests.fetch_add(1, Ordering::Relaxed);
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            pod.hosts.lock().unwrap().insert(host);
            async move {
                Ok::<_, Infallible>(
                    Response::builder().status(status).body(Full::new(Bytes::from("x"))).unwrap(),
                )
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

async fn listen() -> (TcpListener, i32) {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port.into())
}

fn target(pod: &str, asks: &[(i32, &str)]) -> Target {
    Target {
        revision: "mesh-1".to_owned(),
        namespace: "shop".to_owned(),
        gateway: "edge".to_owned(),
        pod: pod.to_owned(),
        address: LOCAL,
        asks: asks.iter().map(|(port, host)| Ask::new(*port, host, "/").unwrap()).collect(),
    }
}

fn slots(prober: &Prober) -> Vec<ProbeSlot> {
    prober.probed().iter().flat_map(|p| p.slots.values().copied()).collect()
}

fn failures(prober: &Prober) -> u64 {
    slots(prober).iter().map(|slot| slot.unanswered).sum()
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("what was waited for never came");
}

#[tokio::test]
async fn requests_go_round_and_every_tenth_has_a_new_connection() {
    let (listener, port) = listen().await;
    let pod = Arc::new(Pod::default());
    tokio::spawn(serve(listener, pod.clone(), 404));
    let prober = Prober::default();
    prober.aim([target("a", &[(port, "one"), (port, "two")])].into());
    until(|| pod.requests.load(Ordering::Relaxed) >= 21).await;
    // A request that is slow makes one connection more.
    let (connections, requests) = (&pod.connections, &pod.requests);
    let connections = connections.load(Ordering::Relaxed);
    assert!((3..requests.load(Ordering::Relaxed)).contains(&connections), "{connections}");
    assert_eq!(*pod.hosts.lock().unwrap(), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    assert_eq!(failures(&prober), 0, "404 is an answer");
    assert!(prober.probed()[0].answers);
    until(|| slots(&prober).iter().map(|slot| slot.sent).sum::<u64>() >= 21).await;
    assert!(slots(&prober).iter().all(|slot| slot.unrouted == 0), "these hosts may have routes");
}

#[tokio::test]
async fn an_error_that_the_proxy_counts_itself_is_not_counted_again() {
    let (listener, port) = listen().await;
    let pod = Arc::new(Pod::default());
    tokio::spawn(serve(listener, pod.clone(), 503));
    let prober = Prober::default();
    prober.aim([target("a", &[(port, "one")])].into());
    until(|| pod.requests.load(Ordering::Relaxed) >= 3).await;
    assert_eq!(failures(&prober), 0);
}

#[tokio::test]
async fn a_pod_that_refuses_connections_or_hangs_up_is_counted_under_its_name() {
    let (refusing, port) = listen().await;
    drop(refusing);
    let (rude, other) = listen().await;
    tokio::spawn(async move { while rude.accept().await.is_ok() {} });
    let prober = Prober::default();
    prober.aim([target("refuses", &[(port, "one")]), target("hangs-up", &[(other, "one")])].into());
    until(|| prober.probed().iter().all(|p| p.slots.values().map(|s| s.unanswered).sum::<u64>() >= 2)).await;
    let named: Vec<_> = prober.probed().into_iter().map(|u| (u.revision, u.pod)).collect();
    assert_eq!(
        named,
        [("mesh-1".to_owned(), "hangs-up".to_owned()), ("mesh-1".to_owned(), "refuses".to_owned())]
    );
    assert!(prober.probed().iter().all(|u| !u.answers));
    assert!(prober.probed()[0].slots.keys().all(|start| start % SLOT_SECONDS == 0));
}

#[tokio::test]
async fn a_connection_that_ended_while_it_was_idle_is_no_failure() {
    let (listener, port) = listen().await;
    let pod = Arc::new(Pod::default());
    let seen = pod.clone();
    tokio::spawn(async move {
        // One answer on each connection, without telling that it will be the last.
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let (mut stream, mut bytes) = (stream, [0; 1024]);
                if stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    seen.requests.fetch_add(1, Ordering::Relaxed);
                    let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
                    // The next request is under way before the end is noticed.
                    let _ = stream.read(&mut bytes).await;
                }
            });
        }
    });
    let prober = Prober::default();
    prober.aim([target("a", &[(port, "one")])].into());
    until(|| pod.requests.load(Ordering::Relaxed) >= 5).await;
    assert_eq!(failures(&prober), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_hangs_gets_as_many_requests_as_one_that_answers_and_each_is_counted() {
    let (listener, port) = listen().await;
    let prober = Prober::default();
    prober.aim([target("hangs", &[(port, "one")])].into());
    // The kernel accepts, nobody answers.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let failed = failures(&prober);
    assert!((100..=130).contains(&failed), "{failed}");
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn requests_end_when_nobody_aims_any_more_and_begin_again() {
    let (refusing, port) = listen().await;
    drop(refusing);
    let prober = Prober::default();
    let all = BTreeSet::from([target("a", &[(port, "one")])]);
    prober.aim(all.clone());
    let ended = |prober: &Prober| prober.0.state().running.values().all(|running| running.0.is_finished());
    tokio::time::sleep(ABANDONED - Duration::from_secs(1)).await;
    assert!(!ended(&prober));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(ended(&prober));
    prober.aim(all);
    assert!(!ended(&prober));
    prober.aim(BTreeSet::new());
    assert!(prober.0.state().running.is_empty());
}

#[test]
fn what_is_older_than_an_hour_is_forgotten() {
    let mut state = State::default();
    let target = target("a", &[(80, "one")]);
    state.expect(&target, 1000);
    state.count(&target, (1003, false), false);
    state.count(&target, (1004, true), false);
    state.count(&target, (1004, true), true);
    state.count(&target, (1004, false), true);
    let counted = ProbeSlot { start: 1000, sent: 4, unrouted: 1, unanswered: 2 };
    assert_eq!(state.probed.values().next().unwrap().slots, BTreeMap::from([(1000, counted)]));
    state.forget(1000);
    assert_eq!(state.probed.len(), 1);
    state.forget(1001);
    assert!(state.probed.is_empty());
}
