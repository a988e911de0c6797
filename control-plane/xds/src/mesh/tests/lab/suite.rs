//! What the mesh tests of the Gateway API's conformance suite (v1.7.0) ask for, with the names that they have there. The client is a pod
//! behind the Service itself, as it is there.

use meshwright_core::model::{
    HeaderModifier, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, PathMatch, PathModifier,
    RequestRedirect, RouteKind, StringMatch, UrlRewrite, ValueMatch,
};

use super::routed::{backend, route, with};
use super::*;

const V1: Option<&str> = Some("from 10.77.0.21");
const V2: Option<&str> = Some("from 10.77.0.12");

/// Services `echo-v1`, `echo-v2` and `echo`, which has both, with the suite's ports.
fn echoes() -> Cluster {
    let (v1, v2) = (("10.77.0.21", 8080), ("10.77.0.12", 8080));
    let services = [
        ("echo-v1", "10.88.1.1", vec![v1]),
        ("echo-v2", "10.88.1.2", vec![v2]),
        ("echo", "10.88.1.3", vec![v1, v2]),
    ];
    let ports = [
        (80, Protocol::Http),
        (8080, Protocol::Http),
        (443, Protocol::Tcp),
        (9090, Protocol::Tcp),
        (7070, Protocol::Http),
    ];
    let all = services.iter().flat_map(|service| ports.map(|port| (service, port)));
    all.fold(mesh(), |mesh, ((name, address, endpoints), (port, protocol))| {
        mesh.service(name, &[address], port, protocol, endpoints)
    })
}

fn path(prefix: &str) -> HttpRouteMatch {
    HttpRouteMatch { path: PathMatch::Prefix(prefix.to_owned()), ..HttpRouteMatch::default() }
}

fn value(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.to_owned(), value: StringMatch::Exact(value.to_owned()) }
}

fn header(name: &str, text: &str) -> HttpRouteMatch {
    HttpRouteMatch { headers: vec![value(name, text)], ..HttpRouteMatch::default() }
}

fn animal(name: &str, found: HttpRouteMatch) -> HttpRouteMatch {
    HttpRouteMatch { query_params: vec![value("animal", name)], ..found }
}

fn rule<const N: usize>(matches: [HttpRouteMatch; N], to: &str) -> HttpRouteRule {
    let backend_refs = if to.is_empty() { Vec::new() } else { vec![backend(to, 1)] };
    HttpRouteRule { matches: matches.to_vec(), backend_refs, ..HttpRouteRule::default() }
}

fn at(parent: &str, port: Option<u16>, rules: Vec<HttpRouteRule>) -> HttpRoute {
    let mut route = route("shop", &format!("{parent}-{port:?}"), parent, rules);
    route.parent_refs[0].port = port;
    route
}

fn modifier(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderModifier {
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    HeaderModifier { set: pairs(set), add: pairs(add), remove }
}

fn redirect(prefix: &str, redirect: RequestRedirect) -> HttpRouteRule {
    with(HttpRouteFilter::RequestRedirect(redirect), rule([path(prefix)], ""))
}

fn rewrite(prefix: &str, path: PathModifier) -> HttpRouteRule {
    let filter = HttpRouteFilter::UrlRewrite(UrlRewrite { path: Some(path), hostname: None });
    with(filter, rule([self::path(prefix)], "echo-v1"))
}

/// A request to a Service, and what is to come of it.
#[derive(Debug)]
struct Case<'a> {
    address: &'a str,
    path: &'a str,
    headers: &'a str,
    status: u16,
    from: Option<&'a str>,
    /// Headers of the request as the application gets it; an empty value is none.
    asked: &'a [(&'a str, &'a str)],
    /// Headers of the answer, None for one that must not be there.
    answered: &'a [(&'a str, Option<&'a str>)],
}

const ECHO: Case<'static> = Case {
    address: "10.88.1.3:80",
    path: "/",
    headers: "",
    status: 200,
    from: None,
    asked: &[],
    answered: &[],
};

