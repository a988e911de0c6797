//! Clusters that Envoy asks for when they are needed first.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::routed::{backend, route, rule};
use super::*;

const WEB: &str = "10.88.0.1:80";
const DB: &str = "10.88.0.2:3306";
const ANY: &str = "10.88.0.3:8000";
/// More than Envoy holds of a request that waits.
const BODY: usize = 3_000_000;
/// As long Envoy waits for a cluster; who waits in vain says so soon after.
const WAITS: std::ops::Range<Duration> = Duration::from_secs(15)..Duration::from_secs(30);
/// What needs no cluster, or one that is there, takes far less.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The clusters of Services among these: those of every node have simple names.
pub fn of_services(asked: &BTreeSet<Arc<str>>) -> impl Iterator<Item = &str> {
    asked.iter().map(|name| &**name).filter(|name| name.contains(['|', ':']))
}

fn asked(lab: &Lab) -> Vec<String> {
    of_services(&lab.nodes[0].0.asked()).map(str::to_owned).collect()
}

async fn has_cluster(envoy: &Envoy, name: &str) -> bool {
    envoy.ask("/clusters").await.unwrap().contains(&format!("\n{name}::"))
}

/// As many requests of its pods wait, or are answered.
async fn are_there(envoy: &Envoy, requests: usize) {
    until("requests", async || {
        let said = envoy.ask("/stats?filter=http.node.downstream_rq_active").await?;
        said.contains(&format!("http.node.downstream_rq_active: {requests}\n")).then_some(())
    })
    .await;
}

/// The agent goes, and Envoy knows it: what it asks for until then may be answered.
async fn goes_away(lab: &mut Lab) {
    let (node, envoy) = &mut lab.nodes[0];
    node.away();
    until("Envoy is alone", async || {
        let said = envoy.ask("/stats?filter=cluster.xds.upstream_cx_active").await?;
        said.contains("cluster.xds.upstream_cx_active: 0\n").then_some(())
    })
    .await;
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
    let upload = mesh()
        .service("upload", &["10.88.0.20"], 80, Protocol::Http, &[("10.77.0.21", 8081)])
        .service("socket", &["10.88.0.21"], 80, Protocol::Http, &[("10.77.0.21", 8080)])
        .service("nobody", &["10.88.0.22"], 80, Protocol::Http, &[])
        .service("door", &["10.88.0.23"], 80, Protocol::Http, &[])
        .routed(vec![route("shop", "to-nobody", "door", vec![rule("/", vec![backend("nobody", 1)])])]);
    let Some(lab) = lab(upload, |_| {}).await else { return };
    let (front, cart, back) = (lab.pod("front"), lab.pod("cart"), lab.pod("back"));
    assert_eq!(asked(&lab), [""; 0], "nobody has called anybody");
    let server = takes_a_body(back.listen(8081));
    let post = async {
        let mut stream = front.connect("10.88.0.20:80").await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\ncontent-length: {BODY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; BODY]).await.unwrap();
        let mut head = application::read_head(&mut stream).await.unwrap();
        if head.starts_with("HTTP/1.1 100") {
            head = application::read_head(&mut stream).await.unwrap();
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    };
    let socket = async {
        let mut stream = front.connect("10.88.0.21:80").await.unwrap();
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let (head, _) = client::get(&mut stream, "HTTP/1.1", upgrade).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.write_all(b"over the socket\n").await.unwrap();
        assert_eq!(client::line(&mut stream).await.unwrap(), "over the socket");
    };
    // All at once, two for the same one.
    let begun = Instant::now();
    let (one, two, http2, greeting, detected, nobody, ..) = tokio::join!(
        front.source(WEB),
        cart.source(WEB),
        front.get_http2("[fd88::1]:80"),
        cart.talk(DB),
        front.source(ANY),
        front.source("10.88.0.23:80"),
        socket,
        post,
        server,
    );
    assert_eq!((&*one, &*two, &*detected), ("from 10.77.0.21", "from 10.77.0.21", "from 10.77.0.21"));
    assert_eq!(http2.unwrap(), "from fd77::21\nHTTP/2.0 /two\n");
    assert_eq!(greeting.unwrap(), "hello 10.77.0.21 ping bye");
    assert_eq!(nobody, "HTTP/1.1 503 Service Unavailable", "nobody is behind it");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let expected = [
        DB,
        ANY,
        "outbound|80|nobody|shop",
        "outbound|80|six|shop",
        "outbound|80|socket|shop",
        "outbound|80|upload|shop",
        "outbound|80|web|shop",
    ];
    assert_eq!(asked(&lab), expected, "and of no other Service there is a cluster");
    let n1 = &lab.nodes[0].1;
    assert!(has_cluster(n1, "outbound|80|web|shop").await && !has_cluster(n1, "outbound|80|both|shop").await);
}

