//! Services, endpoints and pods come and go under open connections; and what is said in the handshake.

use std::mem::ManuallyDrop;

use meshwright_runtime::CancellationToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::routed::{backend, route, rule};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_do_not_notice_what_comes_and_goes() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    let mut tcp = lab.pod("front").connect("10.88.0.2:3306").await.unwrap();
    assert_eq!(client::line(&mut tcp).await.unwrap(), "hello 10.77.0.21");
    let mut http = lab.pod("front").connect("10.88.0.1:80").await.unwrap();
    let mut direct = lab.pod("front").connect("10.77.0.99:3306").await.unwrap();
    assert_eq!(client::line(&mut direct).await.unwrap(), "hello 10.77.0.11");
    assert!(client::get(&mut http, "HTTP/1.1", "").await.is_ok());

    // A Service of each protocol that was not there; another pod.
    let back = |port| [("10.77.0.21", port)];
    lab.publish(
        mesh()
            .service("new", &["10.88.0.8"], 80, Protocol::Http, &back(8080))
            .service("new-db", &["10.88.0.9"], 3306, Protocol::Tcp, &back(3306))
            .service("new-any", &["10.88.0.10"], 80, Protocol::Detect, &back(8080))
            .pod("n1", "late", &[]),
    );
    let front = lab.pod("front");
    for address in ["10.88.0.8:80", "10.88.0.10:80"] {
        until(address, async || (front.source(address).await == "from 10.77.0.21").then_some(())).await;
    }
    assert_eq!(front.talk("10.88.0.9:3306").await.unwrap(), "hello 10.77.0.21 ping bye");

    // One that becomes another protocol, and one that goes: of it connections remain.
    lab.publish(
        mesh()
            .without_service("db")
            .service("any", &[], 8000, Protocol::Http, &back(8080))
            .without_service("web"),
    );
    let front = lab.pod("front");
    until("web is gone", async || (!front.source("10.88.0.1:80").await.starts_with("from")).then_some(()))
        .await;
    assert_eq!(front.source("10.88.0.3:8000").await, "from 10.77.0.21");
    for stream in [&mut tcp, &mut direct] {
        stream.write_all(b"still here\n").await.unwrap();
        assert_eq!(client::line(stream).await.unwrap(), "still here");
    }
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// HTTP that goes on, over connections from before.
#[tokio::test(flavor = "multi_thread")]
async fn http_of_a_port_that_becomes_tcp_goes_on_over_mutual_tls() {
    let web = |protocol| mesh().service("web", &[], 80, protocol, &[("10.77.0.21", 8080)]);
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    let mut open = lab.pod("front").connect("10.88.0.1:80").await.unwrap();
    let mut http2 = client::Http2::new(lab.pod("front"), "10.88.0.1:80").await.unwrap();
    let (_, body) = client::get(&mut open, "HTTP/1.1", "").await.unwrap();
    assert!(body.starts_with("from 10.77.0.21"), "{body}");
    assert_eq!(http2.get().await.unwrap(), "from 10.77.0.21\nHTTP/2.0 /two\n");
    let before = lab.callers("back", |callers| callers.len() >= 2).await.len();

    for protocol in [Protocol::Tcp, Protocol::Detect, Protocol::Http, Protocol::Tcp] {
        lab.publish(web(protocol));
        let mut failed = Vec::new();
        // New connections as well: routes come before the list of destinations.
        for _ in 0..40 {
            for answer in [
                client::get(&mut open, "HTTP/1.1", "").await.map(|(_, body)| body),
                http2.get().await,
                lab.pod("front").get("10.88.0.1:80", "").await.map(|(_, body)| body),
            ] {
                match answer {
                    Ok(body) if body.starts_with("from 10.77.0.21\n") => {}
                    other => failed.push(other),
                }
            }
        }
        assert!(failed.is_empty(), "{protocol:?}: {failed:?}");
        if protocol == Protocol::Tcp {
            // What is no HTTP passes.
            let lab = &lab;
            until("TCP", async || {
                let mut stream = lab.pod("front").connect("10.88.0.1:80").await.ok()?;
                stream.write_all(b"GET / FOO/9.9\r\n\r\n").await.ok()?;
                Some(client::line(&mut stream).await.ok()?.starts_with("HTTP/1.1 200")).filter(|is| *is)
            })
            .await;
        }
    }
    lab.callers("back", |callers| callers.len() > before).await;
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_backends_of_a_route_come_and_go() {
    let cluster = |to: &str| {
        let found = mesh()
            .service("one", &["10.88.0.21"], 80, Protocol::Http, &[("10.77.0.21", 8080)])
            .service("two", &["10.88.0.22"], 80, Protocol::Http, &[("10.77.0.12", 8080)])
            .service("shop", &["10.88.0.30"], 80, Protocol::Http, &[]);
        let mut found = found.routed(vec![route("shop", "r", "shop", vec![rule("/", vec![backend(to, 1)])])]);
        // As Services without addresses are, they are there because of the route alone.
        found = found.without_service("one").without_service("two");
        found
    };
    let Some(mut lab) = lab(cluster("one"), |_| {}).await else { return };
    let mut stream = lab.pod("front").connect("10.88.0.30:80").await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let asking = tokio::spawn(async move {
        let (mut count, mut failed) = (0, Vec::new());
        while stopped.try_recv().is_err() {
            let (head, _) = client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
            count += 1;
            failed.extend((!head.starts_with("HTTP/1.1 200")).then_some(head));
        }
        (count, failed)
    });
    for round in 0..60 {
        lab.publish(cluster(["two", "one"][round % 2]));
        // Between no pause and one in which Envoy has taken it.
        tokio::time::sleep(Duration::from_millis((round % 7) as u64 * 5)).await;
    }
    stop.send(()).unwrap();
    let (count, failed) = asking.await.unwrap();
    assert!(count > 100, "{count} requests are too few to say anything");
    assert_eq!(failed, [""; 0], "of {count}");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// Where they are called and who answers are the same pods all the time, in the mesh or not; the clusters are new each time, or linger.
#[tokio::test(flavor = "multi_thread")]
async fn no_new_connection_fails_while_who_is_called_joins_and_leaves() {
    const HTTP: &str = "10.88.0.90:8080";
    let inside = || mesh().service("same", &["10.88.0.90"], 8080, Protocol::Http, &[("10.77.0.21", 8080)]);
    let outside = || {
        let mut cluster = inside();
        cluster.mesh.peers = Arc::default();
        cluster
    };
    let Some(mut lab) = lab(outside(), |_| {}).await else { return };
    // As kube-proxy would: outside of the mesh the Services' addresses lead to the pod, too.
    for address in ["10.88.0.2/32", "10.88.0.90/32"] {
        lab.pod("back").has_address(address);
    }
    // The lab removes it.
    let front = Arc::new(ManuallyDrop::new(lab.pod("front").other()));
    assert_eq!(front.talk("10.88.0.2:3306").await.unwrap(), "hello 10.77.0.11 ping bye", "plaintext");
    let stop = CancellationToken::new();
    let calling = ["10.88.0.2:3306", "10.77.0.21:3306", HTTP].map(|address| {
        let (front, stop) = (front.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut count, mut mutual, mut failed) = (0, 0, Vec::new());
            while !stop.is_cancelled() {
                let answer = match address {
                    HTTP => front.get(address, "").await.map(|(_, body)| body),
                    _ => front.talk(address).await,
                };
                count += 1;
                match answer {
                    Ok(said) if said.contains("10.77.0.21") => mutual += 1,
                    Ok(said) if said.contains("10.77.0.11") => {}
                    other => failed.push(format!("{count}: {other:?}")),
                }
            }
            (address, count, mutual, failed)
        })
    });
    for round in 0..60 {
        lab.publish(if round % 2 == 0 { inside() } else { outside() });
        tokio::time::sleep(Duration::from_millis(round % 7 * 15)).await;
        if round % 4 == 1 {
            let now = tokio::time::Instant::now();
            lab.shared.let_go(now);
            lab.shared.let_go(now + Duration::from_secs(61));
            lab.publish(outside());
        }
    }
    stop.cancel();
    for task in calling {
        let (address, count, mutual, failed) = task.await.unwrap();
        assert_eq!(failed, [""; 0], "{address}, of {count}, {mutual} over mutual TLS");
        assert!(count > mutual && mutual > 10, "{address}: {count}, {mutual}");
    }
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_plaintext_as_soon_as_it_is_not_listed_any_more() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    assert_eq!(lab.pod("front").source("10.77.0.21:8080").await, "from 10.77.0.21");
    lab.publish(mesh().without_peer("10.77.0.21"));
    let front = lab.pod("front");
    until("plaintext", async || (front.source("10.77.0.21:8080").await == "from 10.77.0.11").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_names_protocol_and_port() {
    // Somebody who takes mutual TLS and never answers.
    let silent = |port| [("10.77.0.99", port)];
    let mut cluster = mesh()
        .service("web", &[], 80, Protocol::Http, &silent(8081))
        .service("db", &[], 3306, Protocol::Tcp, &silent(3307))
        .service("any", &[], 8000, Protocol::Detect, &silent(8082));
    Arc::make_mut(&mut cluster.mesh.peers)
        .insert("10.77.0.99".to_owned(), Peer { uid: "x".into(), identity: spiffe("x"), ..Peer::default() });
    let Some(lab) = lab(cluster, |_| {}).await else { return };
    let listener = lab.pod("outside").listen(PORT);
    let (sender, mut hellos) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = vec![0; 16 * 1024];
            let count = stream.read(&mut hello).await.unwrap_or(0);
            hello.truncate(count);
            let _ = sender.send(hello);
        }
    });
    let front = lab.pod("front");
    for (address, protocol, port) in [
        ("10.88.0.1:80", tls::HTTP1, "8081"),
        ("10.88.0.3:8000", tls::HTTP1, "8082"),
        ("10.88.0.2:3306", tls::TCP, "3307"),
        ("10.77.0.99:99", tls::TCP, "99"),
    ] {
        let _ = front.source(address).await;
        let hello = hellos.recv().await.unwrap();
        assert!(offers(&hello, protocol) && names(&hello, port), "{address}: {}", text(&hello));
        for other in [tls::HTTP1, tls::HTTP2, tls::TCP].iter().filter(|other| **other != protocol) {
            assert!(!offers(&hello, other), "{address} offers {other}, too");
        }
    }
    let _ = front.get_http2("10.88.0.1:80").await;
    let hello = hellos.recv().await.unwrap();
    assert!(offers(&hello, tls::HTTP2) && names(&hello, "8081"), "{}", text(&hello));
}

/// Whether a ClientHello has this among its protocols, with its length before it.
fn offers(hello: &[u8], protocol: &str) -> bool {
    contains(hello, &[&[u8::try_from(protocol.len()).unwrap()], protocol.as_bytes()].concat())
}

/// Whether a ClientHello has this as its name: of type host, with its length.
fn names(hello: &[u8], name: &str) -> bool {
    contains(hello, &[&[0, 0, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat())
}

fn contains(hello: &[u8], part: &[u8]) -> bool {
    hello.windows(part.len()).any(|window| window == part)
}

fn text(hello: &[u8]) -> String {
    String::from_utf8_lossy(hello).into_owned()
}
