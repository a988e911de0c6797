//! Memory of a node's proxy, Envoy and agent together, with 200 pods of the mesh on the node and 1,000 Services in their scope: what it takes without them,
//! for each pod, for each Service that its Envoy knows, and for each of those that its pods call.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use super::report::Report;
use crate::soak;
use crate::testing::{
    DEADLINE, Env, Installed, Many, NodeProxy, apply_yaml, are_listed, eventually, handshakes, processes,
};

/// Namespace of all of them.
pub const NAMESPACE: &str = "bench-crowd";
const PODS: usize = 200;
/// Created at a time: a kubelet starts a few at once.
const BATCH: usize = 20;
/// Pods behind each Service, and pods that have a service account in common.
const TOGETHER: usize = 2;
const ACCOUNTS: usize = 20;
const SERVICES: usize = 1000;
const GROUP: &str = "crowd";
/// Until everything has arrived and is released that was in use meanwhile.
const SETTLED: Duration = Duration::from_secs(30);
/// Each pod calls each of its Services as often, on a connection that it keeps, for so long.
const EVERY: Duration = Duration::from_secs(5);
const TALK: Duration = Duration::from_secs(60);
/// Envoy keeps connections that nobody uses for so long, and they are none of what a Service takes.
const POOLED: Duration = Duration::from_secs(60);
/// The most that a pod and a Service may take, in kB.
const POD_BAR: u32 = 100;
const SERVICE_BAR: u32 = 25;
const AT_ONCE: usize = 16;

/// Resident bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    envoy: f64,
    agent: f64,
}

impl Memory {
    async fn of(env: &Env, node: &str, what: &str, report: &mut Report) -> Result<Self> {
        tokio::time::sleep(SETTLED).await;
        let proxy = NodeProxy::of(env, node).await?;
        let memory = Self { envoy: proxy.resident("envoy")? as f64, agent: proxy.resident("agent")? as f64 };
        report.add(&format!("memory (resident) of a node's Envoy, {what}"), memory.envoy / 1e6, "MB");
        report.add(&format!("memory (resident) of a node's agent, {what}"), memory.agent / 1e6, "MB");
        let said: serde_json::Value = serde_json::from_str(&proxy.admin("/memory").await?)?;
        let in_use: f64 = said["allocated"].as_str().context("what is allocated")?.parse()?;
        report.add(&format!("memory (in use) of a node's Envoy, {what}"), in_use / 1e6, "MB");
        Ok(memory)
    }

    fn each(self, base: Self, count: usize, what: &str, report: &mut Report) {
        let (envoy, agent) = (self.envoy - base.envoy, self.agent - base.agent);
        let mut add = |of: &str, bytes: f64| {
            report.add(&format!("memory for each {what}, {of}"), bytes / count as f64 / 1e3, "kB");
        };
        add("whole node proxy", envoy + agent);
        add("of it the agent", agent);
    }
}

/// Measures it on the first node.
///
/// # Errors
/// When the pods do not run, or a Service cannot be called.
pub async fn measure(env: &Env, report: &mut Report) -> Result<()> {
    if env.cluster.context().is_some() {
        println!("memory of a node's proxy: not measured outside, processes of pods are read");
        return Ok(());
    }
    if soak::namespaces(env).get_opt(NAMESPACE).await?.is_some() {
        env.delete_namespace(NAMESPACE).await?;
    }
    Many::namespace(env, NAMESPACE, true).await?;
    let node = env.cluster.node_names().await?.into_iter().next().context("a node")?;
    anew(env, &node).await?;
    let base = Memory::of(env, &node, "base: without pods and Services", report).await?;
    let pods = pods(env, &node).await?;
    let with_pods = Memory::of(env, &node, &format!("with {PODS} pods"), report).await?;
    with_pods.each(base, PODS, &format!("of {PODS} pods (bar {POD_BAR} kB)"), report);
    let addresses = services(env, &node).await?;
    let with_services = Memory::of(env, &node, &format!("and {SERVICES} Services"), report).await?;
    let in_scope = format!("of {SERVICES} Services in scope (bar {SERVICE_BAR} kB)");
    with_services.each(with_pods, SERVICES, &format!("{in_scope}, none of which was called"), report);
    let before = handshakes(env).await?;
    let some = addresses.get(..PODS).context("a Service for each pod")?;
    let calls = talk(env, &pods, some).await?;
    tokio::time::sleep(POOLED).await;
    let called = Memory::of(env, &node, &format!("after {PODS} Services were called"), report).await?;
    called.each(with_pods, SERVICES, &format!("{in_scope}, {PODS} of which were called"), report);
    called.each(with_services, PODS, "called Service, on top of what it takes in scope", report);
    let calls = calls + talk(env, &pods, &addresses).await?;
    tokio::time::sleep(POOLED).await;
    let now = handshakes(env).await?;
    ensure!(now.get(&node) > before.get(&node), "no mutual TLS: {before:?}, then {now:?}");
    report.add("calls between them by mutual TLS", calls as f64, "calls");
    let talked = Memory::of(env, &node, "after every Service was called", report).await?;
    talked.each(with_pods, SERVICES, &format!("{in_scope}, all of which were called"), report);
    env.delete_namespace(NAMESPACE).await
}

