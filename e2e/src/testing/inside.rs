//! What a process in another network does, a pod's or a node's: connections from there, and who answers on them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{Backend, Env, Installed, processes};

/// Longer than any way within the machine takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The network of a pod that runs.
#[derive(Debug, Clone)]
pub struct Inside {
    network: PathBuf,
}

/// A connection that is open, to one of Bookinfo's services.
#[derive(Debug)]
pub struct Open(TcpStream);

impl Inside {
    /// Finds it.
    ///
    /// # Errors
    /// When the pod does not run on this machine.
    pub async fn of(env: &Env, installed: &Installed) -> Result<Self> {
        let pods: Api<Pod> = Api::namespaced(env.client.clone(), &installed.namespace);
        let pod = pods.get(&installed.name).await.with_context(|| format!("read pod {}", installed.name))?;
        let process = *processes(&pod, None)?.first().context("a pod that runs")?;
        Ok(Self { network: format!("/proc/{}/ns/net", process.as_raw_pid()).into() })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody takes it.
    pub async fn open(&self, to: SocketAddr) -> Result<Open> {
        let stream = within(&self.network, move || connect(to)).await?;
        Ok(Open(stream.with_context(|| format!("connect to {to}"))?))
    }

    /// Opens so many connections, one after the other, and asks once on each; gives how many each pod answered, by its name, and under the
    /// empty name how many were closed instead.
    ///
    /// # Errors
    /// When something else became of one: when it was neither answered nor closed for five seconds, for one.
    pub async fn answers(&self, to: SocketAddr, count: usize) -> Result<BTreeMap<String, usize>> {
        let asked = within(&self.network, move || {
            let mut all = BTreeMap::new();
            for _ in 0..count {
                let who = match connect(to).and_then(|mut stream| who(&mut stream)) {
                    Err(error) if is_closed(&error) => String::new(),
                    other => other?,
                };
                *all.entry(who).or_default() += 1;
            }
            Ok::<_, Error>(all)
        });
        asked.await?.with_context(|| format!("connections to {to}"))
    }
}

impl Open {
    /// Asks on it who is at its other end.
    ///
    /// # Errors
    /// When it is not open any more.
    pub async fn who(&self) -> Result<String> {
        let mut stream = self.0.try_clone()?;
        tokio::task::spawn_blocking(move || who(&mut stream))
            .await?
            .context("ask on a connection that was open")
    }
}

/// Does something in another network, on a thread that stays there until it ends.
///
/// # Errors
/// When the network cannot be entered.
pub(super) async fn within<T: Send + 'static>(
    network: &Path,
    act: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let file = File::open(network).with_context(|| format!("open {}", network.display()))?;
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        // Who asked may have gone.
        let _ = send.send(moved.map(|()| act()));
    });
    receive.await.context("a thread in that network")?.with_context(|| format!("enter {}", network.display()))
}

/// With little patience.
pub(super) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn who(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(format!("GET {} HTTP/1.1\r\nhost: inside\r\n\r\n", Backend::PATH).as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&part[..length]);
        if let Some(name) = name_in(&answer)? {
            return Ok(name);
        }
    }
}

/// The pod that an answer names; none as long as it is not whole.
fn name_in(answer: &[u8]) -> std::io::Result<Option<String>> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(Error::new(ErrorKind::InvalidData, head.to_owned()));
    }
    let Ok(details) = serde_json::from_str::<Value>(body) else { return Ok(None) };
    Ok(details["podname"].as_str().map(str::to_owned))
}

fn is_closed(error: &Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_that_is_whole_names_its_pod() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"podname\":\"a\",\"year\":1873}";
        assert_eq!(name_in(whole).unwrap().as_deref(), Some("a"));
        for length in [0, 20, 40, whole.len() - 1] {
            assert_eq!(name_in(&whole[..length]).unwrap(), None);
        }
        assert!(name_in(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
    }

    #[test]
    fn who_is_closed_and_who_hears_nothing_are_told_apart() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let (taken, _) = listener.accept().unwrap();
        assert!(!is_closed(&who(&mut stream).unwrap_err()));
        drop((taken, listener));
        assert!(is_closed(&who(&mut stream).unwrap_err()));
        assert!(is_closed(&connect(to).unwrap_err()));
    }
}
