//! Which nodes are translated, and when.

use envoy_types::pb::envoy::config::core::v3::{address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use meshwright_core::mesh::{Node, Peer};
use meshwright_xds::mesh::Telemetry;
use prost::Message;

use super::*;
use crate::nodes::tests::{member, mesh};

fn start() -> (NodeTranslator, NodeRegistry) {
    let registry = NodeRegistry::default();
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let nacks = Nacks::new(crate::ads::Registry::default());
    let telemetry = Telemetry::default();
    (NodeTranslator::new(registry.clone(), nacks, "cluster.local", telemetry, metrics), registry)
}

#[test]
fn a_node_gets_a_snapshot_when_it_has_a_stream_and_another_when_something_changed_for_it() {
    let (mut translator, registry) = start();
    let first = Arc::new(mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], None));
    translator.publish(&first);
    assert_eq!(translator.generation, 0, "nobody asked");

    let one = registry.subscribe("n1", NodeSlot::A);
    assert_eq!(one.borrow().generation(), 0);
    translator.publish(&first);
    let two = registry.subscribe("n2", NodeSlot::A);
    translator.publish(&first);
    translator.publish(&first);
    assert_eq!((one.borrow().generation(), two.borrow().generation()), (1, 2));

    let mut second = Mesh::clone(&first);
    let other = Node { members: [member("u3", "10.0.0.3")].into(), ..Node::default() };
    second.nodes.insert("n2".to_owned(), Arc::new(other));
    (second.namespaces, second.services) = (Arc::default(), Arc::default());
    let second = Arc::new(second);
    translator.publish(&second);
    assert_eq!((one.borrow().generation(), two.borrow().generation()), (1, 3), "n1 is as it was");

    let peer = Peer {
        uid: "u3".into(),
        identity: "spiffe://cluster.local/ns/shop/sa/of-u3".into(),
        ..Peer::default()
    };
    let peers = Arc::new([("10.0.0.3".to_owned(), peer)].into());
    let third = Arc::new(Mesh { peers, ..Mesh::clone(&second) });
    translator.publish(&third);
    assert_eq!((one.borrow().generation(), two.borrow().generation()), (4, 5), "peers are for everybody");

    drop(two);
    let fourth = Arc::new(Mesh { peers: Arc::default(), ..Mesh::clone(&third) });
    translator.publish(&fourth);
    assert_eq!((one.borrow().generation(), translator.generation), (6, 6), "n2 has no stream");
    let two = registry.subscribe("n2", NodeSlot::A);
    translator.publish(&fourth);
    assert_eq!(two.borrow().generation(), 7, "it is back");
}

#[test]
fn listeners_have_the_ports_of_the_slot() {
    let (mut translator, registry) = start();
    let both = NodeSlot::ALL.map(|slot| registry.subscribe("n1", slot));
    translator.publish(&Arc::new(mesh(&[("n1", "u1", "10.0.0.1")], None)));
    let ports = both.map(|snapshots| {
        let snapshot = snapshots.borrow();
        ["pod/u1/outbound", "pod/u1/inbound"].map(|name| {
            let resource = snapshot.get(TypeUrl::Listener, name).expect(name);
            let listener = Listener::decode(resource.body().value.as_slice()).unwrap();
            match listener.address.and_then(|address| address.address) {
                Some(address::Address::SocketAddress(socket)) => socket.port_specifier,
                _ => None,
            }
        })
    });
    let expected = [[15101, 15108], [15201, 15208]];
    assert_eq!(
        ports,
        expected.map(|two| two.map(|port| Some(socket_address::PortSpecifier::PortValue(port))))
    );
}

#[tokio::test]
async fn a_stream_that_opens_while_nothing_happens_is_served() {
    let (translator, registry) = start();
    let mesh = Arc::new(mesh(&[("n1", "u1", "10.0.0.1")], None));
    let (outputs, receiver) = watch::channel(None);
    let drain = CancellationToken::new();
    let running = tokio::spawn(translator.run(receiver, drain.clone()));
    let mut early = registry.subscribe("n1", NodeSlot::A);
    early.mark_unchanged();
    outputs.send_replace(Some(Arc::new(Output { mesh, ..Output::default() })));
    early.changed().await.unwrap();
    let mut late = registry.subscribe("n1", NodeSlot::B);
    late.wait_for(|snapshot| snapshot.generation() > 0).await.unwrap();
    drain.cancel();
    running.await.unwrap();
}

/// A mesh with a Service, and the same without.
fn full_and_bare() -> (Mesh, Mesh) {
    use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
    use meshwright_core::mesh::{MeshPort, MeshService, Protocol};
    let bare = mesh(&[("n1", "u1", "10.0.0.1")], None);
    let health = EndpointHealth::Ready;
    let endpoint = Endpoint { address: "10.0.0.1".to_owned(), port: 8080, health, node: None };
    let endpoints = Arc::new(Endpoints { zones: [(String::new(), vec![endpoint])].into() });
    let port = MeshPort { protocol: Protocol::Http, endpoints };
    let service = MeshService {
        addresses: vec!["10.96.0.1".to_owned()],
        ports: [(80, port)].into(),
        balancing: Default::default(),
    };
    let key = meshwright_core::ObjectKey::new("shop", "web");
    let identity = "spiffe://cluster.local/ns/shop/sa/of-u1".into();
    let peer = Peer { uid: "u1".into(), identity, workload: "web".into() };
    let full = Mesh {
        services: Arc::new([(key, Arc::new(service))].into()),
        peers: Arc::new([("10.0.0.1".to_owned(), peer)].into()),
        ..bare.clone()
    };
    (full, bare)
}

#[tokio::test(start_paused = true)]
async fn clusters_that_nothing_leads_to_go_after_a_while_by_themselves() {
    let (translator, registry) = start();
    let (full, bare) = full_and_bare();
    let (outputs, receiver) = watch::channel(None);
    let drain = CancellationToken::new();
    let running = tokio::spawn(translator.run(receiver, drain.clone()));
    let mut node = registry.subscribe("n1", NodeSlot::A);
    let has = |snapshot: &Arc<Snapshot>| snapshot.get(TypeUrl::Cluster, "outbound|80|web|shop").is_some();
    let publish = |mesh: Mesh| {
        outputs.send_replace(Some(Arc::new(Output { mesh: Arc::new(mesh), ..Output::default() })))
    };
    publish(full);
    node.wait_for(has).await.unwrap();
    publish(bare);
    let gone = Instant::now();
    node.wait_for(|snapshot| !has(snapshot)).await.unwrap();
    let lasted = gone.elapsed().as_secs_f64();
    assert!((59.0..62.0).contains(&lasted), "{lasted} s");
    drain.cancel();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_let_go_is_whether_anybody_has_a_stream_or_not() {
    let (mut translator, registry) = start();
    let (full, bare) = full_and_bare();
    let bare = Arc::new(bare);
    let node = registry.subscribe("n1", NodeSlot::A);
    translator.publish(&Arc::new(full));
    translator.publish(&bare);
    let end = translator.shared.next_end().unwrap();
    drop(node);
    tokio::time::sleep_until(end).await;
    translator.publish(&bare);
    assert_eq!(translator.shared.next_end(), None, "it would be called again at once, for ever");
}
