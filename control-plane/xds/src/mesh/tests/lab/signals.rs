//! What is counted, of whom; what is traced, and what is written down.

use std::collections::BTreeMap;

use bytes::Bytes;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::Config;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::util::pack_any;
use tokio::sync::mpsc;

use super::*;
use crate::mesh::signals::{Destination, Kind, Outcome, Series, parse, parse_whole};

/// What the proxy of a node has counted, once there is enough of it.
pub async fn counted(
    envoy: &Envoy,
    enough: impl Fn(&BTreeMap<Series, u64>) -> bool,
) -> BTreeMap<Series, u64> {
    until("it was counted", async || {
        let answer = envoy.ask("/stats?filter=%5Emesh").await?;
        let numbers = answer.lines().filter_map(|line| line.rsplit_once(": "));
        let series = numbers.filter_map(|(name, value)| Some((parse(name)?, value.parse().ok()?)));
        let counted = series.collect();
        enough(&counted).then_some(counted)
    })
    .await
}

/// `workload → destination workload protocol [outcome] flags mtls` of one kind.
pub fn brief(counted: &BTreeMap<Series, u64>, kind: Kind) -> BTreeMap<String, u64> {
    let of_kind = counted.iter().filter(|(series, _)| series.kind == kind);
    of_kind
        .map(|(series, count)| {
            let destination = match &series.destination {
                Destination::Service { namespace, name, port } => format!("{namespace}/{name}:{port}"),
                other => format!("{other:?}"),
            };
            let peer = series.peer.as_ref().map(|peer| format!("{}({})", peer.name, peer.account));
            let outcome = match series.outcome {
                Outcome::None => String::new(),
                Outcome::Class(class) => format!(" {class}xx"),
                Outcome::Grpc(status) => format!(" grpc {status}"),
            };
            let text = format!(
                "{}({}) → {destination} {} {}{outcome} {} {}",
                series.own.name,
                series.own.account,
                peer.unwrap_or_default(),
                series.protocol,
                series.flags,
                if series.mtls { "mtls" } else { "plain" }
            );
            (text, *count)
        })
        .collect()
}

pub fn total(counted: &BTreeMap<Series, u64>, kind: Kind) -> u64 {
    counted.iter().filter(|(series, _)| series.kind == kind).map(|(_, count)| count).sum()
}

