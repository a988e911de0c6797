//! The sockets of a pod's namespace: whether Envoy listens there, and what is still connected. The kernel is asked, so the answer holds
//! whichever process has the sockets, and after any restart.
//!
//! Over netlink: the tables in `/proc` have a line for every socket of the machine to skip, which takes 14 ms on one with 24 GiB.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::IpAddr;

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;
use super::rules::{Guard, KUBELET};

/// TCP sockets of a namespace, both address families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets(Vec<(u16, u8)>);

// The kernel's numbers.
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const FAMILIES: [u8; 2] = [2, 10];
const TCP: u8 = 6;
const REQUEST_DUMP: u16 = 0x301;
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// Of a request, with its header.
const LENGTH: usize = HEADER + 56;
/// Places in an answer behind its header: state, local port, inode.
const STATE: usize = 1;
const PORT: usize = 4;
const INODE: usize = 68;

// States of TCP, as the kernel numbers them.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT_2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

impl Sockets {
    /// Those of a namespace, as they are now.
    ///
    /// # Errors
    /// When it cannot be entered, or the kernel does not answer.
    pub fn of(netns: &Netns) -> anyhow::Result<Self> {
        netns.within(|| {
            let mut all = Self::default();
            for family in FAMILIES {
                dump(family, |body| all.0.extend(socket(body)))
                    .context("ask the kernel for sockets (it needs inet_diag)")?;
            }
            Ok(all)
        })
    }

    /// Ends what is connected in plaintext to ports that refuse it, by whatever process: both ends hear of it at once. What stays within the
    /// pod, and what is at the proxies' own ports, is left alone. Somebody listens there, or did: at `taken`. Returns how many.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn end_plaintext(
        netns: &Netns,
        guard: &Guard,
        own: &[u16],
        taken: &BTreeSet<u16>,
    ) -> anyhow::Result<usize> {
        let (four, six) = KUBELET;
        let kubelet = [IpAddr::V4(four), IpAddr::V6(six)];
        end(netns, |connection| {
            let within = connection.local == connection.remote || connection.remote.is_loopback();
            let ours = own.contains(&connection.port);
            // Its own connections to others have an end here, too; nobody listens at that.
            (connection.is_taken || taken.contains(&connection.port))
                && !within
                && !ours
                && !kubelet.contains(&connection.remote)
                && guard.refuses(connection.port)
        })
    }

    /// From where these ports are connected.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel does not answer.
    pub fn callers(netns: &Netns, ports: &[u16]) -> anyhow::Result<BTreeSet<IpAddr>> {
        let all = netns.within(connections)?;
        let callers = all.iter().filter(|one| ports.contains(&one.port)).map(|one| one.remote);
        Ok(callers.collect())
    }

    /// Ends what is connected to these ports from these addresses. Returns how many.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn end_callers(netns: &Netns, ports: &[u16], callers: &BTreeSet<IpAddr>) -> anyhow::Result<usize> {
        end(netns, |one| ports.contains(&one.port) && callers.contains(&one.remote))
    }

    /// Whether somebody listens on each of these ports.
    pub fn listen_on(&self, ports: &[u16]) -> bool {
        ports.iter().all(|port| self.0.contains(&(*port, LISTEN)))
    }

    /// Ports on which somebody listens.
    pub fn listening(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|(_, state)| *state == LISTEN).map(|(port, _)| *port)
    }

    /// Whether nobody listens on any of these ports.
    pub fn listen_on_none(&self, ports: &[u16]) -> bool {
        !ports.iter().any(|port| self.0.contains(&(*port, LISTEN)))
    }

    /// How many connections have their local end at one of these ports.
    pub fn connected(&self, ports: &[u16]) -> usize {
        let over = [SYN_SENT, TIME_WAIT, CLOSED, LISTEN];
        let connected = |state: u8| state >= ESTABLISHED && !over.contains(&state);
        self.0.iter().filter(|(port, state)| ports.contains(port) && connected(*state)).count()
    }
}

/// Shows every TCP socket of a family in this namespace.
fn dump(family: u8, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut kernel =
        Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    kernel.write_all(&request(family))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = kernel.read(&mut buffer)?;
        if take(&buffer[..count], &mut each)? {
            return Ok(());
        }
    }
}

/// Returns whether that was the end.
fn take(mut messages: &[u8], each: &mut impl FnMut(&[u8])) -> anyhow::Result<bool> {
    while let Some((length, kind)) = header(messages) {
        let body = messages.get(HEADER..length).context("a message ends early")?;
        match kind {
            DONE => return Ok(true),
            ERROR => bail!("error {}", body.first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code))),
            _ => each(body),
        }
        // They begin at multiples of four.
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// One connection, from its end in a namespace.
struct Connection {
    local: IpAddr,
    remote: IpAddr,
    /// The local port.
    port: u16,
    /// Somebody listens at that port.
    is_taken: bool,
    /// How the kernel knows it.
    id: [u8; 48],
    family: u8,
}

/// Ends those connections of a namespace that `ends` wants to.
fn end(netns: &Netns, ends: impl Fn(&Connection) -> bool + Send + Sync) -> anyhow::Result<usize> {
    netns.within(|| {
        let mut count = 0;
        for one in connections()?.into_iter().filter(|one| ends(one)) {
            let ended = destroy(&one).context("end a connection (the kernel needs inet_diag_destroy)")?;
            count += usize::from(ended);
        }
        Ok(count)
    })
}

