//! The sockets of a pod's namespace: whether Envoy listens there, and what is still connected. The kernel is asked, so the answer holds
//! whichever process has the sockets, and after any restart.
//!
//! Over netlink: the tables in `/proc` have a line for every socket of the machine to skip, which takes 14 ms on one with 24 GiB.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;
use super::rules::{Guard, KUBELET, MARK};

/// TCP sockets of a namespace, both address families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets(Vec<(u16, u8)>);

/// Where somebody listens in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners(BTreeSet<(IpAddr, u16)>);

/// Connections by the numbers that the kernel gives them once; none gets another's.
pub type Cookies = BTreeSet<u64>;

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
/// Behind what every answer has.
const ATTRIBUTES: usize = 72;
/// Of the attribute with the socket's mark. Whoever may end connections is shown it.
const MARKED: u16 = 15;

// States of TCP, as the kernel numbers them.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT_2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;
/// All of them, as a request names them: one bit each.
const ALL: u32 = u32::MAX;

impl Sockets {
    /// Those of a namespace, as they are now.
    ///
    /// # Errors
    /// When it cannot be entered, or the kernel does not answer.
    pub fn of(netns: &Netns) -> anyhow::Result<Self> {
        netns.within(|| {
            let mut all = Self::default();
            for family in FAMILIES {
                dump(family, ALL, |body| all.0.extend(socket(body)))
                    .context("ask the kernel for sockets (it needs inet_diag)")?;
            }
            Ok(all)
        })
    }

    /// What was opened from elsewhere, also where nobody listens any more: who listened `before` did, and who opened what is `known` as such.
    /// Envoy's own connections are not.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel does not answer.
    pub fn accepted(netns: &Netns, before: &Listeners, known: &Cookies) -> anyhow::Result<Cookies> {
        let (all, listeners) = netns.within(connections)?;
        let is_accepted = |one: &&Connection| {
            known.contains(&one.cookie) || (one.mark != MARK && (before.take(one) || listeners.take(one)))
        };
        Ok(all.iter().filter(is_accepted).map(|one| one.cookie).collect())
    }

