//! Copies of requests leave as the requests themselves do, or not at all.

use envoy_types::pb::envoy::config::cluster::v3 as cds;
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter::ConfigType};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::util::pack_any;
use meshwright_core::model::{HttpRouteFilter, RequestMirror};

use super::application::COPIED;
use super::routed::{backend, route, rule, with};
use super::signals::{brief, counted, expected, total};
use super::*;
use crate::mesh::signals::Kind;

const SHOP: &str = "10.88.0.30:80";

/// Requests for `shop` go to `back`; copies to `cart`, which takes mutual TLS, and out of the mesh.
fn mirrored() -> Cluster {
    let cluster = mesh()
        .service("back", &["10.88.0.21"], 80, Protocol::Http, &[("10.77.0.21", 8080)])
        .service("cart", &["10.88.0.22"], 80, Protocol::Http, &[("10.77.0.12", 8080)])
        .service("out", &["10.88.0.23"], 80, Protocol::Http, &[("10.77.0.99", 8080)])
        .service("silent", &["10.88.0.24"], 80, Protocol::Http, &[("10.77.0.99", 8081)])
        .service("shop", &["10.88.0.30"], 80, Protocol::Http, &[]);
    let to = |name: &str, fraction| {
        let backend_ref = backend(name, 1).backend_ref;
        HttpRouteFilter::RequestMirror(RequestMirror { backend_ref, fraction })
    };
    let copied = with(to("cart", None), with(to("out", None), rule("/copied", vec![backend("back", 1)])));
    let never = with(to("out", Some((0, 100))), rule("/copied/never", vec![backend("back", 1)]));
    let unanswered = with(to("silent", None), rule("/unanswered", vec![backend("back", 1)]));
    cluster.routed(vec![route("shop", "mirrored", "shop", vec![copied, never, unanswered])])
}

/// What was asked for at this path, by whom, without the request itself.
fn copies(path: &str) -> Vec<String> {
    let all = COPIED.lock().unwrap();
    let asked = |head: &&String| head.contains(&format!("GET {path} "));
    all.iter().filter(asked).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_leave_in_the_name_and_from_the_network_of_who_called() {
    let Some(lab) = lab(mirrored(), |_| {}).await else { return };
    for (account, address) in [("front", "10.77.0.11"), ("cart", "10.77.0.12")] {
        let path = format!("/copied/by-{account}");
        let spoofed = "x-meshwright-network: /run/netns/x\r\nx-meshwright-caller: x\r\nx-meshwright-source: x,y,z\r\nX-Own: kept\r\nx-forwarded-for: 1.2.3.4\r\n";
        let answer = lab.pod(account).ask(SHOP, &path, spoofed).await.unwrap();
        assert_eq!((answer.status, answer.source()), (200, "from 10.77.0.21"));
        let all = until("both copies", async || Some(copies(&path)).filter(|all| all.len() == 3)).await;
        let mut sources: Vec<_> = all.iter().filter_map(|head| head.lines().next()).collect();
        sources.sort_unstable();
        // By mutual TLS they come from the receiver's own proxy; to the one outside from who called.
        let mut expected =
            [format!("from {address}"), "from 10.77.0.12".to_owned(), "from 10.77.0.21".to_owned()];
        expected.sort_unstable();
        assert_eq!(sources, expected, "{account}");
        for head in &all {
            let lower = head.to_ascii_lowercase();
            assert!(lower.contains("x-own: kept") && lower.contains("host: shop.example"), "{head}");
            assert!(lower.contains("x-forwarded-for: 1.2.3.4\r\n"), "{head}");
            assert!(!lower.contains("x-envoy") && !lower.contains("x-meshwright-cluster"), "{head}");
        }
        // The request itself carries what its client has written; the copies do not.
        let spoofed = all.iter().filter(|head| head.contains("x-meshwright-network")).count();
        assert_eq!(spoofed, 1, "{all:?}");
    }
    let callers = lab.callers("cart", |callers| callers.len() >= 2).await;
    let mut of =
        callers.iter().filter_map(|caller| caller.split('|').next()?.rsplit('/').next()).collect::<Vec<_>>();
    of.sort_unstable();
    assert_eq!(of, ["cart", "front"], "one connection for each: copies of two pods share none");
    assert_eq!(lab.pod("front").ask(SHOP, "/copied/never/x", "").await.unwrap().status, 200);
    assert_eq!(copies("/copied/never/x").len(), 1);
    let enough = |counted: &_| total(counted, Kind::Requests) >= 7;
    let counts = counted(&lab.nodes[0].1, enough).await;
    let requests = expected(&[
        ("front(front) → shop/back:80 back(back) HTTP/1.1 2xx  mtls", 2),
        ("cart(cart) → shop/back:80 back(back) HTTP/1.1 2xx  mtls", 1),
        ("front(front) → shop/cart:80 cart(cart) HTTP/1.1 2xx  mtls", 1),
        ("cart(cart) → shop/cart:80 cart(cart) HTTP/1.1 2xx  mtls", 1),
        ("front(front) → shop/out:80  HTTP/1.1 2xx  plain", 1),
        ("cart(cart) → shop/out:80  HTTP/1.1 2xx  plain", 1),
    ]);
    assert_eq!(brief(&counts, Kind::Requests), requests, "copies count for who called");
    let many: String = (0..300).map(|number| format!("x-{number}: x\r\n")).collect();
    assert_eq!(lab.pod("front").ask(SHOP, "/copied/many", &many).await.unwrap().status, 200);
    until("copies with as many headers as the request", async || {
        (copies("/copied/many").len() == 3).then_some(())
    })
    .await;
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// What tells who called: without it nobody gets a copy, and above all not from the node's own network.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_has_lost_its_caller_reaches_nobody() {
    fn lose(snapshot: &mut Snapshot) {
        ads::change(snapshot, TypeUrl::Route, |routes: &mut RouteConfiguration| {
            let all = routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes);
            for action in all.filter_map(|route| route.action.as_mut()) {
                let Action::Route(action) = action else { continue };
                for policy in &mut action.request_mirror_policies {
                    policy
                        .request_headers_mutations
                        .retain(|one| !format!("{one:?}").contains("FILTER_STATE"));
                }
            }
        });
    }
    let Some(lab) = lab(mirrored(), lose).await else { return };
    let path = "/copied/lost";
    assert_eq!(lab.pod("front").ask(SHOP, path, "").await.unwrap().status, 200);
    until("the copy has failed", async || {
        let stats = lab.nodes[0].1.ask("/stats?filter=%5Emesh&usedonly").await?;
        stats.lines().any(|line| line.contains("out|shop") && line.contains("UF")).then_some(())
    })
    .await;
    assert_eq!(copies(path).len(), 1, "the request itself");
}