/// Starts the node's proxy anew: what it has done before must not be in what is measured.
async fn anew(env: &Env, node: &str) -> Result<()> {
    let before = NodeProxy::of(env, node).await?.pod;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), crate::testing::MESH);
    let (name, uid) = (before.metadata.name.unwrap_or_default(), before.metadata.uid);
    pods.delete(&name, &DeleteParams::default()).await.with_context(|| format!("delete {name}"))?;
    // It ends when its connections have, after five minutes at the latest.
    eventually("another proxy of the node", DEADLINE * 3, || async {
        let now = NodeProxy::of(env, node).await.map_err(|e| format!("{e:#}"))?.pod;
        let mut conditions = now.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        if ready && now.metadata.uid != uid { Ok(()) } else { Err(format!("ready: {ready}, {name}")) }
    })
    .await?;
    soak::settled(env, true).await
}

async fn pods(env: &Env, node: &str) -> Result<Vec<Installed>> {
    let accounts = (0..ACCOUNTS).map(|account| {
        format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{ name: account-{account} }}\n---\n")
    });
    apply_yaml(&env.client, &accounts.collect::<String>(), NAMESPACE).await?;
    let many = Many::of(NAMESPACE)?;
    let pod = |number: usize| {
        let mut pod = many.pod(&format!("crowd-{number}"), GROUP, Some(node));
        pod["spec"]["serviceAccountName"] = json!(format!("account-{}", number % ACCOUNTS));
        pod["metadata"]["labels"]["app"] = json!(format!("app-{}", number / TOGETHER));
        pod
    };
    let mut run = Vec::new();
    for first in (0..PODS).step_by(BATCH) {
        let last = (first + BATCH).min(PODS);
        many.create(env, (first..last).map(pod).collect()).await?;
        run = many.run(env, GROUP, last).await?;
        println!("  {last} pods run");
    }
    are_listed(env, &run, true).await?;
    Ok(run)
}

/// Creates them, and waits until the node's Envoy has them; their addresses.
async fn services(env: &Env, node: &str) -> Result<Vec<IpAddr>> {
    let api: &Api<Service> = &Api::namespaced(env.client.clone(), NAMESPACE);
    let creating = (0..SERVICES).map(|number| async move {
        let selector = format!("app-{}", number % (PODS / TOGETHER));
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{number}")},
            "spec": {"selector": {"app": selector}, "ports": [{"name": "http", "port": 9080}]},
        });
        let service = serde_json::from_value(service).context("a Service")?;
        let created = api.create(&PostParams::default(), &service).await.context("create a Service")?;
        let address = created.spec.and_then(|spec| spec.cluster_ip).context("an address")?;
        address.parse::<IpAddr>().with_context(|| format!("address {address}"))
    });
    let addresses = stream::iter(creating).buffered(AT_ONCE).try_collect().await?;
    let proxy = NodeProxy::of(env, node).await?;
    eventually("the node's Envoy to know every Service", DEADLINE * 2, || async {
        let asked = "/config_dump?resource=dynamic_route_configs";
        let said = proxy.admin(asked).await.map_err(|e| format!("{e:#}"))?;
        // Hosts of its routes: it has clusters only of those that are called.
        let names = said.split("|service-").skip(1).filter_map(|rest| rest.split('|').next());
        match names.collect::<BTreeSet<_>>().len() {
            SERVICES => Ok(()),
            some => Err(format!("{some} of {SERVICES}")),
        }
    })
    .await?;
    Ok(addresses)
}

/// Every Service is called by one pod, again and again; gives how often all of them were.
async fn talk(env: &Env, pods: &[Installed], services: &[IpAddr]) -> Result<u64> {
    let api: Api<Pod> = Api::namespaced(env.client.clone(), NAMESPACE);
    let mut talking = Vec::new();
    for (number, installed) in pods.iter().enumerate() {
        let pod = api.get(&installed.name).await.with_context(|| format!("read {}", installed.name))?;
        let process = *processes(&pod, None)?.first().context("a pod that runs")?;
        let network = format!("/proc/{}/ns/net", process.as_raw_pid());
        let network = File::open(&network).with_context(|| format!("open {network}"))?;
        let mine: Vec<_> = services.iter().skip(number).step_by(pods.len().max(1)).copied().collect();
        talking.push(std::thread::spawn(move || call(&network, &mine)));
    }
    tokio::task::spawn_blocking(move || {
        let mut calls = 0;
        for thread in talking {
            let Ok(called) = thread.join() else { bail!("a caller panicked") };
            calls += called?;
        }
        Ok(calls)
    })
    .await?
}

fn call(network: &File, services: &[IpAddr]) -> Result<u64> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .context("enter a pod's network")?;
    let open = |service: &IpAddr| -> Result<TcpStream> {
        let to = SocketAddr::new(*service, 9080);
        let stream = TcpStream::connect_timeout(&to, EVERY).with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(EVERY * 2))?;
        Ok(stream)
    };
    let mut streams = services.iter().map(open).collect::<Result<Vec<_>>>()?;
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < TALK {
        let turn = Instant::now();
        for stream in &mut streams {
            ask(stream)?;
            calls += 1;
        }
        std::thread::sleep(EVERY.saturating_sub(turn.elapsed()));
    }
    Ok(calls)
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /details/0 HTTP/1.1\r\nhost: crowd\r\n\r\n").context("ask")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).context("read an answer")?;
        ensure!(count > 0, "closed within an answer");
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(length) = whole(&answer)? {
            ensure!(answer.len() == length, "{} bytes after an answer", answer.len() - length);
            return Ok(());
        }
    }
}

/// Bytes of the answer, if all of it is there.
fn whole(answer: &[u8]) -> Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "answered {head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    let all = end + 4 + length;
    Ok((answer.len() >= all).then_some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(whole(answer).unwrap(), Some(answer.len()));
        assert_eq!(whole(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert!(whole(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
    }
}
