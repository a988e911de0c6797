//! Rules about requests: what is let in is what the application gets. Each case is written to the wire byte by byte by a client of the mesh.

use bytes::Bytes;
use meshwright_core::mesh::{Attributes, Authorization, Caller, Rule, RuleSet};
use meshwright_core::model::AuthorizedPath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|&text| text.to_owned()).collect()
}

fn http(account: Option<&str>, http: Attributes) -> Rule {
    let callers = account.map(|account| [Caller::Id(spiffe(account))].into());
    Rule { callers, ports: [8080].into(), http: vec![http] }
}

fn below(path: &str) -> Attributes {
    Attributes { paths: vec![AuthorizedPath::Prefix(path.to_owned())], ..Attributes::default() }
}

fn with(enforced: RuleSet, tried: Option<RuleSet>) -> Cluster {
    let authorization = Authorization { enforced, tried };
    let raw = mesh().service("raw", &["10.88.0.77"], 8080, Protocol::Tcp, &[("10.77.0.21", 8080)]);
    raw.policy("n2", "back", PodPolicy { authorization, ..PodPolicy::default() })
}

/// Directly to the pod, where the caller's own proxy takes it for HTTP too, and through a Service of which that proxy thinks it is TCP: then
/// what the caller writes arrives byte by byte.
const WAYS: [&str; 2] = ["10.77.0.21:8080", "10.88.0.77:8080"];

/// Status, and the first line of the request as the application got it; nothing where the connection just ends.
async fn ask(lab: &Lab, account: &str, request: &str) -> (u16, String) {
    ask_by(lab, account, WAYS[0], request).await
}

async fn ask_by(lab: &Lab, account: &str, way: &str, request: &str) -> (u16, String) {
    let mut stream = lab.pod(account).connect(way).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = request.to_ascii_lowercase().contains("connection: close");
    assert!(end, "the answer has no end otherwise");
    let _ =
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect(request);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let got = body.lines().nth(1).filter(|_| body.starts_with("from")).unwrap_or_default();
    (status, got.to_owned())
}

fn get(path: &str) -> String {
    plain("GET", path, "shop.example", "")
}

fn plain(method: &str, path: &str, host: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n")
}

