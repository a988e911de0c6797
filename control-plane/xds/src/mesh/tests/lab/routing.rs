//! Routes whose parent is a Service.

use meshwright_core::model::{
    HeaderModifier, HttpBackendRef, HttpRetry, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule,
    PathMatch, PathModifier, RequestRedirect, RouteKind, StringMatch, UrlRewrite, ValueMatch,
};

use super::routed::{backend, route, rule, with};
use super::*;

/// Has routes, and no endpoints of its own.
const SHOP: &str = "10.88.0.30:80";

/// The mesh with Services that routes lead to: pods on both nodes, and one outside.
fn shops() -> Cluster {
    mesh()
        .service("back", &["10.88.0.21"], 80, Protocol::Http, &[("10.77.0.21", 8080)])
        .service("cart", &["10.88.0.22"], 80, Protocol::Detect, &[("10.77.0.12", 8080)])
        .service("out", &["10.88.0.23"], 80, Protocol::Tcp, &[("10.77.0.99", 8080)])
        .service("shop", &["10.88.0.30", "fd88::30"], 80, Protocol::Http, &[])
}

fn header(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.to_owned(), value: StringMatch::Exact(value.to_owned()) }
}

fn changes(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    HeaderModifier { set: pairs(set), add: pairs(add), remove }
}

/// One backend, for which requests are marked.
fn marked(name: &str, weight: u32) -> HttpBackendRef {
    let filters = vec![
        HttpRouteFilter::RequestHeaderModifier(changes(&[("X-To", name)], &[], &[])),
        HttpRouteFilter::ResponseHeaderModifier(changes(&[("X-By", name)], &[], &[])),
    ];
    HttpBackendRef { filters, ..backend(name, weight) }
}