    /// Ends what is connected in plaintext to ports that refuse it, by whatever process: both ends hear of it at once. What stays within the
    /// pod, and what is at the proxies' own ports, is left alone, and so is what the pod or Envoy opened itself: somebody listens for it, or
    /// it was `accepted` when somebody did. Returns how many.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn end_plaintext(
        netns: &Netns,
        guard: &Guard,
        own: &[u16],
        accepted: &Cookies,
    ) -> anyhow::Result<usize> {
        let (four, six) = KUBELET;
        let kubelet = [IpAddr::V4(four), IpAddr::V6(six)];
        end(netns, |connection, listeners| {
            let within = connection.local == connection.remote || connection.remote.is_loopback();
            let ours = own.contains(&connection.port) || connection.mark == MARK;
            (listeners.take(connection) || accepted.contains(&connection.cookie))
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
        let (all, _) = netns.within(connections)?;
        let callers = all.iter().filter(|one| ports.contains(&one.port)).map(|one| one.remote);
        Ok(callers.collect())
    }

    /// Ends what is connected to these ports from these addresses. Returns how many.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel refuses.
    pub fn end_callers(netns: &Netns, ports: &[u16], callers: &BTreeSet<IpAddr>) -> anyhow::Result<usize> {
        end(netns, |one, _| ports.contains(&one.port) && callers.contains(&one.remote))
    }

    /// Whether somebody listens on each of these ports.
    pub fn listen_on(&self, ports: &[u16]) -> bool {
        ports.iter().all(|port| self.0.contains(&(*port, LISTEN)))
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

impl Listeners {
    /// Those of a namespace, as they are now.
    ///
    /// # Errors
    /// When it cannot be entered, or the kernel does not answer.
    pub fn of(netns: &Netns) -> anyhow::Result<Self> {
        netns.within(|| {
            let mut all = Self::default();
            for family in FAMILIES {
                dump(family, 1 << LISTEN, |body| all.add(family, body))
                    .context("ask the kernel for sockets (it needs inet_diag)")?;
            }
            Ok(all)
        })
    }

    fn add(&mut self, family: u8, body: &[u8]) {
        self.0.extend(connection(family, body).map(|one| (one.local, one.port)));
    }

    /// A port at one address is not taken at the others: processes connect from it.
    fn take(&self, connection: &Connection) -> bool {
        let everywhere = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let addresses = everywhere.into_iter().take(if connection.local.is_ipv4() { 2 } else { 1 });
        addresses.chain([connection.local]).any(|address| self.0.contains(&(address, connection.port)))
    }
}

/// Shows every TCP socket of a family in this namespace that is in one of these states.
fn dump(family: u8, states: u32, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut kernel =
        Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    kernel.write_all(&request(family, states))?;
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
    mark: u32,
    cookie: u64,
    /// How the kernel knows it.
    id: [u8; 48],
    family: u8,
}

/// Ends those connections of a namespace that `ends` wants to.
fn end(netns: &Netns, ends: impl Fn(&Connection, &Listeners) -> bool + Send + Sync) -> anyhow::Result<usize> {
    netns.within(|| {
        let mut count = 0;
        let (all, listeners) = connections()?;
        for one in all.into_iter().filter(|one| ends(one, &listeners)) {
            let ended = destroy(&one).context("end a connection (the kernel needs inet_diag_destroy)")?;
            count += usize::from(ended);
        }
        Ok(count)
    })
}

/// The connections of this namespace, and where somebody listens.
fn connections() -> anyhow::Result<(Vec<Connection>, Listeners)> {
    let (mut all, mut listeners) = (Vec::new(), Listeners::default());
    for family in FAMILIES {
        dump(family, ALL, |body| match body.get(STATE) {
            Some(&LISTEN) => listeners.add(family, body),
            Some(&state) if state < TIME_WAIT => all.extend(connection(family, body)),
            _ => {}
        })
        .context("ask the kernel for sockets (it needs inet_diag)")?;
    }
    Ok((all, listeners))
}

/// Also one that only listens, as far as that goes.
fn connection(family: u8, body: &[u8]) -> Option<Connection> {
    let id: [u8; 48] = *body.get(PORT..)?.first_chunk()?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(match family {
            2 => IpAddr::from(*id.get(at..)?.first_chunk::<4>()?),
            _ => IpAddr::from(*id.get(at..)?.first_chunk::<16>()?).to_canonical(),
        })
    };
    let port = u16::from_be_bytes(*id.first_chunk()?);
    let cookie = u64::from_ne_bytes(*id.last_chunk()?);
    let mark = mark(body.get(ATTRIBUTES..).unwrap_or_default()).unwrap_or_default();
    Some(Connection { local: address(4)?, remote: address(20)?, port, mark, cookie, id, family })
}

fn mark(mut attributes: &[u8]) -> Option<u32> {
    const HEADER: usize = 4;
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        if kind == MARKED {
            return Some(u32::from_ne_bytes(*attributes.get(HEADER..)?.first_chunk()?));
        }
        attributes = attributes.get(length.max(HEADER).next_multiple_of(4)..)?;
    }
}

/// Returns whether it was still there.
fn destroy(connection: &Connection) -> anyhow::Result<bool> {
    const DESTROY: u16 = 21;
    const REQUEST_ACK: u16 = 5;
    const NOT_THERE: i32 = 2;
    let mut request = message(DESTROY, REQUEST_ACK, connection.family, ALL);
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

/// A request with its header and its first fields; the connection that is meant comes behind it.
fn message(kind: u16, flags: u16, family: u8, states: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(LENGTH);
    request.extend((LENGTH as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    // Sequence number and sender: there is one question on a socket of its own.
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(states.to_ne_bytes());
    request
}

/// All TCP sockets of a family in these states.
fn request(family: u8, states: u32) -> Vec<u8> {
    let mut request = message(BY_FAMILY, REQUEST_DUMP, family, states);
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
        assert!(sockets.listen_on_none(&[8080, 15201]) && !sockets.listen_on_none(&[8080, 15108]));
        assert_eq!(sockets.connected(&[15101]), 2, "neither the listener nor what nobody has any more");
        assert_eq!(sockets.connected(&[15101, 15108]), 3, "one side has closed, the other has not");
        assert_eq!(sockets.connected(&[15201]), 0);
    }

    #[test]
    fn who_listens_at_one_address_takes_nothing_at_others() {
        let at = |local: &str, port| {
            let (local, remote) = (local.parse().unwrap(), "10.0.0.9".parse().unwrap());
            Connection { local, remote, port, mark: 0, cookie: 1, id: [0; 48], family: 2 }
        };
        let listeners = ["127.0.0.1", "10.0.0.1", "0.0.0.0", "::1", "fd77::1", "::"];
        let takes = listeners.map(|address| {
            let listeners = Listeners([(address.parse().unwrap(), 80)].into());
            assert!(!listeners.take(&at("10.0.0.1", 81)) && !listeners.take(&at("fd77::1", 81)));
            ["10.0.0.1", "fd77::1"].map(|local| listeners.take(&at(local, 80)))
        });
        let [four, six, none] = [[true, false], [false, true], [false; 2]];
        assert_eq!(takes, [none, four, four, none, six, [true; 2]]);
    }

    #[test]
    fn marks_are_found_among_other_attributes() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = u16::try_from(4 + value.len()).unwrap();
            let mut all = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
            all.resize(all.len().next_multiple_of(4), 0);
            all
        };
        let marked = attribute(MARKED, &MARK.to_ne_bytes());
        assert_eq!(mark(&[attribute(8, &[1]), marked.clone(), attribute(9, &[2])].concat()), Some(MARK));
        assert_eq!(mark(&attribute(8, &[1])), None);
        for broken in [&[][..], &[0; 9], &marked[..6]] {
            assert_eq!(mark(broken), None);
        }
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
