//! The sockets of a pod's namespace: whether Envoy listens there, and what is still connected. The kernel is asked, so the answer holds
//! whichever process has the sockets, and after any restart.
//!
//! Over netlink: the tables in `/proc` have a line for every socket of the machine to skip, which takes 14 ms on one with 24 GiB.

use std::io::{Read, Write};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;

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
                all.dump(family).context("ask the kernel for sockets (it needs inet_diag)")?;
            }
            Ok(all)
        })
    }

    fn dump(&mut self, family: u8) -> anyhow::Result<()> {
        let mut kernel =
            Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
        kernel.write_all(&request(family))?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = kernel.read(&mut buffer)?;
            if self.take(&buffer[..count])? {
                return Ok(());
            }
        }
    }

    /// Returns whether that was the end.
    fn take(&mut self, mut messages: &[u8]) -> anyhow::Result<bool> {
        while let Some((length, kind)) = header(messages) {
            let body = messages.get(HEADER..length).context("a message ends early")?;
            match kind {
                DONE => return Ok(true),
                ERROR => bail!("error {}", body.first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code))),
                _ => self.0.extend(socket(body)),
            }
            // They begin at multiples of four.
            messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
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

/// All TCP sockets of a family, in any state.
fn request(family: u8) -> Vec<u8> {
    const LENGTH: usize = HEADER + 56;
    let mut request = Vec::with_capacity(LENGTH);
    request.extend((LENGTH as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    // Sequence number and sender: there is one question on a socket of its own.
    request.extend([0; 8]);
    request.extend([family, TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
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
        assert!(!sockets.take(&first).unwrap(), "more is to come");
        let second = [
            answer(15101, FIN_WAIT_2, 0),
            answer(15101, FIN_WAIT_2, 3),
            answer(8080, ESTABLISHED, 4),
            answer(15108, LISTEN, 5),
            answer(15108, 8, 6),
            message(DONE, &[0; 4]),
        ];
        assert!(sockets.take(&second.concat()).unwrap());
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
    fn what_makes_no_sense_is_an_error_or_nothing() {
        let mut sockets = Sockets::default();
        let refused = sockets.take(&message(ERROR, &(-2i32).to_ne_bytes())).unwrap_err().to_string();
        assert_eq!(refused, "error 2");
        assert!(sockets.take(&[200, 0, 0, 0, 20, 0, 0, 0]).is_err());
        assert!(!sockets.take(&[0; 64]).unwrap() && !sockets.take(&[]).unwrap());
        assert!(!sockets.take(&message(BY_FAMILY, &[1; 8])).unwrap());
        assert_eq!(sockets, Sockets::default());
    }
}
