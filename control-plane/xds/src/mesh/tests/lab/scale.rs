//! Memory of a node's Envoy with many pods and Services that talk to each other. It takes minutes, so it runs on request only, with two workers:
//! `MEASURE=1 cargo test -p meshwright-xds --lib lab::scale -- --ignored --nocapture`.

use std::collections::BTreeMap;

use super::crowd::{Crowd, address};
use super::*;

const PODS_OF_NODE: usize = 200;
const SERVICES: usize = 1000;
/// Pods behind each Service.
const ENDPOINTS: usize = 2;
/// For what Envoy does when its main thread finds the time.
const SETTLED: Duration = Duration::from_secs(6);
/// Pooled connections end after a minute without a request.
const IDLE: Duration = Duration::from_secs(70);
/// Of a node's Envoy, in bytes.
const PER_POD: f64 = 100_000.0;
const PER_SERVICE: f64 = 25_000.0;

/// Resident, and allocated in it, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: f64,
    allocated: f64,
}

impl Memory {
    async fn of(envoy: &Envoy, what: &str) -> Self {
        tokio::time::sleep(SETTLED).await;
        let said = envoy.ask("/memory").await.unwrap();
        let allocated = said.split("\"allocated\": \"").nth(1).and_then(|rest| rest.split('"').next());
        let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        let memory = Self {
            resident: resident.unwrap().parse::<f64>().unwrap() * 1024.0,
            allocated: allocated.unwrap().parse().unwrap(),
        };
        println!(
            "{what}: {:.1} MB resident, {:.1} MB allocated",
            memory.resident / 1e6,
            memory.allocated / 1e6
        );
        memory
    }

    fn above(self, base: Self, what: &str, count: usize) -> Self {
        let each = |now: f64, before: f64| (now - before) / count as f64;
        let each = Self {
            resident: each(self.resident, base.resident),
            allocated: each(self.allocated, base.allocated),
        };
        println!(
            "  for each of {count} {what}: {:.1} kB resident, {:.1} kB allocated",
            each.resident / 1e3,
            each.allocated / 1e3
        );
        each
    }
}

/// Each pod has an account of its own: the most certificates and TLS contexts that can be.
fn world(pods: usize, services: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for pod in 0..pods {
        cluster = cluster.pod("n1", &format!("m{pod}"), &[&address(pod)]);
    }
    for service in 0..services {
        let endpoints: Vec<_> = (0..ENDPOINTS).map(|n| address((service + 7 * n + 1) % pods)).collect();
        let endpoints: Vec<_> = endpoints.iter().map(|address| (address.as_str(), 8080)).collect();
        let name = format!("service-{service}");
        cluster = cluster.service(&name, &[&virtual_address(service)], 80, Protocol::Http, &endpoints);
    }
    cluster
}

fn virtual_address(service: usize) -> String {
    format!("10.88.{}.{}", service / 200, service % 200 + 1)
}

/// Every Service is called by one pod, on a connection that stays open.
async fn talk(crowd: &Crowd) -> Vec<tokio::net::TcpStream> {
    let mut open = Vec::new();
    for service in 0..SERVICES {
        let to = format!("{}:80", virtual_address(service));
        let mut stream = crowd.pod(service % PODS_OF_NODE).connect(&to).await.unwrap();
        for _ in 0..3 {
            let (head, _) = client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{to}: {head}");
        }
        open.push(stream);
    }
    open
}

#[ignore = "takes minutes, and as many network namespaces as pods"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_and_services_take_little_memory() {
    if let Some(obstacle) = obstacle() {
        return eprintln!("{obstacle}: nothing was measured");
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let crowd = Crowd::new(&format!("mwlab-s{}", std::process::id()), PODS_OF_NODE);
    let authority = Authority::new();
    let accounts = (0..PODS_OF_NODE).map(|pod| format!("m{pod}"));
    let paths: BTreeMap<_, _> = crowd.paths().collect();
    let node = Node::start_with("n1", directory.path(), &authority, paths, |_| {})
        .with_accounts(&authority, accounts);
    let shared = Shared::new(TRUST_DOMAIN);
    let (empty, pods, all) = (Cluster::default(), world(PODS_OF_NODE, 0), world(PODS_OF_NODE, SERVICES));

    node.publish(&shared, &empty.mesh);
    let envoy = Envoy::start(&crowd.node(), directory.path(), &node);
    envoy.is_ready().await;
    let base = Memory::of(&envoy, "an empty node").await;

    let shared = shared.next(&pods.mesh);
    node.publish(&shared, &pods.mesh);
    until("the last pod's listener", async || {
        crowd.pod(PODS_OF_NODE - 1).connect("127.0.0.1:15108").await.ok().map(drop)
    })
    .await;
    let with_pods = Memory::of(&envoy, "with pods").await;
    let pod = with_pods.above(base, "pods", PODS_OF_NODE);

    let shared = shared.next(&all.mesh);
    node.publish(&shared, &all.mesh);
    let with_services = Memory::of(&envoy, "with Services").await;
    with_services.above(with_pods, "Services", SERVICES);

    let open = talk(&crowd).await;
    let talking = Memory::of(&envoy, "every Service called, its connection open").await;
    talking.above(with_services, "connections", SERVICES);
    drop(open);
    let closed = Memory::of(&envoy, "those connections closed").await;
    closed.above(with_services, "Services that were called", SERVICES);
    tokio::time::sleep(IDLE).await;
    let idle = Memory::of(&envoy, "a minute later").await;
    let service = idle.above(with_pods, "Services that were called", SERVICES);
    println!("{} statistics", envoy.ask("/stats").await.unwrap().lines().count());
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    assert!(pod.resident <= PER_POD, "a pod takes {} bytes", pod.resident);
    assert!(service.resident <= PER_SERVICE, "a Service takes {} bytes", service.resident);
}
