//! A pod on every node, and questions from each of them to each, all the time: whom does it hit when something of the mesh ends, and for how
//! long?

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Env, Installed, Many, processes};

const PORT: u16 = 9080;
/// Between two questions on one path.
const EVERY: Duration = Duration::from_millis(100);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Failures that are kept in words.
const TOLD: usize = 3;

/// One pod on every node.
#[derive(Debug)]
pub struct EachNode {
    pub pods: Vec<Installed>,
}

impl EachNode {
    /// Creates them, in a namespace that is there, and waits until they run.
    ///
    /// # Errors
    /// Names what does not run.
    pub async fn installed(env: &Env, namespace: &'static str) -> Result<Self> {
        let many = Many::of(namespace)?;
        let nodes = env.cluster.node_names().await?;
        let pods = nodes.iter().map(|node| many.pod(&format!("each-{node}"), "each", Some(node)));
        many.create(env, pods.collect()).await?;
        Ok(Self { pods: many.run(env, "each", nodes.len()).await? })
    }

    /// Begins to ask on every path between them.
    ///
    /// # Errors
    /// When a pod's network cannot be entered.
    pub async fn probes(&self, env: &Env) -> Result<Probes> {
        let mut probes = Probes { enough: Arc::new(AtomicBool::new(false)), paths: Vec::new() };
        for from in &self.pods {
            let pods: Api<Pod> = Api::namespaced(env.client.clone(), &from.namespace);
            let pod = pods.get(&from.name).await.with_context(|| format!("read pod {}", from.name))?;
            let process = *processes(&pod, None)?.first().context("a pod that runs")?;
            let network = format!("/proc/{}/ns/net", process.as_raw_pid());
            for to in &self.pods {
                let network = File::open(&network).with_context(|| format!("open {network}"))?;
                let (enough, target) = (probes.enough.clone(), to.address);
                let path = Path::between(&from.node, &to.node);
                probes.paths.push(std::thread::spawn(move || ask(&network, target, path, &enough)));
            }
        }
        Ok(probes)
    }
}

/// Questions that go on until they are stopped.
#[derive(Debug)]
pub struct Probes {
    enough: Arc<AtomicBool>,
    paths: Vec<JoinHandle<Result<Path>>>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
    }
}

/// What came of the questions from the pod of one node to that of another, or of the same.
#[derive(Debug, Clone)]
pub struct Path {
    pub from: String,
    pub to: String,
    pub asked: u64,
    /// When each question that got no answer was given up.
    pub failed: Vec<Instant>,
    /// The first of them, in words.
    pub failures: Vec<String>,
}

impl Path {
    fn between(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), asked: 0, failed: Vec::new(), failures: Vec::new() }
    }

    /// Whether it begins or ends on this node.
    pub fn touches(&self, node: &str) -> bool {
        self.from == node || self.to == node
    }

    /// How long after `since` the last question failed; none if all before `until` were answered.
    pub fn outage(&self, since: Instant, until: Instant) -> Option<Duration> {
        let within = self.failed.iter().filter(|at| **at >= since && **at < until);
        within.max().map(|last| last.duration_since(since))
    }
}

impl Probes {
    /// Ends them.
    ///
    /// # Errors
    /// When a network could not be entered, or next to nothing was asked.
    pub async fn stop(mut self) -> Result<Vec<Path>> {
        self.enough.store(true, Ordering::SeqCst);
        let paths = std::mem::take(&mut self.paths);
        tokio::task::spawn_blocking(move || {
            let mut ended = Vec::new();
            for path in paths {
                let Ok(path) = path.join() else { bail!("a probe panicked") };
                let path = path?;
                ensure!(path.asked > 10, "from {} to {}: only {} questions", path.from, path.to, path.asked);
                ended.push(path);
            }
            Ok(ended)
        })
        .await?
    }
}

/// A new connection for each question: it is those that a proxy which is gone cannot take.
fn ask(network: &File, to: Ipv4Addr, mut path: Path, enough: &AtomicBool) -> Result<Path> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter a pod's network")?;
    while !enough.load(Ordering::SeqCst) {
        let start = Instant::now();
        path.asked += 1;
        if let Err(error) = once(SocketAddr::new(to.into(), PORT)) {
            path.failed.push(Instant::now());
            if path.failures.len() < TOLD {
                path.failures.push(format!("question {}: {error:#}", path.asked));
            }
        }
        std::thread::sleep(EVERY.saturating_sub(start.elapsed()));
    }
    Ok(path)
}

fn once(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: each\r\nconnection: close\r\n\r\n").context("ask")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).context("read the answer")?;
    ensure!(&answer == b"HTTP/1.1 200", "answered {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_until_the_last_failure_of_its_time() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let path = Path { failed: vec![start, after(2), after(9)], ..Path::between("n1", "n2") };
        assert_eq!(path.outage(after(1), after(5)), Some(Duration::from_secs(1)));
        assert_eq!(path.outage(after(3), after(5)), None);
        assert!(path.touches("n1") && path.touches("n2") && !path.touches("n3"));
    }
}