/// Envoy does not ask again for endpoints that it has already: they are sent to it again with each cluster that has them.
#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_share_their_endpoints_come_one_after_the_other() {
    let addresses = ["10.88.0.20", "10.88.0.21", "10.88.0.22"];
    let dual = mesh().service("dual", &addresses, 3306, Protocol::Tcp, &[("10.77.0.21", 3306)]);
    let Some(lab) = lab(dual, |_| {}).await else { return };
    for address in addresses {
        let begun = Instant::now();
        let said = lab.pod("front").talk(&format!("{address}:3306")).await;
        assert_eq!(said.as_deref(), Ok("hello 10.77.0.21 ping bye"), "{address}");
        assert!(begun.elapsed() < AT_ONCE, "{address}: {:?}", begun.elapsed());
    }
}

/// Envoy 1.40 goes on with a request whose trailers have come, although it waits for the cluster: that one fails. HTTP/1.1 and gRPC's clients
/// send no trailers.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_first_request_with_trailers_fails_and_the_next_one_does_not() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    let ask = async |lab: &Lab| {
        let stream = lab.pod("front").connect(WEB).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = ::http::Request::post(format!("http://{WEB}/two")).body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"body"), false).unwrap();
        let trailers = ::http::HeaderMap::from_iter([(
            ::http::HeaderName::from_static("after"),
            ::http::HeaderValue::from_static("all"),
        )]);
        body.send_trailers(trailers).unwrap();
        response.await.unwrap().status().as_u16()
    };
    // Nobody answers before the trailers have come.
    goes_away(&mut lab).await;
    let begun = Instant::now();
    assert_eq!(ask(&lab).await, 503);
    assert!(begun.elapsed() < AT_ONCE, "if Envoy waits by now, the ADR needs a word less");
    lab.nodes[0].0.back();
    until("its cluster", async || (ask(&lab).await == 200).then_some(())).await;
}

static HIDDEN: AtomicBool = AtomicBool::new(false);

#[tokio::test(flavor = "multi_thread")]
async fn what_there_never_was_fails_at_once_and_who_calls_what_is_gone_waits_for_its_return() {
    fn edit(snapshot: &mut Snapshot) {
        if HIDDEN.load(Ordering::SeqCst) {
            ["outbound|80|web|shop", DB].iter().for_each(|name| snapshot.edit(TypeUrl::Cluster).remove(name));
        }
    }
    HIDDEN.store(true, Ordering::SeqCst);
    let Some(lab) = lab(mesh(), edit).await else { return };
    let (front, cart, n1) = (lab.pod("front"), lab.pod("cart"), &lab.nodes[0].1);
    let change = |hidden: bool| {
        HIDDEN.store(hidden, Ordering::SeqCst);
        lab.nodes.iter().for_each(|(node, _)| node.publish(&lab.shared, &lab.cluster.mesh));
    };
    let begun = Instant::now();
    assert_eq!(front.source(WEB).await, "HTTP/1.1 503 Service Unavailable");
    assert!(front.talk(DB).await.is_err());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());

    for _ in 0..2 {
        change(false);
        until("HTTP", async || (front.source(WEB).await == "from 10.77.0.21").then_some(())).await;
        until("TCP", async || front.talk(DB).await.ok()).await;

        change(true);
        until("the clusters are gone", async || {
            (!has_cluster(n1, "outbound|80|web|shop").await && !has_cluster(n1, DB).await).then_some(())
        })
        .await;
        let back = async {
            are_there(n1, 1).await;
            change(false);
        };
        let (http, tcp, ()) = tokio::join!(front.source(WEB), cart.talk(DB), back);
        assert_eq!((&*http, tcp.as_deref()), ("from 10.77.0.21", Ok("hello 10.77.0.21 ping bye")));
    }
    // In plaintext nothing went there.
    let callers = lab.callers("back", |callers| callers.len() >= 8).await;
    assert!(callers.iter().all(|caller| caller.starts_with("spiffe://")), "{callers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_hears_again_what_is_needed() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    assert_eq!(lab.pod("front").source(WEB).await, "from 10.77.0.21");
    goes_away(&mut lab).await;
    // What is known goes on; what was never called waits.
    let (known, new) = {
        let front = lab.pod("front");
        let back = async {
            are_there(&lab.nodes[0].1, 1).await;
            assert_eq!(front.source(WEB).await, "from 10.77.0.21");
            are_there(&lab.nodes[0].1, 1).await;
            lab.nodes[0].0.back();
            front.source(WEB).await
        };
        tokio::join!(back, front.source(ANY))
    };
    assert_eq!((&*known, &*new), ("from 10.77.0.21", "from 10.77.0.21"));
    until("both are asked for", async || (asked(&lab) == [ANY, "outbound|80|web|shop"]).then_some(())).await;

    // And changes of what was asked for before arrive.
    lab.publish(by_client());
    changes_arrive(&lab).await;
}