pub fn expected(lines: &[(&str, u64)]) -> BTreeMap<String, u64> {
    lines.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_counted_for_who_called_whom() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let (front, cart) = (lab.pod("front"), lab.pod("cart"));
    for _ in 0..3 {
        front.source("10.88.0.1:80").await;
        cart.source("10.88.0.3:8000").await;
    }
    cart.source("10.88.0.1:80").await;
    front.get_http2("10.88.0.1:80").await.unwrap();
    for status in ["0", "14", "14", "123456"] {
        cart.call_for("10.88.0.1:80", status).await.unwrap();
    }
    front.talk("10.88.0.2:3306").await.unwrap();
    cart.talk("10.77.0.21:3306").await.unwrap();
    cart.talk("10.77.0.99:3306").await.unwrap();

    let n1 = &lab.nodes[0].1;
    let enough = |counted: &_| total(counted, Kind::Requests) == 12 && total(counted, Kind::Closed) == 3;
    let counts = counted(n1, enough).await;
    let requests = expected(&[
        ("front(front) → shop/web:80 back(back) HTTP/1.1 2xx  mtls", 3),
        ("front(front) → shop/web:80 back(back) HTTP/2 2xx  mtls", 1),
        ("cart(cart) → shop/web:80 back(back) HTTP/1.1 2xx  mtls", 1),
        ("cart(cart) → shop/any:8000 back(back) HTTP/1.1 2xx  mtls", 3),
        ("cart(cart) → shop/web:80 back(back) HTTP/2 grpc 0  mtls", 1),
        ("cart(cart) → shop/web:80 back(back) HTTP/2 grpc 14  mtls", 2),
        // A status that there is not is not one of its own.
        ("cart(cart) → shop/web:80 back(back) HTTP/2 grpc 2  mtls", 1),
    ]);
    assert_eq!(brief(&counts, Kind::Requests), requests);
    let connections = [
        ("front(front) → shop/db:3306 back(back) TCP  mtls", 1),
        ("cart(cart) → Pod (back) TCP  mtls", 1),
        ("cart(cart) → Outside  TCP  plain", 1),
    ];
    assert_eq!(brief(&counts, Kind::Opened), expected(&connections));
    assert_eq!(brief(&counts, Kind::Closed), expected(&connections));
    let sent = brief(&counts, Kind::Sent);
    assert_eq!(sent["front(front) → shop/db:3306 back(back) TCP  mtls"], 5, "ping and a line feed");
    let received = brief(&counts, Kind::Received);
    assert_eq!(received["cart(cart) → Outside  TCP  plain"], 26 - 5 + 5);
    assert!(received["front(front) → shop/web:80 back(back) HTTP  mtls"] > 200);

    // The receiver knows identities only, and who uses a connection again is no new one.
    let accepted = counted(&lab.nodes[1].1, |counted| total(counted, Kind::Accepted) == 2).await;
    let own =
        expected(&[("(back) → Nothing (front) TCP  mtls", 1), ("(back) → Nothing (cart) TCP  mtls", 1)]);
    assert_eq!(brief(&accepted, Kind::Accepted), own);
    assert!(total(&accepted, Kind::AcceptedSent) > 40);

    let whole = n1.ask("/stats?filter=%5Emesh_all").await.unwrap();
    let whole: BTreeMap<_, _> = whole
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(n, v)| Some((parse_whole(n)?, v)))
        .collect();
    assert_eq!(whole, [(Kind::Requests, "12"), (Kind::Closed, "3")].into());
    // Times of all requests of a pair are in one histogram, which Envoy brings up to date every five seconds.
    const TIMES: &str = "/stats?format=json&usedonly&histogram_buckets=detailed&filter=%5Emesh";
    until("times", async || {
        let times = n1.ask(TIMES).await?;
        (times.matches("\"mesh.duration.by.").count() == 3).then_some(())
    })
    .await;
    // A Service adds no statistics of its own.
    let all = n1.ask("/stats").await.unwrap();
    assert!(!all.contains("cluster.outbound") && !all.contains("cluster.10.88"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proxies_cause_is_told_with_its_flag() {
    let back = |port| [("10.77.0.21", port)];
    let peer = |account: &str| Peer { uid: "x".into(), identity: spiffe(account), workload: account.into() };
    // A pod that is somebody else; ports where no application listens; one that does not listen at all.
    let mut cluster = mesh()
        .service("closed", &["10.88.0.12"], 80, Protocol::Http, &back(1))
        .service("nobody", &["10.88.0.13"], 3306, Protocol::Tcp, &back(1))
        .service("gone", &["10.88.0.14"], 80, Protocol::Http, &[("10.77.0.99", 8080)])
        .service("gone", &["10.88.0.14"], 3306, Protocol::Tcp, &[("10.77.0.99", 3306)]);
    let peers = Arc::make_mut(&mut cluster.mesh.peers);
    peers.insert("fd77::21".to_owned(), peer("other"));
    peers.insert("10.77.0.99".to_owned(), peer("outside"));
    let Some(lab) = lab(cluster, |_| {}).await else { return };
    let front = lab.pod("front");
    for address in ["[fd88::1]:80", "10.88.0.12:80", "10.88.0.14:80"] {
        assert!(front.source(address).await.contains("503"), "{address}");
    }
    for address in ["10.88.0.13:3306", "10.88.0.14:3306"] {
        assert!(front.talk(address).await.is_err(), "{address}");
    }

    let enough = |counted: &_| {
        (total(counted, Kind::Requests), total(counted, Kind::Closed), total(counted, Kind::Unreached))
            == (3, 2, 3)
    };
    let counts = counted(&lab.nodes[0].1, enough).await;
    let requests = expected(&[
        ("front(front) → shop/six:80 other(other) HTTP/1.1 5xx UC mtls", 1),
        ("front(front) → shop/closed:80 back(back) HTTP/1.1 5xx UC mtls", 1),
        ("front(front) → shop/gone:80 outside(outside) HTTP/1.1 5xx UC mtls", 1),
    ]);
    // Which of the two it is depends on whether the request was on its way already when the connection failed.
    let told: BTreeMap<_, _> = brief(&counts, Kind::Requests)
        .into_iter()
        .map(|(text, count)| (text.replace("UF", "UC"), count))
        .collect();
    assert_eq!(told, requests);
    let unreached = expected(&[
        ("front(front) → shop/six:80 other(other) TCP  mtls", 1),
        ("front(front) → shop/gone:80 outside(outside) TCP  mtls", 1),
        ("front(front) → Nothing outside(outside) TCP  mtls", 1),
    ]);
    assert_eq!(brief(&counts, Kind::Unreached), unreached);
    let handshakes = expected(&[("front(front) → shop/six:80 other(other) TCP  mtls", 1)]);
    assert_eq!(brief(&counts, Kind::HandshakesFailed), handshakes);
}

/// Changes the loggers of all filters.
pub fn edit_loggers(snapshot: &mut Snapshot, edit: fn(&mut Vec<AccessLog>)) {
    ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
        for filter in listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
            let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
            if any.type_url.ends_with("TcpProxy") {
                let mut proxy = TcpProxy::decode(any.value.as_slice()).unwrap();
                edit(&mut proxy.access_log);
                *any = pack_any(proxy);
            } else if any.type_url.ends_with("HttpConnectionManager") {
                let mut manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
                edit(&mut manager.access_log);
                *any = pack_any(manager);
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_counts_no_more_labels_than_it_may_and_the_whole_in_any_case() {
    fn edit(snapshot: &mut Snapshot) {
        edit_loggers(snapshot, |all| {
            for logger in all {
                let Some(access_log::ConfigType::TypedConfig(any)) = &mut logger.config_type else {
                    continue;
                };
                let mut config = Config::decode(any.value.as_slice()).unwrap();
                config.stats_scope.iter_mut().filter(|scope| scope.max_counters.is_some()).for_each(
                    |scope| {
                        scope.max_counters = crate::envoy::common::uint32(4);
                        scope.max_histograms = crate::envoy::common::uint32(1);
                    },
                );
                *any = pack_any(config);
            }
        });
    }
    let Some(lab) = lab(mesh(), edit).await else { return };
    for address in ["10.88.0.1:80", "10.88.0.3:8000", "10.88.0.6:80", "10.88.0.1:80"] {
        for pod in ["front", "cart"] {
            assert!(lab.pod(pod).source(address).await.starts_with("from"), "{pod} {address}");
        }
    }
    let n1 = &lab.nodes[0].1;
    until("the whole", async || {
        n1.ask("/stats?filter=%5Emesh_all").await?.contains("mesh_all.requests: 8").then_some(())
    })
    .await;
    let counts = counted(n1, |_| true).await;
    let of_requests = counts.keys().filter(|series| series.kind == Kind::Requests).count();
    assert_eq!((of_requests, counts.len() - of_requests), (4, 4), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_counts_in_is_forgotten_and_counts_from_nothing_again() {
    let forget = Some(Duration::from_secs(5));
    let Some(lab) = lab_with(mesh(), Telemetry::default(), forget, |_| {}).await else { return };
    let (front, n1) = (lab.pod("front"), &lab.nodes[0].1);
    front.source("10.88.0.1:80").await;
    counted(n1, |counted| total(counted, Kind::Requests) == 1).await;
    counted(n1, BTreeMap::is_empty).await;
    front.source("10.88.0.1:80").await;
    front.source("10.88.0.1:80").await;
    counted(n1, |counted| total(counted, Kind::Requests) == 2).await;
}

/// A collector in the node's own network: what it was sent, and a trace id or span in it is found by its bytes.
fn collector(lab: &Lab, node: &str, port: u16) -> mpsc::UnboundedReceiver<Bytes> {
    let listener =
        network::within(&lab.network.node(node), || std::net::TcpListener::bind(("::", port)).unwrap());
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.ok()?;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        let (head, mut body) = request.into_parts();
                        assert_eq!(
                            head.uri.path(),
                            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
                        );
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            let _ = sender.send(data);
                        }
                        let head = ::http::Response::builder().header("content-type", "application/grpc");
                        let mut send = respond.send_response(head.body(()).ok()?, false).ok()?;
                        let ok = (
                            ::http::HeaderName::from_static("grpc-status"),
                            ::http::HeaderValue::from_static("0"),
                        );
                        send.send_trailers(::http::HeaderMap::from_iter([ok])).ok()
                    });
                }
                Some(())
            });
        }
    });
    received
}

