//! Copies of requests leave as the requests themselves do, or not at all.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
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
        .service("shop", &["10.88.0.30"], 80, Protocol::Http, &[]);
    let to = |name: &str, fraction| {
        let backend_ref = backend(name, 1).backend_ref;
        HttpRouteFilter::RequestMirror(RequestMirror { backend_ref, fraction })
    };
    let copied = with(to("cart", None), with(to("out", None), rule("/copied", vec![backend("back", 1)])));
    let never = with(to("out", Some((0, 100))), rule("/copied/never", vec![backend("back", 1)]));
    cluster.routed(vec![route("shop", "mirrored", "shop", vec![copied, never])])
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
