//! What goes over the wires of the nodes: a packet socket in each node's network, which sees its pods' ends of the veth pairs and its own
//! interface. For what is readable there, and for who connects to the port of mutual TLS.
//!
//! No program of its own: all of it is one marker in the payload of some pods' packets, and a capture that is written to a file and read
//! later would have to be large enough for minutes of load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use meshwright_api::NODE_PORT;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Cluster;

/// Whoever waits for a packet looks as often whether it is enough.
const LOOK: Duration = Duration::from_millis(100);
/// Packets that wait to be looked at, in bytes.
const BUFFER: usize = 64 << 20;
/// As large as the kernel joins packets to.
const LARGEST: usize = 1 << 17;

/// Packets of some pods, since it was started.
#[derive(Debug)]
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    enough: Arc<AtomicBool>,
    looking: Vec<JoinHandle<Result<()>>>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// TCP packets from or to the pods.
    pub packets: u64,
    /// Packets in which the marker was readable.
    pub readable: u64,
    /// The greatest of the numbers that stand behind the marker, where it was readable.
    pub newest: Option<u64>,
    /// The last packet in which that was so: source and destination.
    pub newest_between: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Who opened a connection to the port of mutual TLS, and of whom.
    pub mutual: BTreeSet<(Ipv4Addr, Ipv4Addr)>,
    /// How many connections each address opened to other ports of the pods.
    pub plain: BTreeMap<Ipv4Addr, u64>,
}

/// What to look for.
#[derive(Debug, Clone)]
struct Wanted {
    marker: Vec<u8>,
    pods: BTreeSet<Ipv4Addr>,
}

impl Capture {
    /// Looks on every node for the marker in packets of pods with these addresses.
    ///
    /// # Errors
    /// On a cluster outside: its nodes are not on this machine.
    pub fn start(cluster: &Cluster, marker: &str, pods: BTreeSet<Ipv4Addr>) -> Result<Self> {
        let wanted = Wanted { marker: marker.as_bytes().to_owned(), pods };
        let (seen, enough) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut capture = Self { seen, enough, looking: Vec::new() };
        for network in cluster.networks()? {
            let network = File::open(&network).with_context(|| format!("open {}", network.display()))?;
            let (wanted, seen, enough) = (wanted.clone(), capture.seen.clone(), capture.enough.clone());
            // A thread of its own: it stays in the node's network until it ends.
            capture.looking.push(std::thread::spawn(move || look(&wire(network)?, &wanted, &seen, &enough)));
        }
        Ok(capture)
    }