fn by_client() -> Cluster {
    mesh().balanced("web", Balancing { by_client: true, ..Balancing::default() }, &[])
}

async fn changes_arrive(lab: &Lab) {
    until("another cluster", async || {
        let dump = lab.nodes[0].1.ask("/config_dump?resource=dynamic_active_clusters").await?;
        dump.contains("RING_HASH").then_some(())
    })
    .await;
    assert_eq!(lab.pod("front").source(WEB).await, "from 10.77.0.21");
    assert_eq!(lab.nodes[0].0.refused(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_envoy_has_at_its_start_what_was_called_and_another_agent_hears_of_it() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    assert_eq!(lab.pod("front").source(WEB).await, "from 10.77.0.21");
    lab.pod("front").talk(DB).await.unwrap();
    let network = lab.network.node("n1");
    let (node, envoy) = &mut lab.nodes[0];
    envoy.end();
    *envoy = Envoy::start(&network, lab.directory.path(), node);
    lab.is_captured().await;
    let n1 = &lab.nodes[0].1;
    assert!(has_cluster(n1, "outbound|80|web|shop").await && has_cluster(n1, DB).await);

    // It needs nobody for those, but for the pod's certificate.
    assert_eq!(lab.pod("front").source("[fd88::1]:80").await, "from fd77::21");
    goes_away(&mut lab).await;
    assert_eq!(lab.pod("front").source(WEB).await, "from 10.77.0.21");
    lab.pod("front").talk(DB).await.unwrap();

    lab.nodes[0].0.back();
    until("it is known that it has them", async || {
        (asked(&lab) == [DB, "outbound|80|six|shop", "outbound|80|web|shop"]).then_some(())
    })
    .await;
    lab.publish(by_client());
    changes_arrive(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_does_no_harm_and_who_waits_too_long_is_told() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    goes_away(&mut lab).await;
    let front = lab.pod("front");
    let begin = async |address: &'static str| {
        let mut stream = front.connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream
    };
    let begun = Instant::now();
    let gone = join_all((0..40).map(|_| begin(WEB))).await;
    let gone_as_well = join_all((0..40).map(|_| begin(DB))).await;
    let (mut patient, mut tcp) = (begin(WEB).await, begin(DB).await);
    are_there(&lab.nodes[0].1, 41).await;
    // Half of them with a reset.
    for (stream, resets) in gone.into_iter().chain(gone_as_well).zip([true, false].into_iter().cycle()) {
        if resets {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
    }
    are_there(&lab.nodes[0].1, 1).await;
    let head = application::read_head(&mut patient).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(WAITS.contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(matches!(tcp.read(&mut [0]).await, Ok(0) | Err(_)), "it is closed");
    assert!(WAITS.contains(&begun.elapsed()), "{:?}", begun.elapsed());

    lab.nodes[0].0.back();
    let front = lab.pod("front");
    until("HTTP", async || (front.source(WEB).await == "from 10.77.0.21").then_some(())).await;
    until("TCP", async || front.talk(DB).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_called_first_at_once_are_all_reached() {
    const MANY: usize = 200;
    let address = |number: usize| format!("10.88.1.{}", number + 1);
    let mut cluster = mesh();
    for number in 0..MANY {
        let protocol = if number % 2 == 0 { Protocol::Http } else { Protocol::Detect };
        let name = format!("many-{number}");
        cluster = cluster.service(&name, &[&address(number)], 80, protocol, &[("10.77.0.21", 8080)]);
    }
    let Some(lab) = lab(cluster, |_| {}).await else { return };
    let connect = async |number: usize| {
        let pod = lab.pod(if number.is_multiple_of(3) { "front" } else { "cart" });
        pod.connect(&format!("{}:80", address(number % MANY))).await.unwrap()
    };
    let streams = join_all((0..MANY * 2).map(connect)).await;
    let begun = Instant::now();
    let ask = async |mut stream: tokio::net::TcpStream| {
        let (head, _) = client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        begun.elapsed()
    };
    let mut took = join_all(streams.into_iter().map(ask)).await;
    took.sort();
    println!(
        "{} first calls at once: half in {:?}, all in {:?}",
        took.len(),
        took[MANY],
        took[took.len() - 1]
    );
    assert!(took[took.len() - 1] < AT_ONCE, "{took:?}");
    assert_eq!(asked(&lab).len(), MANY);

    // One by one: what the first call of a Service takes longer than the second.
    let one = async |address: &str| {
        let begun = Instant::now();
        lab.pod("cart").source(address).await;
        begun.elapsed()
    };
    for address in [WEB, ANY, "10.88.0.6:80"] {
        println!("{address}: {:?} first, then {:?}", one(address).await, one(address).await);
    }
}
