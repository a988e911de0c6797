//! Network namespaces of a test's own, with the real nft and the real kernel.

mod hands;
mod rules;

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{netns::Netns, nft::Nft};

static NEXT: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(5);

/// None where namespaces cannot be made; then nothing was tested, and says so.
pub fn nft() -> Option<Nft> {
    let program = ["/usr/sbin/nft", "/sbin/nft"].into_iter().map(PathBuf::from).find(|path| path.is_file());
    let root = rustix::process::geteuid().is_root() && Path::new("/run/netns").is_dir();
    if !root || program.is_none() {
        eprintln!("no root, no /run/netns or no nft: nothing was tested in network namespaces");
        return None;
    }
    program.map(Nft::new)
}

/// A namespace, and its addresses if it is connected.
pub struct Lab {
    name: String,
    pub netns: Netns,
    pub addresses: Vec<IpAddr>,
}

impl Lab {
    /// With a loopback device only.
    pub fn new() -> Self {
        let name = format!("mwlab-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&["netns", "add", &name]);
        run(&["-n", &name, "link", "set", "lo", "up"]);
        let netns = Netns::open(&Path::new("/run/netns").join(&name)).unwrap();
        Self { name, netns, addresses: Vec::new() }
    }

    /// Two, with a wire between them.
    pub fn pair() -> [Self; 2] {
        let mut labs = [Self::new(), Self::new()];
        let [one, other] = labs.each_ref().map(|lab| lab.name.clone());
        run(&["link", "add", "eth0", "netns", &one, "type", "veth", "peer", "name", "eth0", "netns", &other]);
        for (lab, host) in labs.iter_mut().zip(1..) {
            for address in [format!("10.77.0.{host}/24"), format!("fd77::{host}/64")] {
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                run(&[&["-n", &lab.name, "addr", "add", &address, "dev", "eth0"], nodad].concat());
                lab.addresses.push(address.split('/').next().unwrap().parse().unwrap());
            }
            run(&["-n", &lab.name, "link", "set", "eth0", "up"]);
        }
        // Until then packets are lost, and sent again only after a second.
        let end = std::time::Instant::now() + PATIENCE;
        while !labs.iter().all(|lab| run(&["-n", &lab.name, "link", "show", "eth0"]).contains("state UP")) {
            assert!(std::time::Instant::now() < end, "the wire never carries anything");
        }
        labs
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Says its name and then everything back, on this port.
    pub fn serves(&self, port: u16, name: &'static str) {
        let listener = self.netns.within(|| Ok(TcpListener::bind(("::", port))?)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    stream.write_all(&[name.as_bytes(), b"\n"].concat())?;
                    loop {
                        match stream.read(&mut buffer)? {
                            0 => return Ok::<_, std::io::Error>(()),
                            count => stream.write_all(&buffer[..count])?,
                        }
                    }
                });
            }
        });
    }

    /// Answers HTTP with its name, on this port.
    pub fn answers(&self, port: u16, name: &'static str) {
        let listener = self.netns.within(|| Ok(TcpListener::bind(("::", port))?)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let (mut request, mut byte) = (Vec::new(), [0]);
                    while stream.read(&mut byte)? == 1 {
                        request.extend(byte);
                        if request.ends_with(b"\r\n\r\n") {
                            request.clear();
                            let length = name.len();
                            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}")?;
                        }
                    }
                    Ok::<_, std::io::Error>(())
                });
            }
        });
    }

    /// Has a way to every address, as pods do.
    pub fn routes_everything(&self) {
        run(&["-n", &self.name, "route", "add", "default", "dev", "eth0"]);
    }

    /// Has its way to every address through another, as pods through their node.
    pub fn routes_through(&self, node: &Self) {
        for address in &node.addresses {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            run(&["-n", &self.name, family, "route", "add", "default", "via", &address.to_string()]);
        }
    }

    /// Another one behind this node, which has this address too and sends everything there.
    pub fn client(&self, address: std::net::Ipv4Addr) -> Self {
        let client = Self::new();
        let (own, node) = (&client.name, &self.name);
        run(&["link", "add", "eth0", "netns", own, "type", "veth", "peer", "name", "eth1", "netns", node]);
        run(&["-n", own, "addr", "add", &format!("{address}/32"), "dev", "eth0"]);
        run(&["-n", own, "addr", "add", "10.78.0.2/24", "dev", "eth0"]);
        run(&["-n", node, "addr", "add", "10.78.0.1/24", "dev", "eth1"]);
        run(&["-n", own, "link", "set", "eth0", "up"]);
        run(&["-n", node, "link", "set", "eth1", "up"]);
        run(&["-n", own, "route", "add", "default", "via", "10.78.0.1"]);
        run(&["-n", node, "route", "add", &format!("{address}/32"), "dev", "eth1"]);
        let forwards = || Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?);
        self.netns.within(forwards).unwrap();
        client
    }

    /// Who answers one that comes from this address.
    pub fn reaches_from(&self, source: IpAddr, address: IpAddr, port: u16) -> String {
        let connected = self.netns.within(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            let target = SocketAddr::from((address, port));
            Ok(socket.connect_timeout(&target.into(), Duration::from_millis(700)).map(|()| socket))
        });
        match connected.unwrap() {
            Ok(socket) => Talk(socket.into()).greeting(),
            Err(e) => e.kind().to_string(),
        }
    }

    /// Connects from here, with a mark if there is one.
    pub fn connect(&self, address: IpAddr, port: u16, mark: u32) -> std::io::Result<Talk> {
        let connected = self.netns.within(|| {
            let target = SocketAddr::from((address, port));
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(target), socket2::Type::STREAM, None)?;
            socket.set_mark(mark)?;
            Ok(socket
                .connect_timeout(&target.into(), Duration::from_millis(700))
                .map(|()| TcpStream::from(socket)))
        });
        let stream = connected.unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Talk(stream))
    }

    /// Who answers, without more.
    pub fn reaches(&self, address: IpAddr, port: u16, mark: u32) -> String {
        match self.connect(address, port, mark) {
            Ok(mut talk) => talk.greeting(),
            Err(e) => e.kind().to_string(),
        }
    }

    pub fn nft(&self, command: &str) {
        self.netns
            .within(|| {
                assert!(Command::new("nft").args(command.split(' ')).status()?.success());
                Ok(())
            })
            .unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A connection.
pub struct Talk(TcpStream);

impl Talk {
    /// Who is at the other end.
    pub fn greeting(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.0.read(&mut byte).is_ok_and(|count| count == 1) && byte != *b"\n" {
            line.extend(byte);
        }
        String::from_utf8(line).unwrap()
    }

    /// Whether it still says everything back.
    pub fn lives(&mut self) -> bool {
        let mut back = [0; 4];
        self.0.write_all(b"ping").is_ok() && self.0.read_exact(&mut back).is_ok() && back == *b"ping"
    }
}

fn run(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
