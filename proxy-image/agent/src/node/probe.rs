//! Tries a pod's way through the proxy before anybody is sent there.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rustls::{ClientConfig, ClientConnection};
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
    netns.within(|| connect(PORT).map(drop).context("connect through the redirection"))
}

/// Names no port, so what is behind it goes nowhere: no application ever hears of it.
const NAME: &str = "probe.meshwright.invalid";

/// Shakes hands with the proxy at this port as a peer of the mesh would, in the pod's own name, whichever proxy the rules lead to. Both sides
/// have judged the other's certificate then.
///
/// # Errors
/// When nobody accepts, or one side does not take the other's certificate.
pub fn handshake(netns: &Netns, port: u16, config: Arc<ClientConfig>) -> anyhow::Result<()> {
    netns.within(|| {
        let mut stream = TcpStream::from(connect(port).context("connect to the listener")?);
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut tls = ClientConnection::new(config, NAME.try_into()?)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).context("shake hands over mutual TLS")?;
        }
        // The other side judges last, and closes what it does not take.
        match rustls::Stream::new(&mut tls, &mut stream).read(&mut [0]) {
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(e).context("have the certificate taken"),
            _ => Ok(()),
        }
    })
}

fn connect(port: u16) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_mark(MARK).context("mark the probe")?;
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect_timeout(&target.into(), DEADLINE)?;
    Ok(socket)
}