/// What the application got, or the status of the refusal.
type Case = (String, Result<&'static str, u16>);

async fn try_all(lab: &Lab, what: &str, cases: Vec<Case>) -> usize {
    let (count, mut wrong) = (cases.len(), Vec::new());
    for ((request, expected), way) in cases.iter().flat_map(|case| WAYS.map(|way| (case, way))) {
        let (status, got) = ask_by(lab, "front", way, request).await;
        let found = if status == 200 { Ok(got) } else { Err(status) };
        if found.as_deref().map_err(|code| *code) != *expected {
            wrong.push(format!("{request:?} to {way} gave {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_cases_by_hand() {
    let deny = RuleSet { allow: None, deny: vec![http(None, below("/admin"))] };
    let Some(mut lab) = lab(with(deny, None), |_| {}).await else { return };
    until("denied", async || (ask(&lab, "front", &get("/admin")).await.0 == 403).then_some(())).await;
    let mut count = try_all(
        &lab,
        "DENY a path",
        vec![
            (get("/"), Ok("GET / HTTP/1.1")),
            (get("/admin"), Err(403)),
            (get("/admin/"), Err(403)),
            (get("/admin/x?y=1"), Err(403)),
            (get("/administrator"), Ok("GET /administrator HTTP/1.1")),
            (get("//admin"), Err(403)),
            (get("///admin//x"), Err(403)),
            (get("/./admin"), Err(403)),
            (get("/x/../admin"), Err(403)),
            (get("/x/%2e%2e/admin"), Err(403)),
            (get("/%61dmin"), Err(403)),
            (get("/%2561dmin"), Ok("GET /%2561dmin HTTP/1.1")),
            (get("/%252e%252e/admin"), Ok("GET /%252e%252e/admin HTTP/1.1")),
            (get("/%2561dmin/%252e%252e/x"), Ok("GET /%2561dmin/%252e%252e/x HTTP/1.1")),
            (get("/%2e/admin"), Err(403)),
            (get("/x/.%2E/admin"), Err(403)),
            (get("/admin%2f"), Err(400)),
            (get("/%2fadmin"), Err(400)),
            (get("/admin%00"), Err(400)),
            (get("/admin%20"), Ok("GET /admin%20 HTTP/1.1")),
            (get("/admin%3Ba=b"), Err(403)),
            (get("/%25%61dmin"), Ok("GET /%25admin HTTP/1.1")),
            (get("/a%2Fadmin"), Err(400)),
            (get("/x%5c..%5cadmin"), Err(400)),
            (get("/x\\..\\admin"), Err(403)),
            (get("/admin;a=b"), Err(403)),
            (get("/admin;a=b/x"), Err(403)),
            (get("/x/..;/admin"), Err(403)),
            (get("/;/admin"), Err(403)),
            (get("/public/..;/y"), Ok("GET /y HTTP/1.1")),
            (get("/admin?x"), Err(403)),
            (get("/x?y=/admin"), Ok("GET /x?y=/admin HTTP/1.1")),
            (get("/admin#x"), Err(400)),
            (get("/ADMIN"), Ok("GET /ADMIN HTTP/1.1")),
            (get("http://shop.example/admin"), Err(403)),
            (get("http://shop.example/x"), Ok("GET /x HTTP/1.1")),
            (get("/admin/../x"), Ok("GET /x HTTP/1.1")),
            (get("/x//y/./z"), Ok("GET /x/y/z HTTP/1.1")),
            (get("/x;a=b"), Ok("GET /x;a=b HTTP/1.1")),
            (get("/../../admin"), Err(403)),
            (get("/x\u{0}"), Err(400)),
            ("GET /admin HTTP/1.0\r\nConnection: close\r\n\r\n".to_owned(), Err(403)),
            ("GET /x HTTP/1.0\r\nConnection: close\r\n\r\n".to_owned(), Ok("GET /x HTTP/1.1")),
        ],
    )
    .await;

    // Applications decode what Envoy leaves as it is.
    let odd = "/u!$&'()*+,=:@-._~s";
    let long = format!("/{}", ":".repeat(255));
    let exact = |path: &str| Attributes {
        paths: vec![AuthorizedPath::Exact(path.to_owned())],
        ..Attributes::default()
    };
    let rules = [exact("/users:delete"), below(odd), exact(&long)].map(|one| http(None, one)).to_vec();
    lab.publish(with(RuleSet { allow: None, deny: rules }, None));
    until("encodings", async || (ask(&lab, "front", &get("/admin")).await.0 == 200).then_some(())).await;
    let mut cases = vec![
        (get("/users:delete"), Err(403)),
        (get("/users%3Adelete"), Err(403)),
        (get("/users%3adelete"), Err(403)),
        (get("/%75sers%3Adelete"), Err(403)),
        (get("/users%3Adelete;x"), Err(403)),
        (get("/users%253Adelete"), Ok("GET /users%253Adelete HTTP/1.1")),
        (get("/users%3Ddelete"), Ok("GET /users%3Ddelete HTTP/1.1")),
        (get(odd), Err(403)),
        (get(&format!("{odd}/x")), Err(403)),
        (get(&long), Err(403)),
        (get(&format!("/{}", "%3A".repeat(255))), Err(403)),
    ];
    for char in odd.chars().filter(|char| !char.is_ascii_alphanumeric() && *char != '/') {
        cases.push((get(&odd.replace(char, &format!("%{:02x}", u32::from(char)))), Err(403)));
        cases.push((get(&odd.replace(char, &format!("%{:02X}", u32::from(char)))), Err(403)));
    }
    count += try_all(&lab, "DENY in any encoding", cases).await;

    let methods = Attributes {
        methods: texts(&["DELETE"]),
        hosts: texts(&["a.example", "*.b.example"]),
        ..Attributes::default()
    };
    let secret =
        Attributes { headers: vec![("X-Role".to_owned(), Some("root".to_owned()))], ..Attributes::default() };
    let there = Attributes { headers: vec![("X-Debug".to_owned(), None)], ..Attributes::default() };
    let rules = [methods, secret, there].map(|one| http(None, one)).to_vec();
    lab.publish(with(RuleSet { allow: None, deny: rules }, None));
    until("other rules", async || (ask(&lab, "front", &get("/users:delete")).await.0 == 200).then_some(()))
        .await;
    let by_host = |host: &str| plain("DELETE", "/", host, "");
    let with_header = |header: &str| plain("GET", "/", "shop.example", &format!("{header}\r\n"));
    let fine = Ok("GET / HTTP/1.1");
    count += try_all(
        &lab,
        "DENY methods, hosts and headers",
        vec![
            (by_host("a.example"), Err(403)),
            (by_host("A.EXAMPLE"), Err(403)),
            (by_host("a.example:8080"), Err(403)),
            (by_host("a.example."), Err(403)),
            (by_host("a.example.:80"), Err(403)),
            (by_host("x.b.example"), Err(403)),
            (by_host("x.y.B.example:1"), Err(403)),
            (by_host("b.example"), Ok("DELETE / HTTP/1.1")),
            (by_host("xa.example"), Ok("DELETE / HTTP/1.1")),
            (by_host("user@a.example"), Err(403)),
            (plain("delete", "/", "a.example", ""), Err(400)),
            (plain("GET", "/", "a.example", ""), fine),
            (
                "DELETE http://a.example/ HTTP/1.1\r\nHost: c.example\r\nConnection: close\r\n\r\n"
                    .to_owned(),
                Err(403),
            ),
            (
                "DELETE http://c.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
                    .to_owned(),
                Ok("DELETE / HTTP/1.1"),
            ),
            (with_header("X-Role: root"), Err(403)),
            (with_header("x-role:root"), Err(403)),
            (with_header("x-ROLE:   root  "), Err(403)),
            (with_header("X-Role : root"), Err(400)),
            (with_header("X_Role: root"), Err(403)),
            (with_header("X_DEBUG: 1"), Err(403)),
            (with_header("X-Role: user\r\nX-Role: a,root,b"), Err(403)),
            (with_header("Host: a.example"), Err(403)),
            (
                "POST / HTTP/1.1\r\nHost: c.example\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nG"
                    .to_owned(),
                Err(400),
            ),
            (with_header("X-Role: user\r\nX-Role: root"), Err(403)),
            (with_header("X-Role: user, root"), Err(403)),
            (with_header("X-Role: roots"), fine),
            (with_header("X-Debug: 1"), Err(403)),
            (with_header("X-Debug:"), Err(403)),
        ],
    )
    .await;

    let read = Attributes {
        methods: texts(&["GET"]),
        paths: vec![
            AuthorizedPath::Exact("/read".to_owned()),
            AuthorizedPath::Exact("/read:all".to_owned()),
            AuthorizedPath::Prefix("/api/v1/".to_owned()),
        ],
        hosts: texts(&["a.example"]),
        headers: vec![("X-Role".to_owned(), Some("user".to_owned()))],
    };
    lab.publish(with(RuleSet { allow: Some(vec![http(Some("front"), read)]), deny: Vec::new() }, None));
    until("allowed", async || (ask(&lab, "front", &get("/")).await.0 == 403).then_some(())).await;
    let role = "X-Role: user\r\n";
    let call = |path: &str| plain("GET", path, "a.example", role);
    let good = Ok("GET /read HTTP/1.1");
    count += try_all(
        &lab,
        "ALLOW",
        vec![
            (call("/read"), good),
            (call("/read/"), Err(403)),
            (call("/read/x"), Err(403)),
            (call("/x/../read"), good),
            (call("/read;a"), Err(403)),
            (call("/api/v1"), Ok("GET /api/v1 HTTP/1.1")),
            (call("/api/v1/x"), Ok("GET /api/v1/x HTTP/1.1")),
            (call("/api/v1/../v2"), Err(403)),
            (call("/api/v1/..;/v2"), Err(403)),
            (plain("GET", "/read", "A.example:80", role), good),
            (plain("HEAD", "/read", "a.example", role), Err(403)),
            (plain("POST", "/read", "a.example", role), Err(403)),
            (plain("GET", "/read", "b.example", role), Err(403)),
            (plain("GET", "/read", "a.example", ""), Err(403)),
            (plain("GET", "/read", "a.example", "X-Role: user\r\nX-Role: root\r\n"), Err(403)),
            (plain("GET", "/read", "a.example", "X-Role: USER\r\n"), Err(403)),
            (plain("GET", "/read", "a.example", "X_Role: user\r\n"), Err(403)),
            (plain("GET", "/read", "a.example", "X-Role: user\r\nX_Role: root\r\n"), Err(403)),
            (plain("GET", "/read", "a.example.", role), good),
            (plain("GET", "/READ", "a.example", role), Err(403)),
            (plain("GET", "/%72ead", "a.example", role), good),
            (plain("GET", "/%2572ead", "a.example", role), Err(403)),
        ],
    )
    .await;
    assert_eq!(ask(&lab, "cart", &call("/read")).await.0, 403, "somebody else");
    assert!(lab.pod("front").talk("10.77.0.21:3306").await.is_err(), "what is not allowed on another port");
    assert!(count >= 60, "{count}");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_judged_by_what_the_application_gets() {
    let hosts = Attributes { hosts: texts(&["a.example"]), ..Attributes::default() };
    let deny = vec![http(None, below("/pkg.Service/Delete")), http(None, hosts)];
    let Some(lab) = lab(with(RuleSet { allow: None, deny }, None), |_| {}).await else { return };
    let stream = lab.pod("front").connect("10.77.0.21:8080").await.unwrap();
    // Directly to a pod there is no proxy that would take it for HTTP on the way.
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    for (uri, host, expected) in [
        ("http://b.example/pkg.Service/Get", None, 200),
        ("http://b.example/pkg.Service/Delete", None, 403),
        ("http://b.example/x/../pkg.Service/Delete", None, 403),
        ("http://a.example/x", None, 403),
        ("http://A.example:8080/x", None, 403),
        ("http://a.example/x", Some("b.example"), 403),
        ("http://b.example/x", Some("a.example"), 200),
    ] {
        let mut request = ::http::Request::post(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"x"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{uri} {host:?}");
        client = client.ready().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_no_more_let_in_than_who_does_not() {
    let deny = RuleSet { allow: None, deny: vec![http(None, below("/admin"))] };
    let Some(lab) = lab(with(deny, None), |_| {}).await else { return };
    // Longer than any wait for the first bytes; the last one writes letter by letter.
    let long = Duration::from_millis(700);
    let quick = Duration::from_millis(5);
    let request = "GET /admin HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    for (way, (parts, pause)) in WAYS.into_iter().flat_map(|way| [(way, (7, long)), (way, (1, quick))]) {
        let mut stream = lab.pod("front").connect(way).await.unwrap();
        let (head, rest) = request.split_at(14);
        for part in head.as_bytes().chunks(parts).chain([rest.as_bytes()]) {
            tokio::time::sleep(pause).await;
            stream.write_all(part).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{way}: {answer}");
    }
    // And what is no HTTP at all never reaches the application.
    let mut stream = lab.pod("front").connect("10.77.0.21:8080").await.unwrap();
    stream.write_all(b"\x16\x03\x01 something else\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("from"), "{answer:?}");
}

/// A connection that became something else, or pretends to, is no way around the rules.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_behind_an_upgrade() {
    let deny = RuleSet { allow: None, deny: vec![http(None, below("/admin"))] };
    let Some(lab) = lab(with(deny, None), |_| {}).await else { return };
    let hidden = "GET /admin HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    for (way, kind) in WAYS.into_iter().flat_map(|way| {
        ["tcp", "spdy/3.1", "h2c", "HTTP/2.0", "TLS/1.0", "connect-udp", "tcp, websocket"]
            .map(|kind| (way, kind))
    }) {
        let mut stream = lab.pod("front").connect(way).await.unwrap();
        let head = format!(
            "GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\n\r\n"
        );
        let _ = stream.write_all(format!("{head}{hidden}").as_bytes()).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(3), read).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            !answer.contains("HTTP/1.1 101") && !answer.contains("GET /admin"),
            "{kind} to {way}: {answer}"
        );
    }
    for request in [
        "CONNECT shop.example:80 HTTP/1.1\r\nHost: shop.example:80\r\n\r\n",
        "CONNECT /x HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    ] {
        let mut stream = lab.pod("front").connect(WAYS[1]).await.unwrap();
        let _ = stream.write_all(format!("{request}{hidden}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200") && !answer.contains("GET /admin"), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_would_be_refused_are_counted() {
    let tried = RuleSet { allow: None, deny: vec![http(None, below("/admin"))] };
    let Some(lab) = lab(with(RuleSet::default(), Some(tried)), |_| {}).await else { return };
    for (path, expected) in [("/admin", 200), ("/x", 200), ("/admin/y", 200)] {
        assert_eq!(ask(&lab, "front", &get(path)).await.0, expected, "{path}");
    }
    let counted = async || {
        let all = lab.nodes[1].1.ask("/stats/prometheus").await?;
        let found = |line: &&str| {
            line.contains("would_refuse") && line.contains("sa/front") && line.contains("sa/back")
        };
        let line = all.lines().find(found)?;
        line.ends_with(" 2").then_some(())
    };
    until("two were counted", counted).await;
}