/// The connections of this namespace.
fn connections() -> anyhow::Result<Vec<Connection>> {
    let (mut all, mut listening) = (Vec::new(), BTreeSet::new());
    for family in FAMILIES {
        dump(family, |body| {
            match (socket(body), body.get(STATE)) {
                (Some((port, _)), Some(&LISTEN)) => _ = listening.insert(port),
                (_, Some(&state)) if state < TIME_WAIT => all.extend(connection(family, body)),
                _ => {}
            };
        })
        .context("ask the kernel for sockets (it needs inet_diag)")?;
    }
    all.iter_mut().for_each(|one: &mut Connection| one.is_taken = listening.contains(&one.port));
    Ok(all)
}

fn connection(family: u8, body: &[u8]) -> Option<Connection> {
    let id: [u8; 48] = *body.get(PORT..)?.first_chunk()?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(match family {
            2 => IpAddr::from(*id.get(at..)?.first_chunk::<4>()?),
            _ => IpAddr::from(*id.get(at..)?.first_chunk::<16>()?).to_canonical(),
        })
    };
    let port = u16::from_be_bytes(*id.first_chunk()?);
    Some(Connection { local: address(4)?, remote: address(20)?, port, is_taken: false, id, family })
}

/// Returns whether it was still there.
fn destroy(connection: &Connection) -> anyhow::Result<bool> {
    const DESTROY: u16 = 21;
    const REQUEST_ACK: u16 = 5;
    const NOT_THERE: i32 = 2;
    let mut request = message(DESTROY, REQUEST_ACK, connection.family);
    request.extend(connection.id);
    let mut kernel =
        Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    kernel.write_all(&request)?;
    let mut buffer = [0; 1024];
    let count = kernel.read(&mut buffer)?;
    let answer = buffer.get(..count).unwrap_or_default();
    let code =
        answer.get(HEADER..).and_then(<[u8]>::first_chunk).map_or(0, |code| -i32::from_ne_bytes(*code));
    match code {
        0 => Ok(true),
        NOT_THERE => Ok(false),
        code => bail!("error {code}"),
    }
}

/// A request with its header and its first fields, about all states; the connection that is meant comes behind it.
fn message(kind: u16, flags: u16, family: u8) -> Vec<u8> {
    let mut request = Vec::with_capacity(LENGTH);
    request.extend((LENGTH as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and sender: there is one question on a socket of its own.
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request
}

/// All TCP sockets of a family, in any state.
fn request(family: u8) -> Vec<u8> {
    let mut request = message(BY_FAMILY, REQUEST_DUMP, family);
    request.resize(LENGTH, 0);
    request
}

/// Length and type of the first message.
fn header(messages: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*messages.first_chunk()?);
    let kind = u16::from_ne_bytes(*messages.get(4..)?.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (length >= HEADER).then_some((length, kind))
}

/// Local port and state.
fn socket(body: &[u8]) -> Option<(u16, u8)> {
    let state = *body.get(STATE)?;
    let port = u16::from_be_bytes(*body.get(PORT..)?.first_chunk()?);
    let inode = u32::from_ne_bytes(*body.get(INODE..)?.first_chunk()?);
    // What no process has any more, and has been told everything: the kernel keeps it for a minute for a peer that says nothing.
    let forgotten = state == FIN_WAIT_2 && inode == 0;
    (!forgotten).then_some((port, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sockets: &mut Sockets, messages: &[u8]) -> anyhow::Result<bool> {
        take(messages, &mut |body| sockets.0.extend(socket(body)))
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn answer(port: u16, state: u8, inode: u32) -> Vec<u8> {
        let mut body = vec![0; 72];
        body[STATE] = state;
        body[PORT..PORT + 2].copy_from_slice(&port.to_be_bytes());
        body[INODE..].copy_from_slice(&inode.to_ne_bytes());
        message(BY_FAMILY, &body)
    }

    #[test]
    fn listeners_and_connections_are_told_apart() {
        let mut sockets = Sockets::default();
        let first =
            [answer(15101, LISTEN, 1), answer(15101, ESTABLISHED, 2), answer(15101, TIME_WAIT, 0)].concat();
        assert!(!told(&mut sockets, &first).unwrap(), "more is to come");
        let second = [
            answer(15101, FIN_WAIT_2, 0),
            answer(15101, FIN_WAIT_2, 3),
            answer(8080, ESTABLISHED, 4),
            answer(15108, LISTEN, 5),
            answer(15108, 8, 6),
            message(DONE, &[0; 4]),
        ];
        assert!(told(&mut sockets, &second.concat()).unwrap());
        assert!(
            sockets.listen_on(&[15101, 15108])
                && !sockets.listen_on(&[15101, 15201])
                && !sockets.listen_on(&[8080])
        );
        assert_eq!(sockets.listening().collect::<Vec<_>>(), [15101, 15108]);
        assert!(sockets.listen_on_none(&[8080, 15201]) && !sockets.listen_on_none(&[8080, 15108]));
        assert_eq!(sockets.connected(&[15101]), 2, "neither the listener nor what nobody has any more");
        assert_eq!(sockets.connected(&[15101, 15108]), 3, "one side has closed, the other has not");
        assert_eq!(sockets.connected(&[15201]), 0);
    }

    #[test]
    fn what_makes_no_sense_is_an_error_or_nothing() {
        let mut sockets = Sockets::default();
        let refused = told(&mut sockets, &message(ERROR, &(-2i32).to_ne_bytes())).unwrap_err().to_string();
        assert_eq!(refused, "error 2");
        assert!(told(&mut sockets, &[200, 0, 0, 0, 20, 0, 0, 0]).is_err());
        assert!(!told(&mut sockets, &[0; 64]).unwrap() && !told(&mut sockets, &[]).unwrap());
        assert!(!told(&mut sockets, &message(BY_FAMILY, &[1; 8])).unwrap());
        assert_eq!(sockets, Sockets::default());
    }
}