impl Lab {
    /// With these routes each case comes true, sooner or later, as the suite has it.
    async fn suite(&mut self, name: &str, routes: Vec<HttpRoute>, cases: &[Case<'_>]) {
        self.publish(echoes().routed(routes));
        for case in cases {
            until(&format!("{name} {case:?}"), async || self.fits(case).await.then_some(())).await;
        }
    }

    async fn fits(&self, case: &Case<'_>) -> bool {
        let Ok(answer) = self.pod("back").ask(case.address, case.path, case.headers).await else {
            return false;
        };
        answer.status == case.status
            && case.from.is_none_or(|from| answer.source() == from)
            && case.asked.iter().all(|(name, value)| answer.asked(name) == *value)
            && case.answered.iter().all(|(name, value)| answer.header(name) == *value)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matching_splitting_and_ports() {
    let Some(mut lab) = lab(echoes(), |_| {}).await else { return };
    lab.suite("MeshBasic", vec![], &[Case { ..ECHO }]).await;

    let exact =
        |path: &str| HttpRouteMatch { path: PathMatch::Exact(path.to_owned()), ..HttpRouteMatch::default() };
    let rules = vec![rule([exact("/v1")], "echo-v1"), rule([exact("/v2")], "echo-v2")];
    let cases = [Case { path: "/v1", from: V1, ..ECHO }, Case { path: "/v2", from: V2, ..ECHO }];
    lab.suite("MeshTrafficSplit", vec![at("echo", None, rules)], &cases).await;

    let rules = vec![
        rule([path("/"), header("version", "one")], "echo-v1"),
        rule([path("/v2"), header("version", "two")], "echo-v2"),
    ];
    let [one, two] = ["Version: one\r\n", "Version: two\r\n"];
    let to_v1 = [("/", ""), ("/example", ""), ("/", one), ("/v2example", ""), ("/foo/v2/example", "")];
    let to_v2 = [("/v2", ""), ("/v2/example", ""), ("/v2/", ""), ("/", two)];
    let to = |from| move |(path, headers)| Case { path, headers, from, ..ECHO };
    let cases: Vec<_> = to_v1.map(to(V1)).into_iter().chain(to_v2.map(to(V2))).collect();
    lab.suite("MeshHTTPRouteMatching", vec![at("echo", Some(80), rules)], &cases).await;

    let any = HttpRouteMatch::default;
    let rules = vec![
        rule([animal("whale", any())], "echo-v1"),
        rule([animal("dolphin", any())], "echo-v2"),
        rule([animal("whale", path("/path1"))], "echo-v1"),
        rule([animal("whale", header("version", "one"))], "echo-v2"),
        rule(
            [animal("shark", path("/path3")), {
                let both = HttpRouteMatch { headers: vec![value("version", "three")], ..path("/path4") };
                animal("kraken", both)
            }],
            "echo-v1",
        ),
        rule([path("/path5")], "echo-v1"),
        rule([animal("hydra", any())], "echo-v2"),
    ];
    let none = |path| Case { path, status: 404, ..ECHO };
    let cases = [
        Case { path: "/?animal=whale", from: V1, ..ECHO },
        Case { path: "/?animal=dolphin", from: V2, ..ECHO },
        Case { path: "/?animal=whale&otherparam=irrelevant", from: V1, ..ECHO },
        Case { path: "/path1?animal=whale", from: V1, ..ECHO },
        Case { path: "/?animal=whale", headers: one, from: V2, ..ECHO },
        Case { path: "/path3?animal=shark", from: V1, ..ECHO },
        Case { path: "/path4?animal=kraken", headers: "Version: three\r\n", from: V1, ..ECHO },
        Case { path: "/path5?animal=hydra", from: V1, ..ECHO },
        none("/?color=blue"),
        none("/?animal=dog"),
        none("/?animal=whaledolphin"),
        none("/"),
        none("/?animal=shark"),
        none("/path4?animal=kraken"),
    ];
    lab.suite("MeshHTTPRouteQueryParamMatching", vec![at("echo", Some(80), rules)], &cases).await;

    let rules = vec![HttpRouteRule { matches: Vec::new(), ..rule([], "echo-v1") }];
    let cases = [Case { from: V1, ..ECHO }];
    lab.suite("MeshHTTPRouteSimpleSameNamespace", vec![at("echo", Some(80), rules)], &cases).await;

    let signed = |name: &str, to: &str| {
        let modifier = HttpRouteFilter::ResponseHeaderModifier(modifier(&[("X-Header-Set", name)], &[], &[]));
        vec![with(modifier, rule([], to))]
    };
    let [v1, v2] = ["10.88.1.1:80", "10.88.1.2:80"];
    let set = |value: &'static str| {
        if value.is_empty() { [("x-header-set", None)] } else { [("x-header-set", Some(value))] }
    };
    let (none, is_v1, is_v2, is_set) = (set(""), set("v1"), set("v2"), set("set"));
    let cases = [
        Case { address: v1, from: V1, answered: &is_v1, ..ECHO },
        Case { address: "10.88.1.1:8080", from: V1, answered: &none, ..ECHO },
        Case { address: v2, from: V2, answered: &is_v2, ..ECHO },
        Case { address: "10.88.1.2:8080", from: V2, answered: &is_v2, ..ECHO },
    ];
    let routes =
        vec![at("echo-v1", Some(80), signed("v1", "echo-v1")), at("echo-v2", None, signed("v2", "echo-v2"))];
    lab.suite("MeshPorts", routes, &cases).await;

    let cases = [
        Case { address: v2, from: V2, answered: &is_set, ..ECHO },
        Case { address: "10.77.0.12:8080", from: V2, answered: &none, ..ECHO },
        Case { address: v2, headers: "X-Host: echo-v1\r\n", from: V2, answered: &is_set, ..ECHO },
        Case { address: v1, headers: "X-Host: echo-v2\r\n", from: V1, answered: &none, ..ECHO },
    ];
    lab.suite("MeshFrontend", vec![at("echo-v2", None, signed("set", "echo-v2"))], &cases).await;

    let weighted = HttpRouteRule {
        backend_refs: vec![backend("echo-v1", 70), backend("echo-v2", 30)],
        ..HttpRouteRule::default()
    };
    let cases = [Case { from: V1, ..ECHO }, Case { from: V2, ..ECHO }];
    lab.suite("MeshHTTPRouteWeight", vec![at("echo", Some(80), vec![weighted])], &cases).await;
    let mut to_v1 = 0;
    for _ in 0..400 {
        let answer = lab.pod("back").ask(ECHO.address, "/", "").await.unwrap();
        to_v1 += u32::from(Some(answer.source()) == V1);
    }
    // The suite allows 5 percent of 500 and tries again; here are four standard deviations.
    assert!((243..=317).contains(&to_v1), "{to_v1} of 400 where 280 are meant");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_rewrites_and_headers() {
    let Some(mut lab) = lab(echoes(), |_| {}).await else { return };
    let (full, prefix) = (
        |path: &str| Some(PathModifier::ReplaceFullPath(path.to_owned())),
        |path: &str| Some(PathModifier::ReplacePrefixMatch(path.to_owned())),
    );
    let none = RequestRedirect::default;
    let elsewhere = || Some("example.org".to_owned());
    let rules = vec![
        redirect("/303", RequestRedirect { status_code: Some(303), ..none() }),
        redirect("/307", RequestRedirect { status_code: Some(307), ..none() }),
        redirect("/308", RequestRedirect { status_code: Some(308), ..none() }),
        redirect("/host", RequestRedirect { hostname: elsewhere(), status_code: Some(301), ..none() }),
        redirect("/original-prefix", RequestRedirect { path: prefix("/replacement"), ..none() }),
        redirect("/full", RequestRedirect { path: full("/full-path"), hostname: elsewhere(), ..none() }),
        redirect("/port", RequestRedirect { port: Some(8083), ..none() }),
        redirect("/scheme", RequestRedirect { scheme: Some("https".to_owned()), ..none() }),
    ];
    let expected = [
        ("/303", 303, "http://shop.example/303"),
        ("/307", 307, "http://shop.example/307"),
        ("/308", 308, "http://shop.example/308"),
        ("/host/x", 301, "http://example.org/host/x"),
        ("/original-prefix/lemon", 302, "http://shop.example/replacement/lemon"),
        ("/full/x", 302, "http://example.org/full-path"),
        ("/port", 302, "http://shop.example:8083/port"),
        ("/scheme", 302, "https://shop.example/scheme"),
    ];
    let locations = expected.map(|(_, _, location)| [("location", Some(location))]);
    let cases: Vec<_> = expected
        .iter()
        .zip(&locations)
        .map(|((path, status, _), answered)| Case { path, status: *status, answered, ..ECHO })
        .collect();
    lab.suite("MeshHTTPRouteRedirect...", vec![at("echo", Some(80), rules)], &cases).await;

    let change = modifier(
        &[("X-Header-Set", "set-overwrites-values")],
        &[("X-Header-Add", "header-val-1"), ("X-Header-Add-Append", "header-val-2")],
        &["X-Header-Remove"],
    );
    let change = || HttpRouteFilter::RequestHeaderModifier(change.clone());
    let to = |modifier: Option<PathModifier>| modifier.unwrap();
    let rules = vec![
        rewrite("/prefix/one", to(prefix("/one"))),
        rewrite("/strip-prefix", to(prefix("/"))),
        rewrite("/full/one", to(full("/one"))),
        with(change(), rewrite("/full/and-headers", to(full("/test")))),
        with(change(), rewrite("/prefix/and-headers", to(prefix("/prefix")))),
    ];
    let sent =
        "X-Header-Remove: remove-val\r\nX-Header-Add-Append: append-val-1\r\nX-Header-Set: set-val\r\n";
    let changed = [
        ("x-header-add", "header-val-1"),
        ("x-header-add-append", "append-val-1,header-val-2"),
        ("x-header-set", "set-overwrites-values"),
        ("x-header-remove", ""),
    ];
    let paths = [
        ("/prefix/one/two", "", "/one/two", &[][..]),
        ("/strip-prefix/three", "", "/three", &[]),
        ("/strip-prefix", "", "/", &[]),
        ("/full/one/two", "", "/one", &[]),
        ("/full/and-headers/test", sent, "/test", &changed),
        ("/prefix/and-headers/one", sent, "/prefix/one", &changed),
    ];
    let cases = paths.map(|(path, headers, _, asked)| Case { path, headers, from: V1, asked, ..ECHO });
    lab.suite("MeshHTTPRouteRewritePath", vec![at("echo", Some(80), rules)], &cases).await;
    for (path, _, expected, _) in paths {
        let answer = lab.pod("back").ask(ECHO.address, path, "").await.unwrap();
        assert!(answer.body.contains(&format!("GET {expected} HTTP/1.1\r\n")), "{path}: {}", answer.body);
    }

    let changes = [
        ("/set", modifier(&[("X-Header-Set", "set-overwrites-values")], &[], &[])),
        ("/add", modifier(&[], &[("X-Header-Add", "add-appends-values")], &[])),
        ("/remove", modifier(&[], &[], &["X-Header-Remove"])),
        (
            "/multiple",
            modifier(
                &[("X-Header-Set-1", "header-set-1"), ("X-Header-Set-2", "header-set-2")],
                &[("X-Header-Add-1", "header-add-1"), ("X-Header-Add-2", "header-add-2")],
                &["X-Header-Remove-1", "X-Header-Remove-2"],
            ),
        ),
        (
            "/case-insensitivity",
            modifier(
                &[("X-Header-Set", "header-set")],
                &[("X-Header-Add", "header-add")],
                &["X-Header-Remove"],
            ),
        ),
    ];
    let cases = [
        Case {
            path: "/set",
            headers: "Some-Other-Header: val\r\n",
            asked: &[("some-other-header", "val"), ("x-header-set", "set-overwrites-values")],
            ..ECHO
        },
        Case {
            path: "/set",
            headers: "X-Header-Set: other\r\n",
            asked: &[("x-header-set", "set-overwrites-values")],
            ..ECHO
        },
        Case { path: "/add", asked: &[("x-header-add", "add-appends-values")], ..ECHO },
        Case {
            path: "/add",
            headers: "X-Header-Add: other\r\n",
            asked: &[("x-header-add", "other,add-appends-values")],
            ..ECHO
        },
        Case {
            path: "/remove",
            headers: "X-Header-Remove: val\r\n",
            asked: &[("x-header-remove", "")],
            ..ECHO
        },
        Case {
            path: "/multiple",
            headers: "X-Header-Set-2: set-val-2\r\nX-Header-Add-2: add-val-2\r\nX-Header-Remove-2: x\r\nAnother: yes\r\n",
            asked: &[
                ("x-header-set-1", "header-set-1"),
                ("x-header-set-2", "header-set-2"),
                ("x-header-add-1", "header-add-1"),
                ("x-header-add-2", "add-val-2,header-add-2"),
                ("another", "yes"),
                ("x-header-remove-2", ""),
            ],
            ..ECHO
        },
        Case {
            path: "/case-insensitivity",
            headers: "x-header-set: a\r\nx-header-add: original\r\nx-header-remove: b\r\n",
            asked: &[
                ("x-header-set", "header-set"),
                ("x-header-add", "original,header-add"),
                ("x-header-remove", ""),
            ],
            ..ECHO
        },
    ];
    let of_rules = changes.clone().map(|(prefix, modifier)| {
        with(HttpRouteFilter::RequestHeaderModifier(modifier), rule([path(prefix)], "echo-v1"))
    });
    let routes = vec![at("echo", Some(80), of_rules.to_vec())];
    lab.suite("MeshHTTPRouteRequestHeaderModifier", routes, &cases).await;
    let of_backends = changes.map(|(prefix, modifier)| {
        let mut rule = rule([path(prefix)], "echo-v1");
        rule.backend_refs[0].filters = vec![HttpRouteFilter::RequestHeaderModifier(modifier)];
        rule
    });
    let routes = vec![at("echo", Some(80), of_backends.to_vec())];
    lab.suite("MeshHTTPRouteBackendRequestHeaderModifier", routes, &cases).await;
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_weights_and_headers() {
    let case = |name: &str, modifier: HeaderModifier, to: &str| {
        let rule = rule([header("x-test-case", name)], to);
        with(HttpRouteFilter::RequestHeaderModifier(modifier), rule)
    };
    let rules = vec![
        case("set", modifier(&[("x-header-set", "set-overwrites-values")], &[], &[]), "echo-v1"),
        case("add", modifier(&[], &[("x-header-add", "add-appends-values")], &[]), "echo-v1"),
        case("multi", modifier(&[("x-a", "1")], &[("x-b", "2")], &["x-c"]), "echo-v2"),
        HttpRouteRule {
            matches: Vec::new(),
            backend_refs: vec![backend("echo-v1", 70), backend("echo-v2", 30), backend("echo-v3", 0)],
            ..HttpRouteRule::default()
        },
    ];
    let route = HttpRoute { kind: RouteKind::Grpc, ..at("echo", Some(7070), rules) };
    let Some(lab) = lab(echoes().routed(vec![route]), |_| {}).await else { return };
    let back = lab.pod("back");
    let call = async |headers: &[(&str, &str)]| {
        let answer = back.call("10.88.1.3:7070", "/gateway_api_conformance.Echo/Echo", headers).await;
        answer.unwrap().1.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let seen = |lines: &[String], name: &str| {
        let values = lines.iter().filter_map(|line| line.strip_prefix(&format!("{name}: ")));
        values.collect::<Vec<_>>().join(",")
    };
    let lines = call(&[("x-test-case", "set"), ("x-header-set", "old"), ("x-kept", "yes")]).await;
    assert_eq!(
        (lines.first().map(String::as_str), seen(&lines, "x-header-set")),
        (V1, "set-overwrites-values".into())
    );
    assert_eq!(seen(&lines, "x-kept"), "yes");
    let lines = call(&[("x-test-case", "add"), ("x-header-add", "first")]).await;
    assert_eq!(seen(&lines, "x-header-add"), "first,add-appends-values");
    let lines = call(&[("x-test-case", "multi"), ("x-a", "0"), ("x-b", "0"), ("x-c", "0")]).await;
    assert_eq!(lines.first().map(String::as_str), V2);
    assert_eq!(["x-a", "x-b", "x-c"].map(|name| seen(&lines, name)), ["1", "0,2", ""]);
    let mut to_v1 = 0;
    for _ in 0..200 {
        to_v1 += u32::from(call(&[]).await.first().map(String::as_str) == V1);
    }
    assert!((114..=166).contains(&to_v1), "{to_v1} of 200 where 140 are meant");
}
