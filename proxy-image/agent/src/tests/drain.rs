//! Leaving, with the real Envoy.

use std::{net::SocketAddr, time::Duration};

use meshwright_runtime::Shutdown;
use meshwright_xds::TypeUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    envoy::{envoy_binary, envoy_pid, free_address, listener, says, settings, snapshot},
    fake::{ControlPlane, DEADLINE, eventually},
};
use crate::run::serve_until;

/// What a new client gets that would like to keep its connection.
async fn ask(address: SocketAddr) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut buffer = vec![0; 4096];
        let count = stream.read(&mut buffer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&buffer[..count]).to_lowercase())
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap().unwrap()
}

const CLOSE: &str = "\r\nconnection: close\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_during_the_delay_is_served_on_every_listener_and_told_to_go() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let fronts = [free_address().await, free_address().await];
    let listeners = fronts.map(|front| listener(&front.port().to_string(), front.port(), None));
    control_plane.publish(snapshot(1, "hello").with(TypeUrl::Listener, listeners));
    let mut args = settings(&control_plane, dir.path(), envoy).await;
    args.drain_delay = Duration::from_secs(6);
    let (health, delay) = (args.health_addr, args.drain_delay);
    let shutdown = Shutdown::default();
    let agent = tokio::spawn(serve_until(args, shutdown.clone()));
    for front in fronts {
        eventually("first answer", async || says(front, "/", "200", "hello").await).await;
    }
    eventually("ready", async || says(health, "/readyz", "200", "ok").await).await;
    assert!(!ask(fronts[0]).await.contains(CLOSE), "nobody is told to go before the signal");

    let begin = Instant::now();
    shutdown.drain().cancel();
    eventually("told to go", async || ask(fronts[0]).await.contains(CLOSE)).await;
    assert!(begin.elapsed() < delay / 2, "told only after {:?}", begin.elapsed());
    // For as long as the delay lasts, and it is not cut short by having no connections.
    let mut served = 0;
    while begin.elapsed() < delay - Duration::from_millis(500) {
        for front in fronts {
            let answer = ask(front).await;
            assert!(answer.starts_with("http/1.1 200") && answer.ends_with("hello"), "{answer}");
            assert!(answer.contains(CLOSE), "{answer}");
            served += 1;
        }
        assert!(says(health, "/readyz", "200", "ok").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(served >= 10, "only {served}");
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
    assert!(begin.elapsed() >= delay);
    assert!(envoy_pid(dir.path()).is_none(), "envoy outlived the agent");
}
