//! TCPRoutes whose parent is a Service.

use meshwright_core::model::{HeaderModifier, HttpRouteFilter};
use tokio::io::AsyncWriteExt;

use super::routed::{backend, route, rule, tcp_route, with};
use super::*;

const DB: &str = "10.88.0.2:3306";
const SPLIT: &str = "10.88.0.52:3306";
const ODD: &str = "10.88.0.4:8000";

/// The mesh with databases in three pods, one of them outside, and a Service without endpoints.
fn databases() -> Cluster {
    mesh()
        .service("db-cart", &["10.88.0.50"], 3306, Protocol::Tcp, &[("10.77.0.12", 3306)])
        .service("db-out", &["10.88.0.51"], 3306, Protocol::Tcp, &[("10.77.0.99", 3306)])
        .service("split", &["10.88.0.52", "fd88::52"], 3306, Protocol::Tcp, &[])
}

/// Pod `cart` is in namespace `web`.
fn with_a_consumer() -> Cluster {
    let mut cluster = databases();
    let cart = Arc::make_mut(cluster.mesh.nodes.get_mut("n1").unwrap()).members.get_mut("uid-cart").unwrap();
    cart.identity = spiffe_in("web", "cart");
    cart.pod.namespace = "web".to_owned();
    Arc::make_mut(&mut cluster.mesh.peers)
        .values_mut()
        .filter(|peer| &*peer.uid == "uid-cart")
        .for_each(|peer| peer.identity = spiffe_in("web", "cart"));
    cluster
}

fn greeting(address: &str) -> String {
    format!("hello {address} ping bye")
}

/// Who answered so many connections, and how often; the last is how often nobody did.
async fn answers(from: &Namespace, address: &str, count: usize) -> [usize; 4] {
    let mut all = [0; 4];
    for _ in 0..count {
        let answer = from.talk(address).await.ok();
        let known = ["10.77.0.21", "10.77.0.12", "10.77.0.11"].map(|address| Some(greeting(address)));
        all[known.iter().position(|known| *known == answer).unwrap_or(3)] += 1;
    }
    all
}

fn is_about(found: usize, expected: usize, off: usize) -> bool {
    found.abs_diff(expected) <= off
}

