//! What runs in every pod: HTTP at 8080 that tells what it was asked and by whom, and a server at 3306 that speaks first.
//!
//! What was asked for at paths that begin with `/copied` is written down, whoever was asked. Paths that begin with `/slow` take longer than anybody waits; of those that begin with `/flaky` every other one fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::network::Namespace;

const LONG: Duration = Duration::from_secs(60);
static FLAKY: AtomicU32 = AtomicU32::new(0);
/// Heads of requests, after the caller's address.
pub static COPIED: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub fn start(pod: &Namespace) {
    let (http, greeter) = (pod.listen(8080), pod.listen(3306));
    tokio::spawn(async move {
        while let Ok((stream, peer)) = http.accept().await {
            let peer = peer.ip().to_canonical().to_string();
            tokio::spawn(async move { serve(stream, &peer).await });
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, peer)) = greeter.accept().await {
            let peer = peer.ip().to_canonical().to_string();
            tokio::spawn(async move { greet(stream, &peer).await });
        }
    });
}

/// Greets, says everything back, and has the last word after its client has closed its half.
async fn greet(mut stream: TcpStream, peer: &str) -> std::io::Result<()> {
    stream.write_all(format!("hello {peer}\n").as_bytes()).await?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
    stream.write_all(b"bye\n").await
}

async fn serve(stream: TcpStream, peer: &str) -> Option<()> {
    let mut start = [0; 3];
    while stream.peek(&mut start).await.ok()? < start.len() {}
    if &start == b"PRI" { http2(stream, peer).await } else { http1(stream, peer).await }
}

/// The answer's body is the caller's address and the head of its request.
async fn http1(mut stream: TcpStream, peer: &str) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        let lower = head.to_ascii_lowercase();
        let kinds = ["websocket", "spdy/3.1", "tcp"];
        if let Some(kind) = kinds.into_iter().find(|kind| lower.contains(&format!("\nupgrade: {kind}\r"))) {
            let answer =
                format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: {kind}\r\nconnection: upgrade\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.ok()?;
            return Some(());
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path.starts_with("/slow") {
            tokio::time::sleep(LONG).await;
        }
        if path.starts_with("/copied") {
            COPIED.lock().unwrap().push(format!("from {peer}\n{head}"));
        }
        let fails = path.starts_with("/flaky") && FLAKY.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        let status = if fails { "503 Service Unavailable" } else { "200 OK" };
        let body = format!("from {peer}\n{head}");
        let answer =
            format!("HTTP/1.1 {status}\r\nX-Served-By: app\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
        if lower.contains("connection: close") {
            return Some(());
        }
    }
}

pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn http2(stream: TcpStream, peer: &str) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if let Some(status) = request.headers().get("x-wanted-status") {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).ok()?;
            let mut send = respond.send_response(head, false).ok()?;
            let trailers =
                http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), status.clone())]);
            send.send_trailers(trailers).ok()?;
            continue;
        }
        let headers = request.headers().iter();
        let headers =
            headers.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or_default()));
        // Of gRPC's calls.
        let headers = if request.method() == "POST" { headers.collect() } else { String::new() };
        let body = format!("from {peer}\n{:?} {}\n{headers}", request.version(), request.uri().path());
        let mut send = respond.send_response(http::Response::new(()), false).ok()?;
        send.send_data(Bytes::from(body), true).ok()?;
    }
    Some(())
}
