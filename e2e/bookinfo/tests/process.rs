//! The binary itself: it starts, answers, and outlives SIGTERM for long enough.

#![allow(clippy::unwrap_used, reason = "the helpers belong to the tests, which clippy does not see")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a service on a free port and reads from its log which one that is.
fn start(arguments: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bookinfo"))
        .args(arguments)
        .args(["--listen", "127.0.0.1:0", "--pod-name", "pod-1"])
        .env("RUST_LOG", "info")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Handed back, because a closed pipe would break the child's next log line.
    let mut log = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    (child, log, address)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn after_sigterm_it_serves_ten_seconds_and_ends_well() {
    let (mut child, _log, address) = start(&["reviews", "--version", "v1"]);
    assert!(get(&address, "/reviews/0").contains("\"podname\":\"pod-1\""));

    // Before the signal: sending it takes a process, and on a busy machine that is a noticeable time.
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    while asked.elapsed() < Duration::from_secs(9) {
        assert!(get(&address, "/health").starts_with("HTTP/1.1 200"));
        std::thread::sleep(Duration::from_millis(250));
    }
    assert!(child.wait().unwrap().success());
    assert!(asked.elapsed() >= Duration::from_secs(10));
}

#[test]
fn a_service_that_does_not_exist_is_refused() {
    let status =
        Command::new(env!("CARGO_BIN_EXE_bookinfo")).arg("payments").stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
