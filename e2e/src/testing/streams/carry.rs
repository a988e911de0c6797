//! One stream: a message out every second, and each of them back.

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::channel::mpsc;
use futures::{Sink, SinkExt, Stream, StreamExt, future};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::{End, Kind, peer};

const SECOND: Duration = Duration::from_secs(1);
/// A stream on which nothing comes back for this long is as good as cut.
const SILENCE: Duration = Duration::from_secs(10);
/// For one to open.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the backend names the pod that it was asked by.
const PEER: &str = "x-bookinfo-peer";
/// As `crate::testing::Backend` routes it.
const GRPC: &str = "/bookinfo.Streams/Echo";

/// Both directions of an open stream.
pub struct Carried {
    /// Address of the pod that it goes through.
    pub peer: IpAddr,
    out: Pin<Box<dyn Sink<String, Error = String> + Send>>,
    /// `Err` is how it ended.
    back: Pin<Box<dyn Stream<Item = Result<(), String>> + Send>>,
}

/// Opens one, with this host, through the gateway at this address.
pub async fn open(kind: Kind, gateway: SocketAddr, host: &str) -> Result<Carried> {
    let opening = async {
        match kind {
            Kind::WebSocket => websocket(gateway, host).await,
            Kind::Grpc => grpc(gateway, host).await,
        }
    };
    tokio::time::timeout(PATIENCE, opening).await.context("it does not open")?
}

async fn websocket(gateway: SocketAddr, host: &str) -> Result<Carried> {
    let connection = TcpStream::connect(gateway).await?;
    let (socket, answer) = client_async(format!("ws://{host}/streams/websocket"), connection).await?;
    let peer = peer(answer.headers().get(PEER).map(|value| value.as_bytes()))?;
    let (out, back) = socket.split();
    let out =
        out.with(|text: String| future::ok::<_, tokio_tungstenite::tungstenite::Error>(Message::text(text)));
    let back = back.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Text(_)) => Some(Ok(())),
            Ok(Message::Close(why)) => Some(Err(format!("closed: {why:?}"))),
            Ok(_) => None,
            Err(error) => Some(Err(error.to_string())),
        })
    });
    Ok(Carried { peer, out: Box::pin(out.sink_map_err(|e| e.to_string())), back: Box::pin(back) })
}

async fn grpc(gateway: SocketAddr, host: &str) -> Result<Carried> {
    let connect = move |_| async move { TcpStream::connect(gateway).await.map(TokioIo::new) };
    let endpoint = Endpoint::from_shared(format!("http://{host}"))?;
    let channel = endpoint.connect_with_connector(service_fn(connect)).await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let (out, messages) = mpsc::channel::<String>(1);
    let codec = ProstCodec::<String, String>::default();
    let answer =
        client.streaming(tonic::Request::new(messages), PathAndQuery::from_static(GRPC), codec).await?;
    let peer = peer(answer.metadata().get(PEER).map(|value| value.as_bytes()))?;
    let back = answer.into_inner().map(move |message| {
        // Without its handle the connection might end as soon as nothing new can be asked on it.
        let _ = &client;
        message.map(drop).map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    });
    Ok(Carried { peer, out: Box::pin(out.sink_map_err(|e| e.to_string())), back: Box::pin(back) })
}

impl Carried {
    /// Until it is cut or there was enough of it; gives the number of messages that came back too.
    pub async fn until(mut self, mut enough: watch::Receiver<bool>) -> (End, u64) {
        let mut enough = pin!(async move { drop(enough.wait_for(|enough| *enough).await) });
        let (mut echoes, mut heard) = (0, Instant::now());
        let mut second = interval(SECOND);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut enough => return (End::Ours, echoes),
                echo = self.back.next() => match echo {
                    Some(Ok(())) => (echoes, heard) = (echoes + 1, Instant::now()),
                    Some(Err(why)) => return (End::Cut(why), echoes),
                    None => return (End::Cut("it ended without a word".to_owned()), echoes),
                },
                _ = second.tick() => {
                    if heard.elapsed() >= SILENCE {
                        return (End::Cut(format!("nothing came back for {SILENCE:?}")), echoes);
                    }
                    // A sink that is full waits here, and what ended it is heard above the next time.
                    let sent = tokio::time::timeout(SECOND, self.out.send("tick".to_owned())).await;
                    if let Ok(Err(why)) = sent {
                        return (End::Cut(why), echoes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(back: impl Stream<Item = Result<(), String>> + Send + 'static) -> Carried {
        let out = futures::sink::drain().sink_map_err(|e| match e {});
        Carried { peer: IpAddr::from([127, 0, 0, 1]), out: Box::pin(out), back: Box::pin(back) }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_cause_and_the_echoes_before_it() {
        let (_open, enough) = watch::channel(false);
        let back = futures::stream::iter([Ok(()), Ok(()), Err("reset".to_owned())]);
        assert_eq!(carried(back).until(enough.clone()).await, (End::Cut("reset".to_owned()), 2));
        let (end, _) = carried(futures::stream::empty()).until(enough).await;
        assert!(matches!(end, End::Cut(_)), "{end:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_as_good_as_a_cut() {
        let (_open, enough) = watch::channel(false);
        let (end, echoes) = carried(futures::stream::pending()).until(enough).await;
        assert_eq!((end, echoes), (End::Cut("nothing came back for 10s".to_owned()), 0));
    }

    #[tokio::test]
    async fn enough_is_our_own_end() {
        let (open, enough) = watch::channel(false);
        open.send_replace(true);
        assert_eq!(carried(futures::stream::pending()).until(enough).await, (End::Ours, 0));
    }
}
