//! One pod's connections are not its neighbours' concern.

use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::util::pack_any;
use prost::Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Pods may open three connections.
fn three(snapshot: &mut Snapshot) {
    let mut changed = 0;
    ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
        let filters = listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters);
        let configs = filters.filter_map(|filter| match &mut filter.config_type {
            Some(filter::ConfigType::TypedConfig(any)) => Some(any),
            _ => None,
        });
        for any in configs.filter(|any| any.type_url == ConnectionLimit::type_url()) {
            let limit = ConnectionLimit::decode(any.value.as_slice()).unwrap();
            *any = pack_any(ConnectionLimit { max_connections: crate::envoy::common::uint64(3), ..limit });
            changed += 1;
        }
    });
    let pods = names(snapshot, TypeUrl::Listener).iter().filter(|name| name.ends_with("/outbound")).count();
    assert_eq!(changed, pods, "each pod has a limit");
}

/// A connection through the proxy to where the server speaks first; None if it was closed.
async fn greeted(from: &Namespace) -> Option<TcpStream> {
    let mut stream = from.connect("10.88.0.2:3306").await.ok()?;
    client::line(&mut stream).await.ok().map(|_| stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_as_many_connections_as_it_may_have_leaves_its_neighbours_alone() {
    let Some(lab) = lab(mesh(), three).await else { return };
    let (front, cart) = (lab.pod("front"), lab.pod("cart"));
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(greeted(front).await.unwrap());
    }
    assert!(greeted(front).await.is_none(), "one more is closed");
    // Neither for its neighbour, nor for the pod that was called, is there less room.
    assert!(greeted(cart).await.is_some());
    assert_eq!(lab.pod("back").source("10.77.0.12:8080").await, "from 10.77.0.12");
    drop(held);
    until("there is room again", async || greeted(front).await.map(drop)).await;
}

/// A handshake has a second.
fn hasty(snapshot: &mut Snapshot) {
    ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
        if listener.name.ends_with("/inbound") {
            let timeout = listener.filter_chains[0].transport_socket_connect_timeout.as_mut();
            assert_eq!(std::mem::replace(&mut timeout.unwrap().seconds, 1), 10);
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_ends_a_handshake_keeps_no_place() {
    let Some(lab) = lab(mesh(), hasty).await else { return };
    let mut stream = lab.pod("outside").connect(&format!("10.77.0.21:{PORT}")).await.unwrap();
    stream.write_all(&refusals::hello(b"mw1-tcp")).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
    // The server's part of the handshake, and then the end.
    assert!(ended.is_ok() && answer.first() == Some(&0x16), "{ended:?} {} bytes", answer.len());
    assert_eq!(lab.pod("front").source("10.88.0.1:80").await, "from 10.77.0.21");
}
