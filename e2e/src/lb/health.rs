//! Which nodes answer, by asking their kube-proxies: a node that is gone is seen in a second, long before the
//! controller manager calls it NotReady.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::layout::Layout;

const PERIOD: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(400);
/// kube-proxy's health port.
const PORT: u16 = 10256;

pub struct Nodes {
    nodes: Vec<(Ipv4Addr, watch::Receiver<bool>)>,
}

impl Nodes {
    /// Asks every node from now on; at first all count as living.
    pub fn watch(layout: &Layout) -> Self {
        let nodes = layout.nodes().into_iter().map(|node| {
            let (sender, receiver) = watch::channel(true);
            tokio::spawn(async move {
                let mut failures = 0_u8;
                loop {
                    failures = if healthy(node.ip, PORT).await { 0 } else { failures.saturating_add(1) };
                    // One slow answer is no reason to move routes under live connections.
                    if sender.send(failures < 2).is_err() {
                        return;
                    }
                    tokio::time::sleep(PERIOD).await;
                }
            });
            (node.ip, receiver)
        });
        Self { nodes: nodes.collect() }
    }

    pub fn live(&self) -> Vec<Ipv4Addr> {
        self.nodes.iter().filter(|(_, live)| *live.borrow()).map(|(ip, _)| *ip).collect()
    }

    /// Those of `nodes` that answer on a Service's health check port.
    pub async fn answering(&self, nodes: &[Ipv4Addr], port: i32) -> Vec<Ipv4Addr> {
        let Ok(port) = u16::try_from(port) else { return Vec::new() };
        let answers = futures::future::join_all(nodes.iter().map(|ip| healthy(*ip, port))).await;
        nodes.iter().zip(answers).filter(|(_, healthy)| *healthy).map(|(ip, _)| *ip).collect()
    }
}

async fn healthy(ip: Ipv4Addr, port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect((ip, port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head.ends_with(b" 200"))
    };
    matches!(tokio::time::timeout(TIMEOUT, ask).await, Ok(Ok(true)))
}