    /// What was seen until now.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Whether every node is still looked at: what is not seen must not be for want of looking.
    ///
    /// # Errors
    /// When one is not.
    pub fn still_looks(&self) -> Result<()> {
        match self.looking.iter().filter(|thread| thread.is_finished()).count() {
            0 => Ok(()),
            ended => bail!("{ended} of {} captures have ended", self.looking.len()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a node could not be looked at.
    pub fn stop(mut self) -> Result<Seen> {
        self.enough.store(true, Ordering::SeqCst);
        for thread in self.looking.drain(..) {
            match thread.join() {
                Ok(looked) => looked?,
                Err(_) => bail!("a capture panicked"),
            }
        }
        Ok(self.seen())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every packet of this network, from its IP header on. Moves the calling thread there.
fn wire(network: File) -> Result<OwnedFd> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter a node's network")?;
    let (family, flags) = (AddressFamily::PACKET, SocketFlags::CLOEXEC);
    let wire =
        socket_with(family, SocketType::DGRAM, flags, Some(eth::ALL)).context("open a packet socket")?;
    set_socket_recv_buffer_size_force(&wire, BUFFER).context("enlarge a packet socket's buffer")?;
    set_socket_timeout(&wire, Timeout::Recv, Some(LOOK)).context("limit how long a packet is waited for")?;
    Ok(wire)
}

fn look(wire: &OwnedFd, wanted: &Wanted, seen: &Mutex<Seen>, enough: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; LARGEST];
    while !enough.load(Ordering::SeqCst) {
        match recv(wire, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                let packet = buffer.get(..length).unwrap_or_default();
                if let Some(tcp) = Tcp::read(packet).filter(|tcp| tcp.is_of(&wanted.pods)) {
                    tcp.note(&wanted.marker, &mut lock(seen));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An interface that goes away says so once.
            Err(Errno::NETDOWN) => {}
            Err(error) => return Err(error).context("read packets of a node"),
        }
    }
    Ok(())
}

/// A TCP packet.
#[derive(Debug, PartialEq, Eq)]
struct Tcp<'a> {
    from: Ipv4Addr,
    to: Ipv4Addr,
    to_port: u16,
    opens: bool,
    payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    const PROTOCOL: u8 = 6;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    /// None where it is something else. The cluster has no IPv6.
    fn read(packet: &'a [u8]) -> Option<Self> {
        let (version, words) = (packet.first()? >> 4, packet.first()? & 0xf);
        if version != 4 || *packet.get(9)? != Self::PROTOCOL {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        let tcp = packet.get(usize::from(words) * 4..)?;
        let flags = *tcp.get(13)?;
        Some(Self {
            from: address(12)?,
            to: address(16)?,
            to_port: u16::from_be_bytes([*tcp.get(2)?, *tcp.get(3)?]),
            opens: flags & (Self::SYN | Self::ACK) == Self::SYN,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }

    fn is_of(&self, pods: &BTreeSet<Ipv4Addr>) -> bool {
        pods.contains(&self.from) || pods.contains(&self.to)
    }

    fn note(&self, marker: &[u8], seen: &mut Seen) {
        seen.packets += 1;
        match self.opens.then_some(self.to_port) {
            Some(NODE_PORT) => {
                seen.mutual.insert((self.from, self.to));
            }
            Some(_) => *seen.plain.entry(self.from).or_default() += 1,
            None => {}
        }
        let found = self.payload.windows(marker.len()).position(|window| window == marker);
        let Some(behind) = found.and_then(|at| self.payload.get(at + marker.len()..)) else { return };
        seen.readable += 1;
        let digits: String =
            behind.iter().map(|byte| char::from(*byte)).take_while(char::is_ascii_digit).collect();
        if let Some(number) = digits.parse().ok().filter(|number| Some(*number) >= seen.newest) {
            (seen.newest, seen.newest_between) = (Some(number), Some((self.from, self.to)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn packet(from: [u8; 4], to: [u8; 4], port: u16, flags: u8, payload: &str) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, Tcp::PROTOCOL, 0, 0];
        packet.extend(from.into_iter().chain(to));
        packet.extend([0x80, 0x01]);
        packet.extend(port.to_be_bytes());
        // Eight words: a header with options.
        packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x80, flags]);
        packet.resize(20 + 32, 0);
        packet.extend(payload.bytes());
        packet
    }

    fn seen(packets: &[Vec<u8>]) -> Seen {
        let (mut seen, pods) = (Seen::default(), BTreeSet::from([A.into()]));
        for tcp in packets.iter().filter_map(|packet| Tcp::read(packet)).filter(|tcp| tcp.is_of(&pods)) {
            tcp.note(b"marked-", &mut seen);
        }
        seen
    }

    #[test]
    fn a_marker_is_read_with_its_number_in_packets_of_the_pods_only() {
        let says = |number: u32| format!("GET / HTTP/1.1\r\nuser-agent: marked-{number}\r\n\r\n");
        let seen = seen(&[
            packet(A, B, 9080, Tcp::ACK, &says(7)),
            packet(B, A, 9080, Tcp::ACK, &says(12)),
            packet(A, B, 9080, Tcp::ACK, &says(3)),
            packet(A, B, 9080, Tcp::ACK, "marked"),
            packet(B, B, 9080, Tcp::ACK, &says(99)),
        ]);
        assert_eq!((seen.packets, seen.readable, seen.newest), (4, 3, Some(12)));
        assert_eq!(seen.newest_between, Some((B.into(), A.into())));
    }

    #[test]
    fn who_opens_a_connection_to_the_port_of_mutual_tls_is_noted() {
        let seen = seen(&[
            packet(A, B, NODE_PORT, Tcp::SYN, ""),
            packet(B, A, NODE_PORT, Tcp::SYN | Tcp::ACK, ""),
            packet(B, A, 9080, Tcp::SYN, ""),
        ]);
        assert_eq!(seen.mutual, BTreeSet::from([(A.into(), B.into())]));
        assert_eq!(seen.plain, BTreeMap::from([(B.into(), 1)]));
    }

    #[test]
    fn what_is_cut_short_or_no_tcp_is_passed_over() {
        let whole = packet(A, B, 9080, Tcp::ACK, "");
        assert!((0..whole.len()).all(|length| Tcp::read(&whole[..length]).is_none()));
        let mut udp = whole.clone();
        udp[9] = 17;
        let mut six = whole.clone();
        six[0] = 0x60;
        assert_eq!((Tcp::read(&udp), Tcp::read(&six)), (None, None));
    }
}
