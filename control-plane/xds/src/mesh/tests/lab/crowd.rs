//! Many pods of one node: a namespace for each, joined by a bridge, with an application that listens and the redirection of members.

use std::io::Write;
use std::process::{Command, Stdio};

use super::application;
use super::network::{Namespace, redirection};

/// They go with this.
pub struct Crowd {
    id: String,
    pods: Vec<Namespace>,
    /// What they are joined by, where the node's Envoy is, and where nobody is.
    _more: Vec<Namespace>,
}

impl Crowd {
    /// So many, at most 240.
    pub fn new(id: &str, count: usize) -> Self {
        let place = |name: &str| Namespace::named(&format!("{id}-{name}"));
        let pods: Vec<_> = (0..count).map(|pod| place(&format!("m{pod}"))).collect();
        let crowd =
            Self { id: id.to_owned(), pods, _more: Vec::from(["wire", "n1", "blackhole"].map(place)) };
        let names = (0..count).map(|pod| format!("m{pod}"));
        let names = names.chain(["wire", "n1", "blackhole"].map(str::to_owned));
        ip(&[], &names.map(|name| format!("netns add {id}-{name}\n")).collect::<String>());
        let wire = format!("{id}-wire");
        ip(&["-n", &wire], "link add br0 type bridge\nlink set br0 up\n");
        for pod in 0..count {
            let ends = format!("link add eth0 type veth peer name to-{pod} netns {wire}\n");
            let address = format!("addr add {}/24 dev eth0\n", address(pod));
            let up = "link set eth0 up\nlink set lo up\nroute add default dev eth0\n";
            ip(&["-n", &format!("{id}-m{pod}")], &[&ends, &address, up].concat());
        }
        let joined = (0..count).map(|pod| format!("link set to-{pod} master br0 up\n"));
        ip(&["-n", &wire], &joined.collect::<String>());
        for pod in &crowd.pods {
            application::start(pod);
            pod.nft(&redirection());
        }
        crowd
    }

    pub fn pod(&self, number: usize) -> &Namespace {
        &self.pods[number]
    }

    /// Where the agent would find what a placeholder stands for.
    pub fn paths(&self) -> impl Iterator<Item = (String, String)> {
        let path = |name: &str| format!("/run/netns/{}-{name}", self.id);
        let pods = (0..self.pods.len()).map(move |pod| (format!("pod:uid-m{pod}"), path(&format!("m{pod}"))));
        pods.chain([("blackhole".to_owned(), path("blackhole"))])
    }

    /// Of the node's own network.
    pub fn node(&self) -> std::path::PathBuf {
        format!("/run/netns/{}-n1", self.id).into()
    }
}

/// Of a pod.
pub fn address(pod: usize) -> String {
    format!("10.77.0.{}", pod + 10)
}

fn ip(arguments: &[&str], lines: &str) {
    let mut child =
        Command::new("ip").args(arguments).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip {arguments:?} -batch:\n{lines}");
}
