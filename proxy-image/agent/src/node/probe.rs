//! Tries a pod's redirection before anybody is told of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use socket2::{Domain, Socket, Type};

use super::{
    netns::Netns,
    rules::{MARK, PORT},
};

/// Nothing is between us and the listener but the kernel.
const DEADLINE: Duration = Duration::from_secs(2);

/// Connects as Envoy does where a pod calls itself: through the rule that takes mutual TLS to the proxy, to its listener. Every namespace has a
/// loopback device, so no address of the pod is needed.
///
/// # Errors
/// When nobody accepts.
pub fn probe(netns: &Netns) -> anyhow::Result<()> {
    netns.within(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_mark(MARK).context("mark the probe")?;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        socket.connect_timeout(&target.into(), DEADLINE).context("connect through the redirection")
    })
}
