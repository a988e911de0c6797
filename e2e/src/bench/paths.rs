//! What the mesh adds to a request between pods of two nodes: time, and processor time of proxies. Against no mesh, and against two Envoys that
//! are configured by hand, all with the same client and the same server's program, in turns.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;

use super::percentile::percentile;
use super::report::Report;
use super::shot::{Carried, Shot, shoot};
use super::static_envoys::{self, Pair};
use crate::product::Dist;
use crate::soak;
use crate::testing::{
    DEADLINE, Env, Installed, Many, NodeProxy, apply_yaml, are_listed, eventually, handshakes, processes,
    used,
};

/// Namespace of client and server in the mesh.
pub const INSIDE: &str = "bench-inside";
/// Namespace of client and server outside, and of the Envoys between them.
pub const OUTSIDE: &str = "bench-outside";
/// Of load on one path at a time.
const TIME: Duration = Duration::from_secs(10);
/// Each path's turns; the median of them counts.
const ROUNDS: usize = 5;
/// Before them, so that connections, caches and clusters are there.
const WARMING: Duration = Duration::from_secs(2);
/// How much the mesh may add for each that the Envoys by hand add.
const BAR: f64 = 1.2;
const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: server }
spec:
  selector: { app: server }
  ports:
  - { name: http, port: 9080 }
  - { name: tcp-raw, port: 9081, targetPort: 9080 }
";

/// What is asked for, over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Tcp];

    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Tcp => "raw TCP",
        }
    }

    /// To what is told to be TCP the client speaks HTTP/1: nobody between reads it.
    fn carried(self) -> Carried {
        if self == Self::Http2 { Carried::Http2 } else { Carried::Http1 }
    }
}

/// A way from client to server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Plain,
    Mesh,
    /// Two Envoys by hand; for HTTP both read it.
    ByHand,
    /// The same, and the second one hands on what it does not read, which is the least that can be done.
    Lean,
}

impl Way {
    const ALL: [Self; 4] = [Self::Plain, Self::Mesh, Self::ByHand, Self::Lean];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "no mesh",
            Self::Mesh => "mesh",
            Self::ByHand => "two Envoys by hand",
            Self::Lean => "two Envoys by hand, HTTP in the first only",
        }
    }
}

/// Where everything is.
struct Stage {
    /// Processes in the networks of the clients, inside and outside.
    clients: [i32; 2],
    services: [IpAddr; 2],
    sender: IpAddr,
    /// Pods of the Envoys by hand.
    by_hand: [Pod; 2],
    nodes: [String; 2],
}

/// Processor time of proxies, in seconds: of the mesh's on both nodes, and of those by hand.
#[derive(Debug, Clone, Copy)]
struct Used {
    mesh: f64,
    by_hand: f64,
}

/// Measures every way with every protocol.
///
/// # Errors
/// When something does not run, or a request fails.
pub async fn measure(env: &Env, dist: &Dist, report: &mut Report) -> Result<()> {
    if env.cluster.context().is_some() {
        println!("what the mesh adds to requests: not measured outside, processes of pods are read");
        return Ok(());
    }
    soak::settled(env, true).await?;
    let stage = Stage::installed(env, dist).await?;
    let mut shots = Shots::new();
    for round in 0..=ROUNDS {
        for protocol in Protocol::ALL {
            for way in Way::ALL.into_iter().filter(|way| protocol != Protocol::Tcp || *way != Way::Lean) {
                if round == 0 {
                    let (process, to) = stage.ends(protocol, way);
                    // Whatever comes of it: what fails now fails again.
                    let _ = shoot(env, process, to, protocol.carried(), WARMING).await;
                    continue;
                }
                shots.entry((protocol, way)).or_default().push(stage.shot(env, protocol, way).await?);
            }
        }
        println!("  round {round} of {ROUNDS}");
    }
    for protocol in Protocol::ALL {
        reported(protocol, &shots, report)?;
    }
    for namespace in [INSIDE, OUTSIDE] {
        env.delete_namespace(namespace).await?;
    }
    Ok(())
}

