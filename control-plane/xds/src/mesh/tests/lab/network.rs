//! Namespaces for pods and nodes, a bridge between them, and the redirection that an agent would set.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};

use super::{PODS, application};
use crate::mesh::tests::PORTS;

/// All of them. They go with it.
pub struct Network {
    id: String,
    namespaces: BTreeMap<String, Namespace>,
}

/// One, that is removed with this.
pub struct Namespace {
    name: String,
}

impl Network {
    pub fn new(id: &str) -> Self {
        let mut network = Self { id: id.to_owned(), namespaces: BTreeMap::new() };
        let bridge = network.add("wire");
        run("ip", &["-n", &bridge, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &bridge, "link", "set", "br0", "up"]);
        for (name, host) in [("n1", 1), ("n2", 2)] {
            network.attach(name, &bridge, host);
        }
        network.add("blackhole");
        for (account, node, host) in PODS {
            network.attach(account, &bridge, host);
            application::start(network.pod(account));
            if !node.is_empty() {
                network.pod(account).nft(&redirection());
            }
        }
        network
    }

    fn add(&mut self, name: &str) -> String {
        let full = format!("{}-{name}", self.id);
        run("ip", &["netns", "add", &full]);
        self.namespaces.insert(name.to_owned(), Namespace { name: full.clone() });
        full
    }

    fn attach(&mut self, name: &str, bridge: &str, host: u8) {
        let full = self.add(name);
        let ip = |args: &str| run("ip", &[&["-n", &full], &args.split(' ').collect::<Vec<_>>()[..]].concat());
        let port = format!("to-{name}");
        run(
            "ip",
            &["link", "add", "eth0", "netns", &full, "type", "veth", "peer", "name", &port, "netns", bridge],
        );
        run("ip", &["-n", bridge, "link", "set", &port, "master", "br0", "up"]);
        ip(&format!("addr add 10.77.0.{host}/24 dev eth0"));
        ip(&format!("addr add fd77::{host}/64 dev eth0 nodad"));
        ip("link set eth0 up");
        ip("link set lo up");
        // Addresses of Services have no route of their own.
        ip("route add default dev eth0");
        ip("-6 route add default dev eth0");
    }

    pub fn pod(&self, account: &str) -> &Namespace {
        &self.namespaces[account]
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.namespaces[name].path()
    }

    /// What an agent puts in the place of a placeholder.
    pub fn path_of(&self, placeholder: &str) -> PathBuf {
        let name = placeholder.strip_prefix("pod:uid-").unwrap_or(placeholder);
        self.namespaces[name].path()
    }
}

impl Namespace {
    /// One that is there already.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// The same one.
    pub fn other(&self) -> Self {
        Self::named(&self.name)
    }

    /// Has this address as well, with the length of its prefix.
    pub fn has_address(&self, address: &str) {
        run("ip", &["-n", &self.name, "addr", "add", address, "dev", "lo"]);
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Does something in it, in a thread of its own.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&self.path(), act)
    }

    pub async fn connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let stream = self.within(|| {
            std::net::TcpStream::connect_timeout(&address.parse().unwrap(), std::time::Duration::from_secs(5))
        })?;
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }

    pub fn listen(&self, port: u16) -> TcpListener {
        let listener = self.within(|| std::net::TcpListener::bind(("::", port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    pub fn nft(&self, script: &str) {
        let mut nft = Command::new("nsenter");
        nft.arg(format!("--net={}", self.path().display())).args(["nft", script]);
        assert!(nft.status().unwrap().success(), "{script}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Does something in a namespace, in a thread of its own.
pub fn within<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(path).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// As the agent redirects: new connections only, Envoy's own by their mark not, and a pod that calls itself by an output rule.
pub fn redirection() -> String {
    let (outbound, inbound) = (PORTS.outbound, PORTS.inbound);
    let new = "tcp flags & (fin | syn | rst | ack) == syn";
    format!(
        "table inet lab {{
            chain output {{ type nat hook output priority -100;
                oifname \"lo\" meta mark 0x539 tcp dport 15008 {new} redirect to :{inbound}
                meta mark 0x539 return
                oifname \"lo\" return
                {new} redirect to :{outbound}
            }}
            chain prerouting {{ type nat hook prerouting priority -100;
                tcp dport 15008 {new} redirect to :{inbound}
            }}
        }}"
    )
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
