//! The sockets of a pod's namespace: whether Envoy listens there, and what is still connected. Read from the kernel, so it holds whichever
//! process has the sockets, and after any restart.

use super::netns::Netns;

/// TCP sockets of a namespace, both address families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets(Vec<(u16, u8)>);

// States as the kernel numbers them.
const ESTABLISHED: u8 = 1;
const FIN_WAIT_2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

impl Sockets {
    /// Those of a namespace, as they are now.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn of(netns: &Netns) -> anyhow::Result<Self> {
        netns.within(|| {
            let tables = ["tcp", "tcp6"]
                .map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")));
            // A kernel without IPv6 has no second table.
            Ok(Self::parse(tables.iter().flatten().map(String::as_str)))
        })
    }

    fn parse<'a>(tables: impl Iterator<Item = &'a str>) -> Self {
        let lines = tables.flat_map(|table| table.lines().skip(1));
        Self(lines.filter_map(socket).collect())
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
        let connected = |state: u8| state >= ESTABLISHED && ![TIME_WAIT, CLOSED, LISTEN].contains(&state);
        self.0.iter().filter(|(port, state)| ports.contains(port) && connected(*state)).count()
    }
}

/// Local port and state; the columns are number, local address, remote address, state, queues, timers, retransmissions, user, probes, inode.
fn socket(line: &str) -> Option<(u16, u8)> {
    let columns: Vec<_> = line.split_ascii_whitespace().collect();
    let (_, port) = columns.get(1)?.rsplit_once(':')?;
    let (port, state) = (u16::from_str_radix(port, 16).ok()?, u8::from_str_radix(columns.get(3)?, 16).ok()?);
    // What no process has any more, and has been told everything: the kernel keeps it for a minute for a peer that says nothing.
    let forgotten = state == FIN_WAIT_2 && columns.get(9) == Some(&"0");
    (!forgotten).then_some((port, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3AFD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:3AFD 0700F40A:D2B4 01 00000000:00000000 02:000A0B0C 00000000     0        0 12346 2 0000000000000000 20 4 30 10 -1
   2: 0100007F:3AFD 0700F40A:D2B5 06 00000000:00000000 03:00000B0C 00000000     0        0 0 3 0000000000000000
   3: 0100007F:3AFD 0700F40A:D2B7 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000
   4: 0100007F:3AFD 0700F40A:D2B8 05 00000000:00000000 00:00000000 00000000     0        0 12350 1 0000000000000000
   5: 0100007F:1F90 0700F40A:D2B6 01 00000000:00000000 02:000A0B0C 00000000     0        0 12347 2 0000000000000000 20 4 30 10 -1
";
    const V6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:3B04 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12348 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000700F40A:3B04 0000000000000000FFFF00000800F40A:9C40 08 00000000:00000000 00:00000000 00000000     0        0 12349 1 0000000000000000 20 4 0 10 -1
";

    #[test]
    fn listeners_and_connections_are_told_apart() {
        let sockets = Sockets::parse([V4, V6].into_iter());
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
    fn what_is_no_socket_is_none() {
        assert_eq!(
            Sockets::parse(["", "heading\n\nx\n 0: zz:zz yy 01", "heading\n0: 0:1 0:2 GG"].into_iter()),
            Sockets::default()
        );
    }
}
