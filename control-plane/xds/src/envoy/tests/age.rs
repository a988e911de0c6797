//! What becomes of connections that are old: asked to end, never cut. Runs where `ENVOY_BIN` names an Envoy.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use envoy_types::pb::envoy::config::listener::v3::filter;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

use super::serve::{launch, read_until};
use super::*;

/// How long the streams of this test live: well past a connection's age and the drain after it.
const STREAM: Duration = Duration::from_secs(9);

/// A backend that talks on after an upgrade, takes its time for `/slow`, and answers everything else at once.
fn backend_of_streams() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let head = read_until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
    if head.contains("upgrade: websocket") {
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        );
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|read| read > 0) && stream.write_all(&byte).is_ok() {}
    } else if head.contains("/slow") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\na");
        std::thread::sleep(STREAM);
        let _ = stream.write_all(b"b");
    } else {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends a request and reads the head of its response.
fn ask(stream: &mut TcpStream, headers: &str) -> String {
    write!(stream, "GET /quick HTTP/1.1\r\nhost: a.example.com\r\n{headers}\r\n").unwrap();
    read_until(stream, "\r\n\r\n").to_ascii_lowercase()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// Opens stream 1 with a request for `/slow`.
fn open_http2(port: u16) -> TcpStream {
    let mut stream = connect(port);
    // `GET` and `http` by their numbers in HPACK's table, path and authority as they are.
    let mut head = vec![0x82, 0x86, 0x04, 5];
    head.extend_from_slice(b"/slow");
    head.extend_from_slice(&[0x01, 13]);
    head.extend_from_slice(b"a.example.com");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).unwrap();
    stream
}

/// Reads to the end of stream 1: its body, and the last stream that each GOAWAY names.
fn finish_http2(mut stream: TcpStream) -> (Vec<u8>, Vec<u32>) {
    let (mut body, mut farewells) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        match head[3] {
            GOAWAY => farewells.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            DATA => body.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
            return (body, farewells);
        }
    }
}

#[test]
fn old_connections_are_asked_to_end_and_their_streams_are_not_cut() {
    let options = Options { max_connection_duration: Duration::from_secs(1), ..Options::default() };
    let hosts = vec![("*.example.com", vec![entry("/", forward(vec![backend(Some("cart"), 1)]))])];
    let Some((_envoy, port, _directory)) = launch(hosts, backend_of_streams(), options) else {
        eprintln!("ENVOY_BIN is not set: Envoy is not asked");
        return;
    };
    let http2 = open_http2(port);
    let (mut plain, mut socket) = (connect(port), connect(port));
    let young = ask(&mut plain, "");
    assert!(young.starts_with("http/1.1 200") && !young.contains("connection: close"), "{young}");
    let upgraded = ask(&mut socket, "connection: Upgrade\r\nupgrade: websocket\r\n");
    assert!(upgraded.starts_with("http/1.1 101"), "{upgraded}");

    let begun = Instant::now();
    let (body, farewells) = finish_http2(http2);
    assert!(begun.elapsed() > Duration::from_secs(7), "the stream outlived the drain");
    assert_eq!(body, b"ab");
    assert_eq!(farewells, [i32::MAX as u32, 1], "first no more streams are wanted, then there are none");

    socket.write_all(b"x").unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x", "a WebSocket goes on");

    let old = ask(&mut plain, "");
    assert!(old.starts_with("http/1.1 200") && old.contains("connection: close"), "{old}");
    assert_eq!(plain.read(&mut byte).unwrap(), 0);
}

#[test]
fn connections_have_an_age_on_every_chain() {
    let listeners = vec![listener("one", "*", &["a"], vec![]), listener("two", "b.example", &["a"], vec![])];
    let translation = translated(vec![
        port(80, PortProtocol::Http, vec![listener("http", "*", &[], vec![])]),
        port(443, PortProtocol::Https, listeners),
    ]);
    let mut chains = 0;
    for name in ["infra/gw/80", "infra/gw/443"] {
        let proto: Listener = decode(&translation, TypeUrl::Listener, name);
        for chain in proto.filter_chains {
            let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else {
                panic!("no config")
            };
            let manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
            let common = manager.common_http_protocol_options.unwrap();
            assert_eq!(common.max_connection_duration.unwrap().seconds, 60);
            assert!(manager.http1_safe_max_connection_duration);
            chains += 1;
        }
    }
    assert_eq!(chains, 3);
}
