use std::process::Command;

use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::util::pack_any;

use super::*;

async fn figures(envoy: &Envoy) -> (f64, f64) {
    tokio::time::sleep(Duration::from_secs(4)).await;
    let answer = envoy.ask("/memory").await.unwrap();
    let allocated: f64 =
        answer.split("\"allocated\": \"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.pid())).unwrap();
    let rss = status
        .lines()
        .find(|l| l.starts_with("VmRSS"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap();
    (allocated / 1000.0, rss * 1.024)
}

fn world(pods: usize, services: usize, eps: usize, protocol: Protocol, accounts: usize) -> Cluster {
    let mut c = Cluster::default();
    for i in 0..pods {
        let uid = format!("uid-m{i}");
        let member = Member {
            pod: ObjectKey::new("shop", format!("m{i}")),
            identity: spiffe(["front", "cart", "back"][i % accounts]),
            workload: format!("m{i}").into(),
            addresses: vec![],
        };
        Arc::make_mut(c.mesh.nodes.entry("n1".into()).or_default()).members.insert(uid, member);
    }
    for i in 0..services {
        let ep: Vec<String> =
            (0..eps).map(|k| format!("10.{}.{}.{}", 100 + i / 250, i % 250, k + 1)).collect();
        for e in &ep {
            Arc::make_mut(&mut c.mesh.peers)
                .insert(e.clone(), Peer { uid: "x".into(), identity: spiffe("back"), ..Peer::default() });
        }
        let ep: Vec<(&str, u16)> = ep.iter().map(|e| (e.as_str(), 8080)).collect();
        c = c.service(
            &format!("service-{i}"),
            &[&format!("10.{}.{}.1", 96 + i / 250, i % 250)],
            80,
            protocol,
            &ep,
        );
    }
    c
}

#[tokio::test(flavor = "multi_thread")]
async fn measure() {
    if obstacle().is_some() || std::env::var_os("MEASURE").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let id = format!("mwlab-x{}", std::process::id());
    for i in 0..200 {
        assert!(Command::new("ip").args(["netns", "add", &format!("{id}-m{i}")]).status().unwrap().success());
    }
    for n in ["n1", "blackhole"] {
        Command::new("ip").args(["netns", "add", &format!("{id}-{n}")]).status().unwrap();
    }
    let path = |n: &str| format!("/run/netns/{id}-{n}");
    let authority = Authority::new();
    let paths = (0..200)
        .map(|i| (format!("pod:uid-m{i}"), path(&format!("m{i}"))))
        .chain([("blackhole".to_owned(), path("blackhole"))])
        .collect();
    // What counting costs: the same without.
    let edit: Edit = match std::env::var_os("WITHOUT_SIGNALS") {
        Some(_) => |snapshot| signals::edit_loggers(snapshot, Vec::clear),
        None => |_| {},
    };
    let node = Node::start_with("n1", directory.path(), &authority, paths, edit);
    let shared = Shared::new(TRUST_DOMAIN);
    let empty = world(0, 0, 1, Protocol::Http, 1);
    for (what, w, n) in [
        ("1000 http services 1 ep", world(0, 1000, 1, Protocol::Http, 1), 1000),
        ("1000 http services 3 eps", world(0, 1000, 3, Protocol::Http, 1), 1000),
        ("1000 tcp services 1 ep", world(0, 1000, 1, Protocol::Tcp, 1), 1000),
        ("200 pods", world(200, 0, 1, Protocol::Http, 3), 200),
    ] {
        let shared = shared.next(&empty.mesh);
        node.publish(&shared, &empty.mesh);
        let envoy = Envoy::start(Path::new(&path("n1")), directory.path(), &node);
        envoy.is_ready().await;
        let base = figures(&envoy).await;
        let show = |what: &str, n: usize, f: (f64, f64)| {
            println!(
                "{what}: allocated {:.1} kB each, rss {:.1} kB each, {base:?} {f:?}",
                (f.0 - base.0) / n as f64,
                (f.1 - base.1) / n as f64
            )
        };
        node.publish(&shared.next(&w.mesh), &w.mesh);
        let f = figures(&envoy).await;
        show(what, n, f);
        println!("stats {}", envoy.ask("/stats").await.unwrap().lines().count());
    }
    for n in Command::new("sh")
        .arg("-c")
        .arg(format!("ip netns list | grep -o '^{id}-[a-z0-9]*'"))
        .output()
        .map(|o| String::from_utf8(o.stdout).unwrap())
        .unwrap()
        .lines()
    {
        Command::new("ip").args(["netns", "del", n]).status().unwrap();
    }
}

type Edit = fn(&mut Snapshot);

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// What counting costs for each request, at the caller's proxy; and for each set of labels.
#[tokio::test(flavor = "multi_thread")]
async fn measure_requests() {
    if obstacle().is_some() || std::env::var_os("MEASURE").is_none() {
        return;
    }
    const REQUESTS: u32 = 20_000;
    let ways: [(&str, Edit); 2] = [
        ("without signals", |snapshot| signals::edit_loggers(snapshot, Vec::clear)),
        ("with signals", |_| {}),
    ];
    for (what, edit) in [ways, ways].concat() {
        let lab = lab(mesh(), edit).await.unwrap();
        let mut stream = lab.pod("front").connect("10.88.0.1:80").await.unwrap();
        let (_, envoy) = &lab.nodes[0];
        let before = cpu(envoy.pid());
        for _ in 0..REQUESTS {
            client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
        }
        let used = (cpu(envoy.pid()) - before) * 1_000_000.0 / f64::from(REQUESTS);
        println!("{what}: {used:.1} µs of CPU for each request");
    }

    // As many sets of labels as gRPC has statuses, from two pods to two Services. All ways are known before.
    const WAYS: [(&str, &str); 4] = [
        ("front", "10.88.0.1:80"),
        ("cart", "10.88.0.1:80"),
        ("front", "10.88.0.3:8000"),
        ("cart", "10.88.0.3:8000"),
    ];
    let lab = lab(mesh(), |_| {}).await.unwrap();
    let n1 = &lab.nodes[0].1;
    let call = async |from: &str, to: &str, status: u32| {
        lab.pod(from).call_for(to, &status.to_string()).await.unwrap()
    };
    for _ in 0..5 {
        for (from, to) in WAYS {
            call(from, to, 0).await;
        }
    }
    let series = async || n1.ask("/stats?filter=%5Emesh%5C.").await.unwrap().lines().count();
    let (before, first) = (figures(n1).await, series().await);
    for (from, to) in WAYS {
        for status in 0..17 {
            call(from, to, status).await;
        }
    }
    let (after, last) = (figures(n1).await, series().await);
    #[allow(clippy::cast_precision_loss)]
    let each = (after.0 - before.0) / (last - first) as f64;
    println!("{} more statistics: {each:.2} kB each", last - first);
}

/// What it costs each request that its cluster might have to be asked for, at the caller's proxy. Needs `EVERYTHING=1`, because of those that do not ask.
#[tokio::test(flavor = "multi_thread")]
async fn measure_on_demand() {
    if obstacle().is_some() || std::env::var_os("MEASURE").is_none() || !ads::everything() {
        return;
    }
    const REQUESTS: u32 = 4_000;
    const CONNECTIONS: u32 = 8;
    const WITHOUT: Edit = |snapshot| {
        ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
            for filter in listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters) {
                let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
                if any.type_url.ends_with("HttpConnectionManager") {
                    let mut manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
                    manager.http_filters.retain(|filter| !filter.name.ends_with("on_demand"));
                    *any = pack_any(manager);
                }
            }
        });
    };
    let (with, without): ((_, Edit), (_, Edit)) = (("with the filter", |_| {}), ("without it", WITHOUT));
    for (what, edit) in [with, without, without, with].repeat(2) {
        let lab = lab(mesh(), edit).await.unwrap();
        let (_, envoy) = &lab.nodes[0];
        let talk = async |requests: u32| {
            let mut stream = lab.pod("front").connect("10.88.0.1:80").await.unwrap();
            for _ in 0..requests {
                client::get(&mut stream, "HTTP/1.1", "").await.unwrap();
            }
        };
        talk(100).await;
        let before = cpu(envoy.pid());
        futures::future::join_all((0..CONNECTIONS).map(|_| talk(REQUESTS))).await;
        let used = (cpu(envoy.pid()) - before) * 1_000_000.0 / f64::from(REQUESTS * CONNECTIONS);
        println!("{what}: {used:.1} µs of CPU for each request");
    }
}

