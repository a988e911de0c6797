//! What clients and backends see: Envoy runs with translated resources between a plain TCP client and a
//! backend that repeats what it was sent. Runs where `ENVOY_BIN` names an Envoy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::validate::bootstrap;
use super::*;

/// Ends Envoy with the test.
pub(super) struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A backend that answers 200 with the head of the request as body.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let head = read_until(&mut stream, "\r\n\r\n");
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nserver: echo\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{head}",
                    head.len()
                );
            });
        }
    });
    port
}

pub(super) fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        text.extend_from_slice(&buffer[..read]);
        if read == 0 || text.ends_with(end.as_bytes()) {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends a request and returns the response. Reads by length: Envoy takes its time with closing.
fn get(port: u16, host: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut response = Vec::new();
    let mut byte = [0];
    while !response.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        response.push(byte[0]);
    }
    let head = String::from_utf8(response).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn rewrite(to: PathModifier) -> CompiledRule {
    let rewrite = UrlRewrite { hostname: Some("backend.example".to_owned()), path: Some(to) };
    let backends = vec![backend(Some("cart"), 1)];
    CompiledRule {
        action: RuleAction::Forward(Forward { backends, rewrite: Some(rewrite) }),
        ..CompiledRule::default()
    }
}

fn redirect(scheme: Option<&str>, hostname: Option<&str>, path: Option<PathModifier>) -> CompiledRule {
    let to = RequestRedirect {
        scheme: scheme.map(str::to_owned),
        hostname: hostname.map(str::to_owned),
        path,
        ..RequestRedirect::default()
    };
    CompiledRule { action: RuleAction::Redirect(to), ..CompiledRule::default() }
}

fn rules() -> Vec<RouteEntry> {
    let replace = |to: &str| PathModifier::ReplacePrefixMatch(to.to_owned());
    let full = |to: &str| PathModifier::ReplaceFullPath(to.to_owned());
    let modifier = HeaderModifier {
        set: vec![("x-set".to_owned(), "50%".to_owned())],
        add: vec![("x-add".to_owned(), "added".to_owned())],
        remove: vec!["x-remove".to_owned()],
    };
    let modified = CompiledRule { request_headers: modifier, ..forward(vec![backend(Some("cart"), 1)]) };
    vec![
        entry("/headers", modified),
        entry("/unresolved", forward(vec![backend(None, 1)])),
        entry("/strip.me", rewrite(replace("/"))),
        entry("/prefix", rewrite(replace("/other/"))),
        entry("/full", rewrite(full(r"/a\1b"))),
        entry("/to-host", redirect(None, Some("example.org"), None)),
        entry("/to-https", redirect(Some("https"), Some("example.org"), None)),
        entry("/to-prefix", redirect(None, None, Some(replace("/new")))),
        entry("/to-root", redirect(None, None, Some(replace("/")))),
        entry("/to-full", redirect(None, None, Some(full("/whole")))),
        entry("/invalid", CompiledRule::default()),
        entry("/", rewrite(replace("/root"))),
    ]
}

/// Starts Envoy with one plain port; None without a binary.
fn start() -> Option<(Envoy, u16, tempfile::TempDir)> {
    let hosts = vec![("*.example.com", rules()), ("narrow.example.com", vec![])];
    launch(hosts, echo(), Options::default())
}

/// Starts Envoy with one plain port that has these hosts; None without a binary.
pub(super) fn launch(
    hosts: Vec<(&str, Vec<RouteEntry>)>,
    backend: u16,
    options: Options,
) -> Option<(Envoy, u16, tempfile::TempDir)> {
    let binary = std::env::var_os("ENVOY_BIN")?;
    let number = free_port();
    let config = GatewayConfig {
        gateway: ObjectKey::new("infra", "gw"),
        ports: vec![port(number, PortProtocol::Http, vec![listener("http", "*.example.com", &[], hosts)])],
    };
    let here = Endpoint {
        address: "127.0.0.1".to_owned(),
        port: backend,
        health: EndpointHealth::Ready,
        node: None,
    };
    let mut endpoints = |_: &ClusterRef| Endpoints { zones: [(String::new(), vec![here.clone()])].into() };
    let options = Options { bind_address: "127.0.0.1".to_owned(), ..options };
    let translation = translated_with(&config, &options, &mut endpoints, &mut |_| None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap(&translation).encode_to_vec()).unwrap();
    let mut command = Command::new(binary);
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]).arg(&file);
    let envoy = Envoy(command.stdout(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", number)).is_err() {
        assert!(Instant::now() < deadline, "Envoy does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some((envoy, number, directory))
}

#[test]
fn clients_and_backends_see_what_the_api_says() {
    let Some((_envoy, port, _directory)) = start() else {
        eprintln!("ENVOY_BIN is not set: Envoy is not asked");
        return;
    };
    let host = "a.example.com";
    let line = |path: &str| {
        let response = get(port, host, path, "");
        let body = response.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        body.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(line("/strip.me"), "GET / HTTP/1.1");
    assert_eq!(line("/strip.me/"), "GET / HTTP/1.1");
    assert_eq!(line("/strip.me/x/y?q=1"), "GET /x/y?q=1 HTTP/1.1");
    assert_eq!(line("/strip.metoo"), "GET /root/strip.metoo HTTP/1.1");
    assert_eq!(line("/prefix"), "GET /other HTTP/1.1");
    assert_eq!(line("/prefix/x"), "GET /other/x HTTP/1.1");
    assert_eq!(line("/full/x?q=1"), r"GET /a\1b?q=1 HTTP/1.1");
    assert_eq!(line("/x//y/../z"), "GET /root/x//z HTTP/1.1");

    let escaped = get(port, host, "/full%2Fx", "");
    assert!(escaped.starts_with("HTTP/1.1 307") && escaped.contains("/full/x"), "{escaped}");

    let status =
        |host: &str, path: &str| get(port, host, path, "").lines().next().unwrap_or_default().to_owned();
    assert_eq!(status(host, "/invalid"), "HTTP/1.1 500 Internal Server Error");
    assert_eq!(status(host, "/unresolved"), "HTTP/1.1 500 Internal Server Error");
    assert_eq!(status("narrow.example.com", "/"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("example.com", "/"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("a.example.com:1234", "/"), "HTTP/1.1 200 OK");

    let location = |path: &str| {
        let response = get(port, host, path, "");
        let found = response.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_default();
        found.replace(&port.to_string(), "PORT")
    };
    assert_eq!(location("/to-host/x"), "http://example.org:PORT/to-host/x");
    assert_eq!(location("/to-https"), "https://example.org/to-https");
    assert_eq!(location("/to-prefix/x"), "http://a.example.com:PORT/new/x");
    assert_eq!(location("/to-root/x"), "http://a.example.com:PORT/x");
    assert_eq!(location("/to-root"), "http://a.example.com:PORT/");
    assert_eq!(location("/to-full/x"), "http://a.example.com:PORT/whole");

    let response = get(
        port,
        host,
        "/headers",
        "x-set: old\r\nX-Add: own\r\nx-remove: 1\r\nx-envoy-upstream-rq-timeout-ms: 1\r\nx-request-id: mine\r\nx-under_score: 1\r\n",
    );
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    for wanted in [
        "x-set: 50%\r\n",
        "x-add: own\r\n",
        "x-add: added\r\n",
        "x-request-id: mine\r\n",
        "x-under_score: 1\r\n",
    ] {
        assert!(body.contains(wanted), "{wanted:?} is not in {body}");
    }
    assert!(!body.contains("x-remove") && !body.contains("x-envoy-upstream"), "{body}");
    assert!(head.contains("server: echo") && !head.contains("x-envoy"), "{head}");
}
