//! Streams through a gateway, on which something comes back every second: how long each of them lived, and whether it was cut before
//! it had to be.

mod carry;
mod pods;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Backend, DEADLINE, Env, eventually};
use pods::Pods;

/// A pod that is told to end lets its streams live for this long at least: its drain deadline is five minutes.
const DRAIN: Duration = Duration::from_secs(295);

/// How a stream is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    Grpc,
}

/// Why a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// We had enough.
    Ours,
    /// Somebody else ended it.
    Cut(String),
}

/// A stream that is over.
#[derive(Debug, Clone)]
pub struct Stream {
    pub kind: Kind,
    /// Uid of the gateway's pod that carried it.
    pub pod: String,
    /// Messages that came back.
    pub echoes: u64,
    pub end: End,
    pub ended: Instant,
    /// When its pod was told to end, if it was.
    pub told: Option<Instant>,
}

impl Stream {
    /// How long it lived after its pod was told to end.
    pub fn outlived(&self) -> Option<Duration> {
        self.told.map(|told| self.ended.saturating_duration_since(told))
    }

    /// Somebody cut it, and its pod was not told to end, or not for long enough.
    pub fn was_cut_early(&self) -> bool {
        matches!(self.end, End::Cut(_)) && self.outlived().is_none_or(|time| time < DRAIN)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, pod, echoes, end, .. } = self;
        write!(f, "{kind:?} through pod {pod}: {end:?} after {echoes} s, ")?;
        match self.outlived() {
            Some(time) => write!(f, "{:.1} s after its pod was told to end", time.as_secs_f64()),
            None => write!(f, "and its pod was not told to end"),
        }
    }
}

/// Open streams.
#[derive(Debug)]
pub struct Streams {
    gateway: SocketAddr,
    host: String,
    pods: Pods,
    enough: watch::Sender<bool>,
    /// With the pod that carries it.
    open: Vec<(String, JoinHandle<Stream>)>,
}

impl Streams {
    /// None yet, to the backend that must have been made ready for them.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn to(env: &Env, backend: &Backend) -> Result<Self> {
        let streams = Self {
            gateway: backend.address,
            host: backend.streams_host(),
            pods: Pods::watched(env, backend.namespace),
            enough: watch::Sender::new(false),
            open: Vec::new(),
        };
        eventually("a stream through the gateway", DEADLINE, || async {
            let (gateway, host) = (streams.gateway, streams.host.as_str());
            let both = async {
                carry::open(Kind::WebSocket, gateway, host).await?;
                carry::open(Kind::Grpc, gateway, host).await
            };
            both.await.map(drop).map_err(|e: anyhow::Error| format!("{e:#}"))
        })
        .await?;
        Ok(streams)
    }

    /// Opens so many of each kind, each on a connection of its own.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub async fn open(&mut self, each: usize) -> Result<()> {
        let kinds = [Kind::WebSocket, Kind::Grpc].into_iter().flat_map(|kind| vec![kind; each]);
        let (gateway, host, pods) = (self.gateway, self.host.as_str(), &self.pods);
        let opened = try_join_all(kinds.map(|kind| async move {
            let carried =
                carry::open(kind, gateway, host).await.with_context(|| format!("open a {kind:?}"))?;
            Ok::<_, anyhow::Error>((kind, pods.uid(carried.peer).await?, carried))
        }))
        .await?;
        for (kind, pod, carried) in opened {
            let (enough, pods, carrier) = (self.enough.subscribe(), self.pods.clone(), pod.clone());
            let stream = tokio::spawn(async move {
                let (end, echoes) = carried.until(enough).await;
                let ended = Instant::now();
                let told = pods.told(&pod);
                Stream { kind, pod, echoes, end, ended, told }
            });
            self.open.push((carrier, stream));
        }
        Ok(())
    }

    /// Waits until a pod that carries streams was told to end this long ago.
    ///
    /// # Errors
    /// When none was told in time.
    pub async fn told_for(&self, time: Duration) -> Result<()> {
        eventually("a pod with streams to be told to end", DEADLINE + time, || async {
            let first = self.open.iter().filter_map(|(pod, _)| self.pods.told(pod)).min();
            match first {
                Some(told) if told.elapsed() >= time => Ok(()),
                _ => Err(format!("told before {:?}", first.map(|told| told.elapsed()))),
            }
        })
        .await
    }

    /// Ends those that are left, and says how all of them were; the next ones may be opened.
    ///
    /// # Errors
    /// When a stream broke in a way that nobody thought of.
    pub async fn close(&mut self) -> Result<Vec<Stream>> {
        self.enough.send_replace(true);
        let mut streams = Vec::new();
        for (_, stream) in self.open.drain(..) {
            streams.push(stream.await.context("wait for a stream")?);
        }
        self.enough.send_replace(false);
        Ok(streams)
    }
}

/// An address, from the header that the backend answers with.
fn peer(header: Option<&[u8]>) -> Result<IpAddr> {
    let text =
        header.and_then(|bytes| std::str::from_utf8(bytes).ok()).context("an answer without a peer")?;
    text.parse().with_context(|| format!("{text:?} is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(end: End, told_before: Option<u64>) -> Stream {
        let told = Instant::now();
        let ended = told + Duration::from_secs(told_before.unwrap_or(0));
        let told = told_before.map(|_| told);
        Stream { kind: Kind::Grpc, pod: "p".into(), echoes: 7, end, ended, told }
    }

    #[test]
    fn a_stream_may_end_at_the_drain_deadline_or_when_we_end_it() {
        let cut = || End::Cut("reset".into());
        assert!(!stream(cut(), Some(295)).was_cut_early());
        assert!(stream(cut(), Some(294)).was_cut_early());
        assert!(stream(cut(), None).was_cut_early());
        assert!(!stream(End::Ours, None).was_cut_early());
        assert!(!stream(End::Ours, Some(1)).was_cut_early());
    }

    #[test]
    fn what_is_said_of_a_stream_is_why_and_when_it_ended() {
        let text = stream(End::Cut("reset".into()), Some(12)).to_string();
        assert_eq!(
            text,
            "Grpc through pod p: Cut(\"reset\") after 7 s, 12.0 s after its pod was told to end"
        );
    }
}
