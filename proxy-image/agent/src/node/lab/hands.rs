//! What is done in a namespace when a pod begins to refuse plaintext.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};

use socket2::{Domain, Socket, Type};

use super::{Lab, Talk, nft};
use crate::node::{
    claim::Claims,
    hands::Hands,
    keep::{Task, pod::Job},
    rules::{Guard, MARK, Ports},
    takers::Takers,
    wallet::Wallet,
};

const PORTS: Ports = Ports { outbound: 15101, inbound: 15108 };

struct Stage {
    hands: Hands,
    pod: Lab,
    peer: Lab,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Option<Self> {
        let nft = nft()?;
        let folder = tempfile::tempdir().unwrap();
        let claims = Arc::new(Claims::open(folder.path(), "mesh-1").unwrap());
        assert!(claims.take(1, false).unwrap());
        let hands = Hands { nft, claims, ports: PORTS, wallet: Wallet::default(), takers: Takers::default() };
        let [pod, peer] = Lab::pair();
        pod.serves(PORTS.outbound, "proxy");
        pod.serves(PORTS.inbound, "proxy");
        peer.serves(9000, "app");
        Some(Self { hands, pod, peer, _folder: folder })
    }

    /// Under Strict.
    fn perform(&self, job: Job) {
        let task = Task {
            uid: "u1".to_owned(),
            namespace: self.pod.path(),
            job: (job, 1),
            ports: [PORTS.outbound, PORTS.inbound].into(),
            redirected: true,
            guard: Guard { refused: true, ..Guard::default() },
            identity: String::new(),
        };
        assert_eq!(self.hands.perform(&task).unwrap(), 0);
    }

    fn listens(&self, address: &str, port: u16) -> TcpListener {
        let address: IpAddr = address.parse().unwrap();
        self.pod.netns.within(|| Ok(TcpListener::bind((address, port))?)).unwrap()
    }

    /// A connection of the pod to the other one, from this port.
    fn opens(&self, port: u16, mark: u32) -> Talk {
        let (own, far) = (self.pod.addresses[0], SocketAddr::from((self.peer.addresses[0], 9000)));
        let connect = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_mark(mark)?;
            socket.bind(&SocketAddr::from((own, port)).into())?;
            socket.connect(&far.into())?;
            Ok(TcpStream::from(socket))
        };
        let mut talk = Talk(self.pod.netns.within(connect).unwrap());
        assert_eq!(talk.greeting(), if mark == MARK { "app" } else { "proxy" });
        talk
    }
}

#[test]
fn what_was_accepted_ends_also_where_nobody_listens_any_more() {
    let Some(stage) = Stage::new() else { return };
    for (job, to) in [Job::Redirect, Job::Guard].into_iter().zip(stage.pod.addresses.clone()) {
        let listener = stage.listens("::", 9001);
        let _talk = stage.peer.connect(to, 9001, 0).unwrap();
        let mut accepted = listener.accept().unwrap().0;
        accepted.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stage.perform(Job::Refuse);
        drop(listener);
        stage.perform(job);
        stage.perform(Job::Cut);
        let ended = accepted.read(&mut [0]).unwrap_err().kind();
        assert_eq!(ended, std::io::ErrorKind::ConnectionAborted, "{to}");
        assert!(stage.hands.takers.of(&stage.pod.path()).is_empty());
        stage.pod.nft("flush ruleset");
    }
}

/// Envoy's are marked.
#[test]
fn what_the_pod_opens_is_never_ended_from_whichever_port() {
    let Some(stage) = Stage::new() else { return };
    drop([stage.listens("::", 41231), stage.listens("0.0.0.0", 41232)]);
    let [first, second] = [stage.listens("::", 41233), stage.listens("0.0.0.0", 41234)];
    let _loopback = stage.listens("127.0.0.1", 41235);
    stage.perform(Job::Redirect);
    drop((first, second));
    let mut all: Vec<_> = (41231..=41235).map(|port| stage.opens(port, 0)).collect();
    all.push(stage.opens(41236, MARK));
    let _later = stage.listens("::", 41236);
    for job in [Job::Cut, Job::Check, Job::Cut, Job::Guard, Job::Cut] {
        stage.perform(job);
        let lives: Vec<_> = all.iter_mut().map(Talk::lives).collect();
        assert_eq!(lives, [true; 6], "{job:?}");
    }
}