impl Stage {
    async fn installed(env: &Env, dist: &Dist) -> Result<Self> {
        let nodes = env.cluster.node_names().await?;
        let (here, there) = match nodes.as_slice() {
            [here, there, ..] => (here.clone(), there.clone()),
            _ => anyhow::bail!("two nodes are needed, there is {nodes:?}"),
        };
        let inside = Self::pair(env, INSIDE, &here, &there, true).await?;
        let outside = Self::pair(env, OUTSIDE, &here, &there, false).await?;
        are_listed(env, &inside, true).await?;
        let image = dist.images.releases.last().context("a release")?.proxy.reference.clone();
        let pair = Pair::new()?;
        let application = SocketAddr::new(outside[1].address.into(), 9080);
        let receiver = started(env, "receiver", &there, &image, &pair.receiver(application)).await?;
        let to = receiver.address.into();
        let sender = started(env, "sender", &here, &image, &pair.sender(to)).await?;
        let stage = Self {
            clients: [process(env, &inside[0]).await?, process(env, &outside[0]).await?],
            services: [address(env, INSIDE).await?, address(env, OUTSIDE).await?],
            sender: sender.address.into(),
            by_hand: [pod(env, &sender).await?, pod(env, &receiver).await?],
            nodes: [here, there],
        };
        stage.speaks_mutual_tls(env).await?;
        Ok(stage)
    }

    /// Client and server on different nodes, and a Service before the server.
    async fn pair(
        env: &Env,
        namespace: &'static str,
        here: &str,
        there: &str,
        member: bool,
    ) -> Result<[Installed; 2]> {
        if soak::namespaces(env).get_opt(namespace).await?.is_some() {
            env.delete_namespace(namespace).await?;
        }
        Many::namespace(env, namespace, member).await?;
        apply_yaml(&env.client, SERVICE, namespace).await?;
        let many = Many::of(namespace)?;
        let pods = [("client", here), ("server", there)];
        let pods = pods.map(|(name, node)| many.pod(name, "pair", Some(node)));
        many.create(env, pods.to_vec()).await?;
        let run = many.run(env, "pair", 2).await?;
        run.try_into().map_err(|other| anyhow::anyhow!("not two pods: {other:?}"))
    }

    /// What is called the way of the mesh must be that.
    async fn speaks_mutual_tls(&self, env: &Env) -> Result<()> {
        eventually("mutual TLS between client and server in the mesh", DEADLINE, || async {
            let asked = async {
                let before = handshakes(env).await?;
                let (process, to) = self.ends(Protocol::Http1, Way::Mesh);
                shoot(env, process, to, Carried::Http1, Duration::from_secs(1)).await?;
                let now = handshakes(env).await?;
                Ok::<_, anyhow::Error>((before, now))
            };
            let (before, now) = asked.await.map_err(|e| format!("{e:#}"))?;
            let there = &self.nodes[1];
            if now.get(there) > before.get(there) { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
        })
        .await
    }

    fn ends(&self, protocol: Protocol, way: Way) -> (i32, SocketAddr) {
        let [inside, outside] = self.clients;
        let service = if protocol == Protocol::Tcp { 9081 } else { 9080 };
        let by_hand = match (protocol, way) {
            (Protocol::Tcp, _) => static_envoys::TCP,
            (_, Way::Lean) => static_envoys::LEAN,
            _ => static_envoys::HTTP,
        };
        match way {
            Way::Plain => (outside, SocketAddr::new(self.services[1], service)),
            Way::Mesh => (inside, SocketAddr::new(self.services[0], service)),
            Way::ByHand | Way::Lean => (outside, SocketAddr::new(self.sender, by_hand)),
        }
    }

    /// One turn of a way. Again where it failed, at most twice: others use this machine, too.
    async fn shot(&self, env: &Env, protocol: Protocol, way: Way) -> Result<(Shot, Used)> {
        let mut tries = 0;
        loop {
            let before = self.used(env).await?;
            let (process, to) = self.ends(protocol, way);
            let shot = shoot(env, process, to, protocol.carried(), TIME).await;
            let after = self.used(env).await?;
            let used = Used { mesh: after.mesh - before.mesh, by_hand: after.by_hand - before.by_hand };
            match shot {
                Ok(shot) => return Ok((shot, used)),
                Err(error) if tries < 2 => {
                    println!("  again, {}, {}: {error:#}", protocol.name(), way.name());
                    tries += 1;
                }
                Err(error) => return Err(error.context(format!("{}, {}", protocol.name(), way.name()))),
            }
        }
    }

    async fn used(&self, env: &Env) -> Result<Used> {
        let mut all = Used { mesh: 0.0, by_hand: 0.0 };
        for node in &self.nodes {
            all.mesh += NodeProxy::of(env, node).await?.used("envoy")?.as_secs_f64();
        }
        for pod in &self.by_hand {
            all.by_hand += used(&processes(pod, None)?)?.as_secs_f64();
        }
        Ok(all)
    }
}

async fn started(
    env: &Env,
    name: &'static str,
    node: &str,
    image: &str,
    config: &serde_json::Value,
) -> Result<Installed> {
    let yaml = static_envoys::pod(name, node, image, config)?;
    apply_yaml(&env.client, &yaml, OUTSIDE).await?;
    let run = Many::of(OUTSIDE)?.run(env, name, 1).await?;
    run.into_iter().next().with_context(|| format!("pod {name}"))
}

async fn pod(env: &Env, installed: &Installed) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), &installed.namespace);
    pods.get(&installed.name).await.with_context(|| format!("read pod {}", installed.name))
}

