//! What lasts, while its pod is told to end; with the real Envoy.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::config::route::v3::{RouteAction, route::Action, route_action::ClusterSpecifier};
use envoy_types::pb::google::protobuf::Duration as Forever;
use meshwright_runtime::Shutdown;
use meshwright_xds::{Snapshot, TypeUrl};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    envoy::{eds_cluster, endpoints, envoy_binary, free_address, listener, route_to, settings},
    fake::{ControlPlane, DEADLINE, eventually},
};
use crate::run::serve_until;

const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Where to become a WebSocket on which everything is said back.
async fn echoes() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    port
}

/// Until the other side ends it.
async fn echo(stream: TcpStream) -> Option<Infallible> {
    let mut stream = upgraded(stream).await?;
    let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{UPGRADE}");
    stream.write_all(answer.as_bytes()).await.ok()?;
    loop {
        let byte = stream.read_u8().await.ok()?;
        stream.write_u8(byte).await.ok()?;
    }
}

/// The stream behind the head of a message.
async fn upgraded(stream: TcpStream) -> Option<BufReader<TcpStream>> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
    }
    Some(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_lives_until_the_drain_deadline() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let (front, port) = (free_address().await, echoes().await);
    let to = ClusterSpecifier::Cluster("echoes".to_owned());
    let to = RouteAction {
        cluster_specifier: Some(to),
        timeout: Some(Forever::default()),
        ..RouteAction::default()
    };
    control_plane.publish(
        Snapshot::default()
            .with(TypeUrl::Cluster, [eds_cluster("echoes", "")])
            .with(TypeUrl::Endpoint, [endpoints("echoes", port)])
            .with(TypeUrl::Listener, [listener("front", front.port(), None)])
            .with(TypeUrl::Route, [route_to(Action::Route(to))]),
    );
    let mut args = settings(&control_plane, dir.path(), envoy).await;
    // In less than about this Envoy cuts nothing by itself.
    args.proxy.drain_deadline = Duration::from_secs(16);
    let (deadline, shutdown) = (args.proxy.drain_deadline, Shutdown::default());
    let agent = tokio::spawn(serve_until(args, shutdown.clone()));
    eventually("a listener", async || TcpStream::connect(front).await.is_ok()).await;

    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(front).await.unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{UPGRADE}").as_bytes()).await.unwrap();
        streams.push(upgraded(stream).await.unwrap());
    }
    let told = Instant::now();
    shutdown.drain().cancel();
    for mut stream in streams {
        while stream.write_u8(7).await.is_ok() && stream.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(told.elapsed() >= deadline, "cut {:?} after the pod was told to end", told.elapsed());
    }
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
}
