//! Answers the network plugin. Who asks waits on the socket until its pod is captured, or may start without.

use std::{os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;
use meshwright_cni::{Answer, Request};
use meshwright_runtime::CancellationToken;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::node::store;

/// A request is a few hundred bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// Somebody asks, and is answered at any time later. If it never is, the plugin decides by what was stored.
#[derive(Debug)]
pub struct Question {
    /// Which pod.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// Opens the socket at a path where another agent's may be: whoever asks from now on asks us, and whoever asked before is answered there.
///
/// # Errors
/// When the directory cannot be used.
pub fn open(path: &Path) -> anyhow::Result<UnixListener> {
    let what = || format!("open {}", path.display());
    let new = path.with_extension(format!("{}.new", std::process::id()));
    store::remove(&new).with_context(what)?;
    let listener = UnixListener::bind(&new).with_context(what)?;
    // Plugins run as root; nobody else is to have pods' namespaces entered.
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
    std::fs::rename(&new, path).with_context(what)?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (questions, stop) = (questions.clone(), stop.clone());
                tokio::spawn(stop.run_until_cancelled_owned(async move {
                    if let Err(e) = answer(stream, &questions).await {
                        tracing::warn!(error = %format!("{e:#}"), "answer the network plugin");
                    }
                }));
            }
            Err(e) => {
                tracing::warn!(error = %e, "accept the network plugin");
                // Out of file descriptors, most likely: that passes.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, questions: &mpsc::Sender<Question>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(MAX_REQUEST).read_line(&mut line).await.context("read")?;
    let request = serde_json::from_str(&line).context("understand")?;
    let (reply, answer) = oneshot::channel();
    questions.send(Question { request, reply }).await.context("nobody is there to answer")?;
    // Nobody answers any more when another agent has taken over.
    let Ok(answer) = answer.await else { return Ok(()) };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await.context("write")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meshwright_cni::{Reply, ask};

    use super::*;

    async fn asked(socket: &Path, name: &str) -> Reply {
        let (socket, name) = (socket.to_owned(), name.to_owned());
        let request = Request {
            namespace: "shop".into(),
            name,
            uid: "u".into(),
            netns: "/n".into(),
            addresses: vec![],
        };
        tokio::task::spawn_blocking(move || ask(&socket, &request, Duration::from_secs(10))).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_takes_the_socket_over_answers_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cni.sock");
        let stop = CancellationToken::new();
        for round in ["first", "second"] {
            let (sender, mut questions) = mpsc::channel::<Question>(8);
            tokio::spawn(serve(open(&socket).unwrap(), sender, stop.clone()));
            tokio::spawn(async move {
                while let Some(Question { request, reply }) = questions.recv().await {
                    match request.name.as_str() {
                        "nobody" => drop(reply),
                        name => _ = reply.send(Answer::Refused { why: format!("{round} {name}") }),
                    }
                }
            });
            let expected = Reply::Answer(Answer::Refused { why: format!("{round} cart") });
            assert_eq!(asked(&socket, "cart").await, expected);
            assert!(matches!(asked(&socket, "nobody").await, Reply::Nobody(_)));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        stop.cancel();
    }
}