fn telemetry(sampling: u32) -> Telemetry {
    let tracing = Tracing { host: "127.0.0.1".to_owned(), port: 4317, sampling };
    Telemetry { tracing: Some(tracing), access_log: true }
}

fn header<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    body.lines()
        .find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)))
        .map(|(_, v)| v.trim())
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_and_is_told_from_the_nodes_own_network() {
    let Some(lab) = lab_with(mesh(), telemetry(1_000_000), None, |_| {}).await else { return };
    let mut spans = collector(&lab, "n1", 4317);
    let front = lab.pod("front");
    let parent =
        format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\nx-request-id: mine\r\n");
    let (_, body) = front.get("10.88.0.1:80", &parent).await.unwrap();
    let handed = header(&body, "traceparent").unwrap();
    assert!(handed.starts_with(&format!("00-{TRACE}-")) && handed.ends_with("-01"), "{body}");
    assert!(!handed.contains("00f067aa0ba902b7"), "the span is ours: {handed}");
    assert_eq!((header(&body, "tracestate"), header(&body, "x-request-id")), (Some("a=b"), Some("mine")));

    // One that nobody began is begun; one that its caller does not want is handed on as it is.
    let (_, body) = front.get("10.88.0.1:80", "").await.unwrap();
    assert!(
        header(&body, "traceparent").unwrap().ends_with("-01") && header(&body, "x-request-id").is_none(),
        "{body}"
    );
    let unwanted = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let (_, body) = front.get("10.88.0.1:80", &format!("traceparent: {unwanted}\r\n")).await.unwrap();
    let handed = header(&body, "traceparent").unwrap();
    assert!(
        handed.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && handed.ends_with("-00"),
        "{handed}"
    );

    let mut told = Vec::new();
    let id: Vec<u8> = (0..16).map(|i| u8::from_str_radix(&TRACE[2 * i..2 * i + 2], 16).unwrap()).collect();
    let has = |told: &[u8], part: &[u8]| told.windows(part.len()).any(|window| window == part);
    while !has(&told, &id) {
        let more = tokio::time::timeout(DEADLINE, spans.recv()).await.expect("a span in time").unwrap();
        told.extend_from_slice(&more);
    }
    for part in
        ["meshwright-node", "meshwright.source", "shop,front,front", "meshwright.peer", "shop,back,back"]
    {
        assert!(has(&told, part.as_bytes()), "{part}");
    }
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_samples_and_still_what_is_there_is_handed_on() {
    let Some(lab) = lab_with(mesh(), telemetry(0), None, |_| {}).await else { return };
    let front = lab.pod("front");
    let parent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    let (_, body) = front.get("10.88.0.1:80", &parent).await.unwrap();
    assert!(header(&body, "traceparent").unwrap().starts_with(&format!("00-{TRACE}-")), "{body}");
    let (_, body) = front.get("10.88.0.1:80", "").await.unwrap();
    assert!(header(&body, "traceparent").is_none_or(|begun| begun.ends_with("-00")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_nothing_is_added_and_without_a_log_nothing_is_written() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let front = lab.pod("front");
    let (_, plain) = front.get("10.77.0.99:8080", "").await.unwrap();
    let (_, through) = front.get("10.88.0.1:80", "").await.unwrap();
    let names = |body: &str| {
        body.lines()
            .filter_map(|line| Some(line.split_once(": ")?.0.to_ascii_lowercase()))
            .collect::<Vec<_>>()
    };
    // x-forwarded-proto is Envoy's own, which cannot do without.
    assert_eq!(
        names(&through).into_iter().filter(|name| name != "x-forwarded-proto").collect::<Vec<_>>(),
        names(&plain)
    );
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let (_, body) = front.get("10.88.0.1:80", &format!("traceparent: {parent}\r\n")).await.unwrap();
    assert_eq!(header(&body, "traceparent"), Some(parent.as_str()));
    counted(&lab.nodes[0].1, |counted| total(counted, Kind::Requests) == 2).await;
    assert_eq!(std::fs::read_to_string(lab.directory.path().join("n1.out")).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_and_connection_gives_a_line_that_tells_no_secret() {
    let log_only = Telemetry { access_log: true, ..Telemetry::default() };
    let Some(lab) = lab_with(mesh(), log_only, None, |_| {}).await else { return };
    let front = lab.pod("front");
    front.get("10.88.0.1:80", "Authorization: Bearer hidden\r\nCookie: hidden\r\n").await.unwrap();
    front.talk("10.88.0.2:3306").await.unwrap();
    let out = lab.directory.path().join("n1.out");
    let lines = until("lines of both", async || {
        let text = std::fs::read_to_string(&out).ok()?;
        (text.contains("DownstreamEnd") && text.contains("TcpConnectionEnd")).then_some(text)
    })
    .await;
    for part in [
        r#""source":"shop,front,front""#,
        r#""peer":"shop,back,back""#,
        r#""destination":"10.88.0.1:80""#,
        r#""cluster":"outbound|80|web|shop""#,
        r#""method":"GET""#,
        r#""path":"/path""#,
        r#""response_code":200"#,
        r#""cluster":"outbound|3306|db|shop""#,
        r#""bytes_sent":5"#,
    ] {
        assert!(lines.contains(part), "{part} is not in {lines}");
    }
    assert!(!lines.contains("hidden") && !lines.contains("q=1"), "{lines}");
}