/// Changes how copies are taken in.
fn change(snapshot: &mut Snapshot, mut change: impl FnMut(&mut HttpConnectionManager)) {
    ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
        if listener.name != "node/mirror" {
            return;
        }
        for filter in listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
            let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else { panic!("no config") };
            let mut manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
            change(&mut manager);
            *any = pack_any(manager);
        }
    });
}

/// A copy may take a second instead of a minute.
fn hasty(snapshot: &mut Snapshot) {
    change(snapshot, |manager| {
        let options = manager.common_http_protocol_options.as_mut().unwrap();
        let longest = options.max_stream_duration.as_mut().unwrap();
        assert_eq!(std::mem::replace(&mut longest.seconds, 1), 60);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_never_answered_does_not_stay() {
    let Some(lab) = lab(mirrored(), hasty).await else { return };
    let silent = lab.pod("outside").listen(8081);
    assert_eq!(lab.pod("front").ask(SHOP, "/unanswered", "").await.unwrap().status, 200);
    let left = tokio::time::timeout(Duration::from_secs(15), async {
        let (mut stream, _) = silent.accept().await.unwrap();
        application::read_head(&mut stream).await.unwrap();
        // None once the proxy has let go of it.
        application::read_head(&mut stream).await
    });
    assert_eq!(left.await, Ok(None));
}

#[test]
fn there_are_only_so_many_copies_at_once() {
    let snapshot = snapshot(&mirrored(), "n1");
    for name in ["node/mirror", "node/mirror/2"] {
        let cluster: cds::Cluster = decode(&snapshot, TypeUrl::Cluster, name);
        let limits = cluster.circuit_breakers.unwrap().thresholds.remove(0);
        let limits = [limits.max_connections, limits.max_pending_requests, limits.max_requests];
        assert_eq!(limits.map(|limit| limit.map(|limit| limit.value)), [Some(1024); 3], "{name}");
    }
}
