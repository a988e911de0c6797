//! Asks the node's agent.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::{Answer, Request};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An agent answered.
    Answer(Answer),
    /// One is there, and said nothing in time.
    Silence,
    /// None is there, or it went away; why.
    Nobody(String),
}

/// Asks, and waits until the agent has decided, at most for this long.
pub fn ask(socket: &Path, request: &Request, patience: Duration) -> Reply {
    match exchange(socket, request, patience) {
        Ok(answer) => Reply::Answer(answer),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Reply::Silence,
        Err(e) => Reply::Nobody(e.to_string()),
    }
}

fn exchange(socket: &Path, request: &Request, patience: Duration) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "it went away without an answer"));
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn request() -> Request {
        let text = |text: &str| text.to_owned();
        Request {
            namespace: text("shop"),
            name: text("cart"),
            uid: text("u"),
            netns: text("/n"),
            addresses: vec![],
        }
    }

    /// Asks an agent that does this with the line it reads.
    fn reply_of(agent: fn(&str, &mut UnixStream)) -> Reply {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            agent(&line, &mut stream);
            stream
        });
        let reply = ask(&socket, &request(), Duration::from_millis(200));
        served.join().unwrap();
        reply
    }

    #[test]
    fn an_answer_is_one_line() {
        let reply = reply_of(|line, stream| {
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request());
            stream.write_all(b"{\"outcome\":\"captured\"}\n").unwrap();
        });
        assert_eq!(reply, Reply::Answer(Answer::Captured));
    }

    #[test]
    fn silence_is_not_absence() {
        assert_eq!(reply_of(|_, _| {}), Reply::Silence);
        let gone = reply_of(|_, stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
        assert!(matches!(gone, Reply::Nobody(_)), "{gone:?}");
        let garbage = reply_of(|_, stream| stream.write_all(b"hello\n").unwrap());
        assert!(matches!(garbage, Reply::Nobody(_)), "{garbage:?}");
        let absent = ask(Path::new("/nonexistent/socket"), &request(), Duration::from_millis(200));
        assert!(matches!(absent, Reply::Nobody(_)), "{absent:?}");
    }
}