fn everything() -> HttpRoute {
    let header_rule = HttpRouteRule {
        matches: vec![HttpRouteMatch {
            headers: vec![header("Version", "two")],
            query_params: vec![header("animal", "whale")],
            method: Some("GET".to_owned()),
            ..HttpRouteMatch::default()
        }],
        ..rule("/", vec![backend("cart", 1)])
    };
    let set = changes(&[("X-Set", "new")], &[("X-Add", "second")], &["X-Remove"]);
    let path = PathModifier::ReplacePrefixMatch("/new".to_owned());
    let rewrite = HttpRouteFilter::UrlRewrite(UrlRewrite {
        path: Some(path),
        hostname: Some("other.example".to_owned()),
    });
    let redirect = RequestRedirect {
        hostname: Some("example.org".to_owned()),
        port: Some(8083),
        status_code: Some(301),
        ..RequestRedirect::default()
    };
    let retry =
        |codes: &[u16]| Some(HttpRetry { codes: codes.to_vec(), attempts: Some(2), ..HttpRetry::default() });
    let short = Some(Duration::from_millis(300));
    let rules = vec![
        header_rule,
        rule("/split", vec![marked("back", 3), marked("out", 1), backend("cart", 0)]),
        with(HttpRouteFilter::RequestHeaderModifier(set), rule("/headers", vec![backend("back", 1)])),
        with(rewrite, rule("/old", vec![backend("back", 1)])),
        with(HttpRouteFilter::RequestRedirect(redirect), rule("/away", vec![])),
        rule("/broken", vec![backend("absent", 1)]),
        rule("/half", vec![backend("back", 1), backend("absent", 1)]),
        HttpRouteRule { request_timeout: short, ..rule("/slow/request", vec![backend("back", 1)]) },
        HttpRouteRule { backend_request_timeout: short, ..rule("/slow/try", vec![backend("back", 1)]) },
        rule("/flaky/once", vec![backend("back", 1)]),
        HttpRouteRule { retry: retry(&[503]), ..rule("/flaky/again", vec![backend("back", 1)]) },
    ];
    route("shop", "everything", "shop", rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_shape_what_pods_send_to_a_service() {
    let Some(lab) = lab(shops().routed(vec![everything()]), |_| {}).await else { return };
    let front = lab.pod("front");
    let ask = async |path: &str, headers: &str| front.ask(SHOP, path, headers).await.unwrap();

    // What none of them matches.
    for path in ["/", "/splitter", "/x/split"] {
        assert_eq!(ask(path, "").await.status, 404, "{path}");
    }
    // All conditions of a match have to hold.
    assert_eq!(ask("/?animal=whale", "version: two\r\n").await.source(), "from 10.77.0.12");
    assert_eq!(ask("/?animal=whale", "").await.status, 404);
    assert_eq!(ask("/", "version: two\r\n").await.status, 404);

    // By weight, each to its backend in its own way: over mutual TLS, or in plaintext with the pod's own address.
    let mut to_back = 0;
    for _ in 0..200 {
        let answer = ask("/split/x", "").await;
        let (source, by) = (answer.source().to_owned(), answer.header("x-by").unwrap().to_owned());
        assert_eq!(source, if by == "back" { "from 10.77.0.21" } else { "from 10.77.0.11" });
        assert_eq!(answer.asked("x-to"), by);
        to_back += u32::from(by == "back");
    }
    assert!((120..=180).contains(&to_back), "{to_back} of 200 where 150 are meant");

    let answer = ask("/headers", "X-Set: old\r\nX-Add: first\r\nX-Remove: x\r\nX-Kept: yes\r\n").await;
    let seen = ["x-set", "x-add", "x-remove", "x-kept"].map(|name| answer.asked(name));
    assert_eq!(seen, ["new", "first,second", "", "yes"]);
    let answer = ask("/old/path", "").await;
    assert!(answer.body.contains("GET /new/path HTTP/1.1") && answer.asked("host") == "other.example");
    let answer = ask("/away", "").await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("http://example.org:8083/away")));

    // What leads nowhere.
    assert_eq!(ask("/broken", "").await.status, 500);
    // Its half each time, and nobody waits for what does not come: who asks has less patience than Envoy would have.
    let mut statuses = BTreeMap::new();
    for _ in 0..40 {
        *statuses.entry(ask("/half", "").await.status).or_insert(0) += 1;
    }
    assert!(statuses.len() == 2 && statuses[&200] > 5 && statuses[&500] > 5, "{statuses:?}");

    // Limits and retries are what the route says, and there are none where it says nothing.
    assert_eq!(ask("/slow/request", "").await.status, 504);
    assert_eq!(ask("/slow/try", "").await.status, 504);
    let statuses = [ask("/flaky/once", "").await.status, ask("/flaky/once", "").await.status];
    assert_eq!(statuses, [503, 200]);
    for _ in 0..3 {
        assert_eq!(ask("/flaky/again", "").await.status, 200);
    }

    // The other address; Services without routes; the pod itself.
    assert_eq!(front.ask("[fd88::30]:80", "/", "").await.unwrap().status, 404);
    assert_eq!(front.source("10.88.0.1:80").await, "from 10.77.0.21");
    assert_eq!(front.source("10.77.0.21:8080").await, "from 10.77.0.21");

    let callers = lab.callers("back", |callers| !callers.is_empty()).await;
    let expected = "spiffe://cluster.local/ns/shop/sa/front|8080|spiffe://cluster.local/ns/shop/sa/back";
    assert!(callers.iter().all(|caller| caller == expected), "{callers:?}");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// A rule for everything, that says in the answer whose it is.
fn signed(name: &str, path: &str) -> HttpRouteRule {
    let sign = HttpRouteFilter::ResponseHeaderModifier(changes(&[("X-Route", name)], &[], &[]));
    with(sign, rule(path, vec![backend("back", 1)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumers_route_is_for_its_own_namespace_and_instead_of_the_producers() {
    let mut cluster = shops();
    let cart = Arc::make_mut(cluster.mesh.nodes.get_mut("n1").unwrap()).members.get_mut("uid-cart").unwrap();
    cart.identity = spiffe_in("web", "cart");
    cart.pod.namespace = "web".to_owned();
    let consumers = |parent| route("web", &format!("of-{parent}"), parent, vec![signed("consumer", "/c")]);
    let other = route("other", "of-shop", "shop", vec![signed("other", "/")]);
    let producer = route("shop", "own", "shop", vec![signed("producer", "/")]);
    let routes = vec![producer, other, consumers("shop"), consumers("any"), consumers("web")];
    let Some(lab) = lab(cluster.routed(routes), |_| {}).await else { return };
    let (front, cart) = (lab.pod("front"), lab.pod("cart"));
    // The second and third have no producer's routes; the third's protocol is found out.
    for (address, elsewhere) in [(SHOP, Some("producer")), ("10.88.0.1:80", None), ("10.88.0.3:8000", None)] {
        for path in ["/c", "/"] {
            let answer = front.ask(address, path, "").await.unwrap();
            assert_eq!((answer.status, answer.header("x-route")), (200, elsewhere), "{address} {path}");
        }
        let answer = cart.ask(address, "/c", "").await.unwrap();
        assert_eq!((answer.status, answer.header("x-route")), (200, Some("consumer")), "{address}");
        assert_eq!(cart.ask(address, "/", "").await.unwrap().status, 404, "{address}");
    }
    // What it is not about: another Service, a pod, and what is no HTTP at a port that is not declared as such.
    assert_eq!(cart.source("10.88.0.21:80").await, "from 10.77.0.21");
    assert_eq!(cart.source("10.77.0.21:8080").await, "from 10.77.0.21");
    assert_eq!(cart.talk("10.88.0.4:8000").await.unwrap(), "hello 10.77.0.21 ping bye");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_passes_a_route_that_names_no_port() {
    let all = |parent| route("shop", parent, parent, vec![signed("all", "/")]);
    let cluster = shops().routed(vec![all("any"), all("odd")]);
    let Some(mut lab) = lab(cluster, |_| {}).await else { return };
    let front = lab.pod("front");
    assert_eq!(front.talk("10.88.0.4:8000").await.unwrap(), "hello 10.77.0.21 ping bye");
    let answer = front.ask("10.88.0.3:8000", "/", "").await.unwrap();
    assert_eq!((answer.status, answer.header("x-route")), (200, Some("all")));
    assert_eq!(answer.source(), "from 10.77.0.21");
    // It is HTTP once a route names it.
    let mut named = all("odd");
    named.parent_refs[0].port = Some(8000);
    lab.publish(shops().routed(vec![named]));
    until("HTTP only", async || lab.pod("front").talk("10.88.0.4:8000").await.is_err().then_some(())).await;
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_is_routed_by_service_and_method() {
    let call = |service: Option<&str>, method: Option<&str>| {
        let exact = |text: Option<&str>| text.map(|text| StringMatch::Exact(text.to_owned()));
        let path = PathMatch::Rpc { service: exact(service), method: exact(method) };
        vec![HttpRouteMatch { path, ..HttpRouteMatch::default() }]
    };
    let rule = |matches, backends| HttpRouteRule { matches, ..rule("/", backends) };
    let with_header = HttpRouteMatch { headers: vec![header("x-test", "out")], ..call(None, None).remove(0) };
    let rules = vec![
        rule(call(None, Some("Add")), vec![backend("cart", 1)]),
        rule(call(Some("shop.Cart"), None), vec![backend("back", 1)]),
        rule(call(Some("shop.Gone"), None), vec![backend("absent", 1)]),
        rule(vec![with_header], vec![backend("out", 1)]),
    ];
    // What Envoy would refuse, and with it the table of all nodes, if it were told.
    let odd = HttpRouteMatch { headers: vec![header("no token", "x")], ..call(None, None).remove(0) };
    let bad = rule([call(Some("shop.Cart/"), None), vec![odd]].concat(), vec![backend("out", 1)]);
    let rules = [rules, vec![bad]].concat();
    let grpc = HttpRoute { kind: RouteKind::Grpc, ..route("shop", "grpc", "shop", rules) };
    // It has the port, and an HTTPRoute has not.
    let http = route("shop", "http", "shop", vec![signed("http", "/")]);
    let Some(lab) = lab(shops().routed(vec![grpc, http]), |_| {}).await else { return };
    let front = lab.pod("front");
    let call = async |path: &str, headers: &[(&str, &str)]| {
        let (status, body) = front.call(SHOP, path, headers).await.unwrap();
        status.unwrap_or_else(|| body.lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(call("/shop.Cart/Add", &[]).await, "from 10.77.0.21", "the longer service wins");
    assert_eq!(call("/shop.Cart/Take", &[]).await, "from 10.77.0.21");
    assert_eq!(call("/shop.Other/Add", &[]).await, "from 10.77.0.12");
    assert_eq!(call("/shop.Other/Take", &[("x-test", "out")]).await, "from 10.77.0.11");
    assert_eq!(call("/shop.Other/Take", &[]).await, "12", "UNIMPLEMENTED");
    assert_eq!(call("/shop.Gone/Take", &[]).await, "14", "UNAVAILABLE");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_come_and_go_under_a_client() {
    let Some(mut lab) = lab(shops(), |_| {}).await else { return };
    // Without routes and endpoints that take mutual TLS it passes untouched, to nowhere.
    assert!(lab.pod("front").ask("10.88.0.3:8000", "/", "").await.unwrap().status == 200);
    let own = || vec![route("shop", "own", "shop", vec![signed("own", "/")])];
    let any = || vec![route("shop", "any", "any", vec![signed("any", "/")])];
    lab.publish(shops().routed([own(), any()].concat()));
    for (address, name) in [(SHOP, "own"), ("10.88.0.3:8000", "any")] {
        until(name, async || {
            let answer = lab.pod("front").ask(address, "/", "").await.ok()?;
            (answer.header("x-route") == Some(name)).then_some(())
        })
        .await;
    }
    lab.publish(shops().routed(own()));
    until("any is as it was", async || {
        let answer = lab.pod("front").ask("10.88.0.3:8000", "/", "").await.ok()?;
        (answer.status == 200 && answer.header("x-route").is_none()).then_some(())
    })
    .await;
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// Backends that only routes lead to come and go with them.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_routes_lead_elsewhere() {
    let to = |name| vec![route("shop", "own", "shop", vec![rule("/", vec![backend(name, 1)])])];
    let Some(mut lab) = lab(shops().routed(to("out")), |_| {}).await else { return };
    let mut failed = Vec::new();
    for turn in 0..60 {
        let name = if turn % 2 == 0 { "cart" } else { "out" };
        lab.publish(shops().routed(to(name)));
        for _ in 0..15 {
            match lab.pod("front").ask(SHOP, "/", "").await {
                Ok(answer) if answer.status == 200 => {}
                other => failed.push((turn, other.map(|answer| answer.status))),
            }
        }
    }
    assert!(failed.is_empty(), "{} of 900 failed: {failed:?}", failed.len());
}