async fn refused_nothing(lab: &Lab) {
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_split_by_weight_and_a_share_without_a_backend_is_refused() {
    let routes = vec![
        // The Service is its own backend.
        tcp_route("shop", "db", &[("db", 3), ("db-cart", 1)]),
        tcp_route("shop", "split", &[("db-cart", 1), ("none", 2), ("db-out", 1)]),
        tcp_route("shop", "odd", &[("none", 1)]),
        // As many backends as the API allows.
        tcp_route("web", "db", &[("db-cart", 1); 16]),
        // For the whole Service, which is called by HTTP elsewhere.
        tcp_route("shop", "web", &[("db-cart", 1)]),
    ];
    let Some(lab) = lab(databases().routed(routes), |_| {}).await else { return };
    let front = lab.pod("front");
    // So far from what is expected one run in some 10,000 is.
    let found = answers(front, DB, 400).await;
    assert!(is_about(found[0], 300, 35) && found[0] + found[1] == 400, "{found:?}");
    for address in [SPLIT, "[fd88::52]:3306"] {
        let found = answers(front, address, 200).await;
        assert!(is_about(found[1], 50, 25) && is_about(found[2], 50, 25) && found[0] == 0, "{found:?}");
    }
    assert_eq!(answers(front, ODD, 20).await, [0, 0, 0, 20], "refused, and not sent to its own endpoints");
    assert_eq!(front.talk("10.88.0.1:80").await.unwrap(), greeting("10.77.0.12"));
    // In the name of who called, and to the port of the backend.
    let expected = format!("{}|3306|", spiffe("front"));
    lab.callers("cart", |lines| lines.iter().any(|line| line.starts_with(&expected))).await;
    refused_nothing(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumers_route_is_for_its_own_namespace_whatever_others_speak_there() {
    let header =
        HeaderModifier { set: vec![("x-route".to_owned(), "own".to_owned())], ..HeaderModifier::default() };
    let to_back = |prefix| {
        with(HttpRouteFilter::ResponseHeaderModifier(header.clone()), rule(prefix, vec![backend("web", 1)]))
    };
    let routes = vec![
        tcp_route("shop", "db", &[("db", 1)]),
        tcp_route("web", "db", &[("db-out", 1)]),
        tcp_route("web", "web", &[("db-out", 1)]),
        tcp_route("web", "any", &[("db-out", 1)]),
        tcp_route("other", "split", &[("db-out", 1)]),
        tcp_route("shop", "odd", &[("db-cart", 1)]),
        route("web", "http", "odd", vec![to_back("/")]),
    ];
    let Some(lab) = lab(with_a_consumer().routed(routes), |_| {}).await else { return };
    let (front, cart) = (lab.pod("front"), lab.pod("cart"));
    assert_eq!(front.talk(DB).await.unwrap(), greeting("10.77.0.21"));
    // Outside the mesh the caller is seen, from its own network.
    for address in [DB, "10.88.0.1:80", "10.88.0.3:8000"] {
        assert_eq!(cart.talk(address).await.unwrap(), greeting("10.77.0.12"), "{address}");
    }
    for address in ["10.88.0.1:80", "10.88.0.3:8000"] {
        assert_eq!(front.source(address).await, "from 10.77.0.21", "{address}");
    }
    // Routes of its own about requests, and none of the producer's connections.
    assert_eq!(front.talk(ODD).await.unwrap(), greeting("10.77.0.12"));
    let answer = cart.ask(ODD, "/", "").await.unwrap();
    assert_eq!((answer.status, answer.header("x-route")), (200, Some("own")));
    assert_eq!(cart.talk(ODD).await.unwrap(), greeting("10.77.0.21"));
    // Of a third namespace, for a Service that has nobody itself.
    assert!(front.talk(SPLIT).await.is_err() && cart.talk(SPLIT).await.is_err());
    refused_nothing(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_stay_where_they_are_while_routes_change() {
    let to = |name: &str| {
        databases()
            .routed(vec![tcp_route("shop", "db", &[(name, 1)]), tcp_route("shop", "any", &[(name, 1)])])
    };
    let Some(mut lab) = lab(databases(), |_| {}).await else { return };
    let mut http = lab.pod("front").connect("10.88.0.3:8000").await.unwrap();
    assert!(client::get(&mut http, "HTTP/1.1", "").await.is_ok());
    let mut open = Vec::new();
    for (cluster, address) in [
        (databases(), Some("10.77.0.21")),
        (to("db-cart"), Some("10.77.0.12")),
        (to("db-out"), Some("10.77.0.11")),
        (to("none"), None),
        (to("db"), Some("10.77.0.21")),
        // It is there, and has no endpoints.
        (to("split"), None),
        (to("db"), Some("10.77.0.21")),
        (to("db-cart"), Some("10.77.0.12")),
        (databases(), Some("10.77.0.21")),
    ] {
        lab.publish(cluster);
        let front = lab.pod("front");
        until(&format!("connections go to {address:?}"), async || {
            (front.talk(DB).await.ok() == address.map(greeting)).then_some(())
        })
        .await;
        match address {
            Some(address) => {
                let mut stream = front.connect(DB).await.unwrap();
                assert_eq!(client::line(&mut stream).await.unwrap(), format!("hello {address}"));
                open.push(stream);
            }
            None => {
                let why = front.talk(DB).await.unwrap_err();
                assert!(!why.contains("elapsed"), "it is to be closed, and not left to wait: {why}");
            }
        }
        for stream in &mut open {
            stream.write_all(b"still here\n").await.unwrap();
            assert_eq!(client::line(stream).await.unwrap(), "still here");
        }
        // HTTP from before the port had a TCPRoute is HTTP, and goes to the Service itself.
        let (_, body) = client::get(&mut http, "HTTP/1.1", "").await.unwrap();
        assert!(body.starts_with("from 10.77.0.21"), "{body}");
    }
    // A cluster that only routes led to goes in the end, and takes nobody along.
    lab.shared = changes::settled(lab.shared.clone());
    lab.publish(databases());
    until("clusters of routes are gone", async || {
        let said = lab.nodes[0].1.ask("/clusters").await?;
        (!said.contains("outbound|3306|db-cart|shop::")).then_some(())
    })
    .await;
    for stream in &mut open {
        stream.write_all(b"still here\n").await.unwrap();
        assert_eq!(client::line(stream).await.unwrap(), "still here");
    }
    refused_nothing(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_fails_while_routes_lead_elsewhere() {
    let routes = |turn: usize| match turn % 4 {
        0 => vec![tcp_route("shop", "db", &[("db-cart", 1)])],
        1 => vec![tcp_route("shop", "db", &[("db-out", 1), ("db", 1)])],
        2 => Vec::new(),
        _ => vec![tcp_route("web", "db", &[("db-cart", 1)]), tcp_route("shop", "web", &[("db", 1)])],
    };
    let Some(mut lab) = lab(with_a_consumer().routed(routes(0)), |_| {}).await else { return };
    let mut failed = Vec::new();
    for turn in 0..60 {
        lab.publish(with_a_consumer().routed(routes(turn)));
        for _ in 0..6 {
            for account in ["front", "cart"] {
                if let Err(error) = lab.pod(account).talk(DB).await {
                    failed.push((turn, account, error));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{} of 720 failed: {failed:?}", failed.len());
    refused_nothing(&lab).await;
}
