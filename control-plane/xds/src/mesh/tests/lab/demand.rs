//! Clusters that Envoy asks for when they are needed first.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const BODY: usize = 300_000;

fn asked(lab: &Lab) -> Vec<String> {
    let asked = lab.nodes[0].0.asked();
    asked.iter().filter(|name| &***name != "*").map(ToString::to_string).collect()
}

/// Answers one request, with the length of its body.
async fn takes_a_body(listener: tokio::net::TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    application::read_head(&mut stream).await.unwrap();
    let mut body = vec![0; BODY];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_waits_for_its_cluster_whatever_it_is() {
    let upload = mesh().service("upload", &["10.88.0.20"], 80, Protocol::Http, &[("10.77.0.21", 8081)]);
    let Some(lab) = lab(upload, |_| {}).await else { return };
    let (front, cart, back) = (lab.pod("front"), lab.pod("cart"), lab.pod("back"));
    assert_eq!(asked(&lab), [""; 0], "nobody has called anybody");
    let server = takes_a_body(back.listen(8081));
    let post = async {
        let mut stream = front.connect("10.88.0.20:80").await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: {BODY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; BODY]).await.unwrap();
        let head = application::read_head(&mut stream).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    };
    // All at once, two for the same one.
    let (one, two, http2, greeting, detected, ..) = tokio::join!(
        front.source("10.88.0.1:80"),
        cart.source("10.88.0.1:80"),
        front.get_http2("[fd88::1]:80"),
        cart.talk("10.88.0.2:3306"),
        front.source("10.88.0.3:8000"),
        post,
        server,
    );
    assert_eq!((&*one, &*two, &*detected), ("from 10.77.0.21", "from 10.77.0.21", "from 10.77.0.21"));
    assert_eq!(http2.unwrap(), "from fd77::21\nHTTP/2.0 /two\n");
    assert_eq!(greeting.unwrap(), "hello 10.77.0.21 ping bye");
    let expected = [
        "10.88.0.2:3306",
        "10.88.0.3:8000",
        "outbound|80|six|shop",
        "outbound|80|upload|shop",
        "outbound|80|web|shop",
    ];
    assert_eq!(asked(&lab), expected, "and of no other Service there is a cluster");
    let clusters = lab.nodes[0].1.ask("/clusters").await.unwrap();
    assert!(clusters.contains("outbound|80|web|shop::") && !clusters.contains("outbound|80|both|shop::"));
}

static HIDDEN: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_cluster_of_fails_at_once_until_there_is_one() {
    fn edit(snapshot: &mut Snapshot) {
        if HIDDEN.load(Ordering::SeqCst) {
            ["outbound|80|web|shop", "10.88.0.2:3306"]
                .iter()
                .for_each(|name| snapshot.edit(TypeUrl::Cluster).remove(name));
        }
    }
    HIDDEN.store(true, Ordering::SeqCst);
    let Some(mut lab) = lab(mesh(), edit).await else { return };
    for (turn, hidden) in [true, false, true, false].into_iter().enumerate() {
        HIDDEN.store(hidden, Ordering::SeqCst);
        let cluster = lab.cluster.clone();
        lab.publish(cluster);
        let front = lab.pod("front");
        until("HTTP", async || {
            let begun = Instant::now();
            let source = front.source("10.88.0.1:80").await;
            // Of one that it had Envoy does not ask again, and gives up later.
            assert!(turn != 0 || begun.elapsed() < Duration::from_secs(5), "it waited");
            (source == "from 10.77.0.21").ne(&hidden).then_some(())
        })
        .await;
        until("TCP", async || (front.talk("10.88.0.2:3306").await.is_err() == hidden).then_some(())).await;
    }
    // In plaintext nothing went there.
    let callers = lab.callers("back", |callers| callers.len() >= 2).await;
    assert!(callers.iter().all(|caller| caller.starts_with("spiffe://")), "{callers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_hears_again_what_is_needed() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    assert_eq!(lab.pod("front").source("10.88.0.1:80").await, "from 10.77.0.21");
    lab.nodes[0].0.away();
    // What is known goes on; what was never called waits.
    let (known, new) = {
        let front = lab.pod("front");
        let back = async {
            until("it waits", async || {
                let known = front.source("10.88.0.1:80").await;
                assert_eq!(known, "from 10.77.0.21");
                let waiting = lab.nodes[0].1.ask("/stats?filter=downstream_rq_active").await?;
                waiting.contains("http.node.downstream_rq_active: 1").then_some(())
            })
            .await;
            lab.nodes[0].0.back();
            front.source("10.88.0.1:80").await
        };
        tokio::join!(back, front.source("10.88.0.3:8000"))
    };
    assert_eq!((&*known, &*new), ("from 10.77.0.21", "from 10.77.0.21"));
    until("both are asked for", async || {
        (asked(&lab) == ["10.88.0.3:8000", "outbound|80|web|shop"]).then_some(())
    })
    .await;

    // And changes of what was asked for before arrive.
    let by_client = Balancing { by_client: true, ..Balancing::default() };
    lab.publish(mesh().balanced("web", by_client, &[]));
    until("another cluster", async || {
        let dump = lab.nodes[0].1.ask("/config_dump?resource=dynamic_active_clusters").await?;
        dump.contains("RING_HASH").then_some(())
    })
    .await;
    assert_eq!(lab.pod("front").source("10.88.0.1:80").await, "from 10.77.0.21");
    assert_eq!(lab.nodes[0].0.refused(), [""; 0]);
}
