//! Memory of a node's Envoy with many pods and Services that talk to each other. It takes minutes, so it runs on request only, with two workers:
//! `MEASURE=1 cargo test -p meshwright-xds --lib lab::scale -- --ignored --nocapture`. With `EVERYTHING=1` Envoy has all clusters from the start.

use std::collections::BTreeMap;
use std::ops::Range;

use envoy_types::pb::envoy::config::cluster::v3::Cluster as EnvoyCluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::util::pack_any;

use super::crowd::{Crowd, address};
use super::*;
use crate::envoy::common::duration;

const PODS_OF_NODE: usize = 200;
const SERVICES: usize = 1000;
/// Of them the ones that are called first: each pod calls one, and no other.
const CALLED: usize = PODS_OF_NODE;
/// Pods behind each Service.
const ENDPOINTS: usize = 2;
/// For what Envoy does when its main thread finds the time.
const SETTLED: Duration = Duration::from_secs(6);
/// Pooled connections end after this without a request: with the minute that they have otherwise, all would be there at once.
const POOLED: Duration = Duration::from_secs(1);
/// After that Envoy gives memory back, some of it each second.
const GIVEN_BACK: Duration = Duration::from_secs(20);
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

/// Connections to clusters do not stay for long.
fn impatient(snapshot: &mut Snapshot) {
    ads::change(snapshot, TypeUrl::Cluster, |cluster: &mut EnvoyCluster| {
        for any in cluster.typed_extension_protocol_options.values_mut() {
            let mut options = HttpProtocolOptions::decode(any.value.as_slice()).unwrap();
            options.common_http_protocol_options.get_or_insert_default().idle_timeout =
                Some(duration(POOLED));
            *any = pack_any(options);
        }
    });
}

/// These Services are called by one pod each, on connections that end; the last one is kept.
async fn talk(crowd: &Crowd, services: Range<usize>) -> tokio::net::TcpStream {
    let mut last = None;
    for service in services {
        let to = format!("{}:80", virtual_address(service));
        let mut stream = crowd.pod(service % PODS_OF_NODE).connect(&to).await.unwrap();
        for _ in 0..3 {
            let (head, _) = client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{to}: {head}");
        }
        last = Some(stream);
    }
    last.unwrap()
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
    let node = Node::start_with("n1", directory.path(), &authority, paths, impatient)
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

    for pod in 0..PODS_OF_NODE {
        let to = format!("{}:8080", address((pod + 1) % PODS_OF_NODE));
        let mut stream = crowd.pod(pod).connect(&to).await.unwrap();
        client::get(&mut stream, "HTTP/1.1", "Connection: close\r\n").await.unwrap();
    }
    tokio::time::sleep(GIVEN_BACK).await;
    let with_accounts = Memory::of(&envoy, "after each pod called another").await;
    with_accounts.above(with_pods, "accounts, each with a TLS context", PODS_OF_NODE);

    let shared = shared.next(&all.mesh);
    node.publish(&shared, &all.mesh);
    let known = Memory::of(&envoy, "with Services").await;
    known.above(with_accounts, "Services that nobody calls", SERVICES);

    talk(&crowd, 0..CALLED).await;
    tokio::time::sleep(GIVEN_BACK).await;
    let some = Memory::of(&envoy, &format!("after {CALLED} of them were called")).await;
    let service = some.above(with_accounts, "Services", SERVICES);
    some.above(known, "Services that were called, without what each takes that nobody calls", CALLED);
    let asked = node.asked();
    assert!(ads::everything() || demand::of_services(&asked).count() == CALLED, "{asked:?}");

    talk(&crowd, CALLED..SERVICES).await;
    tokio::time::sleep(GIVEN_BACK).await;
    let called = Memory::of(&envoy, "after all of them were called").await;
    called.above(with_accounts, "Services that were called", SERVICES);
    println!("{} statistics", envoy.ask("/stats").await.unwrap().lines().count());

    let mut open = Vec::new();
    for service in 0..CALLED {
        open.push(talk(&crowd, service..service + 1).await);
    }
    tokio::time::sleep(POOLED).await;
    let talking = Memory::of(&envoy, "with connections").await;
    talking.above(called, "connections without a request", CALLED);
    assert!(node.refused().is_empty(), "{:?}", node.refused());
    assert!(pod.resident <= PER_POD, "a pod takes {} bytes", pod.resident);
    assert!(service.resident <= PER_SERVICE, "a Service takes {} bytes", service.resident);
}