#[test]
fn speed() {
    if std::env::var_os("MEASURE").is_none() {
        return;
    }
    let mut w = world(0, 1000, 5, Protocol::Http, 1);
    for n in 0..100 {
        for i in 0..200 {
            let member = Member {
                pod: ObjectKey::new("shop", format!("m{n}-{i}")),
                identity: spiffe("front"),
                addresses: vec![],
                workload: "app".into(),
            };
            Arc::make_mut(w.mesh.nodes.entry(format!("node-{n}")).or_default())
                .members
                .insert(format!("uid-{n}-{i}"), member);
        }
    }
    let all = |s: &Shared, w: &Cluster| {
        for n in 0..100 {
            node(s, &w.mesh, &format!("node-{n}"), PORTS);
        }
    };
    let t = Instant::now();
    let s = Shared::new(TRUST_DOMAIN).next(&w.mesh);
    println!("first: {:?}", t.elapsed());
    let t = Instant::now();
    all(&s, &w);
    println!("100 nodes of 200 pods first: {:?}", t.elapsed());
    let w2 = w.clone().service("service-5", &[], 80, Protocol::Http, &[("10.100.5.1", 8080)]);
    let t = Instant::now();
    let s2 = s.next(&w2.mesh);
    println!("endpoints of one: {:?}", t.elapsed());
    let t = Instant::now();
    all(&s2, &w2);
    println!("100 nodes again: {:?}", t.elapsed());
    let w3 = w2.clone().service("new", &["10.200.0.1"], 80, Protocol::Http, &[("10.100.5.1", 8080)]);
    let t = Instant::now();
    let s3 = s2.next(&w3.mesh);
    println!("a new service: {:?}", t.elapsed());
    let w4 = w3.clone().without_peer("10.100.5.2");
    let t = Instant::now();
    let s4 = s3.next(&w4.mesh);
    println!("a peer: {:?}", t.elapsed());
    let w5 = w4.clone().pod("node-7", "late", &[]);
    let t = Instant::now();
    all(&s4.next(&w5.mesh), &w5);
    println!("a pod, 100 nodes: {:?}", t.elapsed());
}