async fn process(env: &Env, installed: &Installed) -> Result<i32> {
    let found = processes(&pod(env, installed).await?, None)?;
    Ok(found.first().with_context(|| format!("a process of {}", installed.name))?.as_raw_pid())
}

async fn address(env: &Env, namespace: &str) -> Result<IpAddr> {
    let services = env.api("v1", "Service", "services", namespace);
    let service = services.get("server").await.context("read Service server")?;
    let address = service.data.pointer("/spec/clusterIP").and_then(|ip| ip.as_str()).context("an address")?;
    address.parse().with_context(|| format!("address {address}"))
}

type Shots = BTreeMap<(Protocol, Way), Vec<(Shot, Used)>>;
type Value = fn(&(Shot, Used)) -> f64;

fn reported(protocol: Protocol, shots: &Shots, report: &mut Report) -> Result<()> {
    let of = |way: Way, value: &dyn Fn(&(Shot, Used)) -> f64| -> Option<f64> {
        let values: Vec<f64> = shots.get(&(protocol, way))?.iter().map(value).collect();
        percentile(&values, 50.0)
    };
    let name = protocol.name();
    let percentiles: [(&str, Value); 2] = [("p50", |one| one.0.p50), ("p99", |one| one.0.p99)];
    for (what, value) in percentiles {
        let plain = of(Way::Plain, &value).context("no shot")?;
        report.add(&format!("{name}, {what} of requests, no mesh"), plain * 1e6, "µs");
        let added = |way: Way| of(way, &value).map(|with| (with - plain) * 1e6);
        compared(&format!("{name}, added to {what}"), "µs", added, report);
    }
    // Proxies have more to do than these requests, also while nobody asks through them.
    let idle = |value: &dyn Fn(&(Shot, Used)) -> f64| of(Way::Plain, value).context("no shot");
    let (mesh_idle, by_hand_idle) = (idle(&|one| one.1.mesh)?, idle(&|one| one.1.by_hand)?);
    let spent = |way: Way| match way {
        Way::Mesh => of(way, &|(shot, used)| (used.mesh - mesh_idle) / shot.requests * 1e6),
        _ => of(way, &|(shot, used)| (used.by_hand - by_hand_idle) / shot.requests * 1e6),
    };
    compared(&format!("{name}, CPU of proxies for 1,000 requests"), "ms", spent, report);
    report.add(
        &format!("{name}, CPU of the node proxies while nobody asks through them, a second"),
        mesh_idle / TIME.as_secs_f64() * 1000.0,
        "ms",
    );
    Ok(())
}

/// Says what each way costs, and how much the mesh costs for each that those by hand do.
fn compared(what: &str, unit: &str, cost: impl Fn(Way) -> Option<f64>, report: &mut Report) {
    for way in [Way::Mesh, Way::ByHand, Way::Lean] {
        let Some(value) = cost(way) else { continue };
        report.add(&format!("{what}, {}", way.name()), value, unit);
    }
    for way in [Way::ByHand, Way::Lean] {
        let (Some(mesh), Some(other)) = (cost(Way::Mesh), cost(way)) else { continue };
        report.add(&format!("{what}, mesh to {} (bar {BAR})", way.name()), mesh / other, "ratio");
    }
}
