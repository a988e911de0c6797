use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{
    Address, EnvoyInternalAddress, SocketAddress, address::Address as Kind, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::AdditionalAddress;
use envoy_types::util::pack_any;
use prost::Message;

use super::*;

fn socket(namespace: &str) -> SocketAddress {
    SocketAddress {
        address: "0.0.0.0".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(15101)),
        network_namespace_filepath: namespace.to_owned(),
        ..SocketAddress::default()
    }
}

fn address(namespace: &str) -> Address {
    Address { address: Some(Kind::SocketAddress(socket(namespace))) }
}

fn listener(name: &str, namespace: &str, more: &str, prefix: &str) -> Resource {
    let listener = Listener {
        name: name.to_owned(),
        stat_prefix: prefix.to_owned(),
        address: Some(address(namespace)),
        additional_addresses: vec![AdditionalAddress {
            address: Some(address(more)),
            ..AdditionalAddress::default()
        }],
        ..Listener::default()
    };
    Resource::new(name, pack_any(listener))
}

fn cluster(name: &str) -> Resource {
    Resource::new(name, pack_any(Cluster { name: name.to_owned(), ..Cluster::default() }))
}

fn of_pod(uid: &str, prefix: &str) -> [Resource; 2] {
    let (at, prefix) = (format!("pod:{uid}"), prefix.to_owned());
    DIRECTIONS.map(|direction| listener(&format!("pod/{uid}/{direction}"), &at, &at, &prefix))
}

fn source(generation: u64, listeners: impl IntoIterator<Item = Resource>) -> Snapshot {
    let clusters = [cluster("a"), cluster("b")];
    let mut snapshot =
        Snapshot::default().with(TypeUrl::Cluster, clusters).with(TypeUrl::Listener, listeners);
    snapshot.set_generation(generation);
    snapshot
}

fn namespaces(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(uid, path)| ((*uid).to_owned(), (*path).to_owned())).collect()
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let listeners = snapshot.resources(TypeUrl::Listener).unwrap().iter();
    listeners
        .map(|listener| {
            format!("{} {}", listener.name(), listener.version().split('@').nth(1).unwrap_or("-"))
        })
        .collect()
}

fn decoded<M: Message + Default>(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> M {
    M::decode(snapshot.get(kind, name).unwrap().body().value.as_slice()).unwrap()
}

fn settled(pods: &mut Pods, generation: u64) {
    pods.on_downstream(Event::Settled { kind: TypeUrl::Listener, generation });
}

fn refuse(pods: &mut Pods, snapshot: &Snapshot, name: &str) -> Event {
    let resource = snapshot.get(TypeUrl::Listener, name).unwrap();
    let resources = vec![(resource.name().clone(), resource.version().clone())];
    pods.on_downstream(Event::Nack {
        kind: TypeUrl::Listener,
        resources,
        message: "address in use".to_owned(),
    })
}

#[test]
fn placeholders_become_paths_and_nothing_else_changes() {
    let mut pods = Pods::default();
    pods.set_namespaces(namespaces(&[("u1", "/run/netns/cni-1")]));
    let others = [listener("node", "", "pod:u1", "x"), listener("pod/u1/odd", "pod:u2", "pod:u1", "x")];
    let out = pods.render(&source(1, of_pod("u1", "x").into_iter().chain(others)));

    let outbound: Listener = decoded(&out, TypeUrl::Listener, "pod/u1/outbound");
    assert_eq!(outbound.address, Some(address("/run/netns/cni-1")));
    assert_eq!(outbound.additional_addresses[0].address, Some(address("/run/netns/cni-1")));
    assert_eq!(outbound.stat_prefix, "x");
    let node: Listener = decoded(&out, TypeUrl::Listener, "node");
    assert_eq!(
        node.additional_addresses[0].address,
        Some(address("pod:u1")),
        "only in the pod's own listeners"
    );
    let odd: Listener = decoded(&out, TypeUrl::Listener, "pod/u1/odd");
    assert_eq!(odd.address, Some(address("pod:u2")), "another pod's namespace never");
    assert_eq!(odd.additional_addresses[0].address, Some(address("/run/netns/cni-1")));
}

#[test]
fn a_listener_is_there_as_long_as_its_namespace_is_also_when_the_control_plane_takes_it_away() {
    let mut pods = Pods::default();
    let both = || of_pod("u1", "x").into_iter().chain(of_pod("u2", "x"));
    assert_eq!(names(&pods.render(&source(1, both()))), [""; 0]);
    pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
    assert_eq!(names(&pods.render(&source(2, both()))), ["pod/u1/inbound /n/1", "pod/u1/outbound /n/1"]);
    assert_eq!(
        names(&pods.render(&source(3, of_pod("u2", "x")))),
        ["pod/u1/inbound /n/1", "pod/u1/outbound /n/1"]
    );
    pods.set_namespaces(namespaces(&[("u1", "/n/1"), ("u2", "/n/2")]));
    assert_eq!(
        pods.render(&source(4, of_pod("u2", "x"))).resources(TypeUrl::Listener).unwrap().iter().count(),
        4
    );
    pods.set_namespaces(namespaces(&[("u1", "/n/9"), ("u2", "/n/2")]));
    let out = pods.render(&source(5, of_pod("u2", "x")));
    assert_eq!(names(&out), ["pod/u2/inbound /n/2", "pod/u2/outbound /n/2"], "its namespace is another now");
    pods.set_namespaces(BTreeMap::new());
    assert_eq!(names(&pods.render(&source(6, both()))), [""; 0]);
}

#[test]
fn what_envoy_has_from_before_this_process_is_left_to_it_until_its_namespace_is_another() {
    let of = |snapshot: &Snapshot, uid: &str| {
        let listeners = snapshot.resources(TypeUrl::Listener).unwrap().clone();
        super::names(uid).map(|name| (listeners.get(&name).is_some(), listeners.is_absent(&name)))
    };
    let (open, present, absent) = ([(false, false); 2], [(true, false); 2], [(false, true); 2]);
    for end in [&[][..], &[("u1", "/n/9")], &[("u2", "/n/2")]] {
        let mut pods = Pods::default();
        pods.inherit(namespaces(&[("u1", "/n/1"), ("u2", "/n/2")]));
        let out = pods.render(&source(1, of_pod("u2", "x")));
        assert_eq!((of(&out, "u1"), of(&out, "u2"), of(&out, "u3")), (open, present, absent));
        assert!(pods.opened().is_empty(), "nobody knows what it has");
        let out = pods.render(&source(2, []));
        assert_eq!((of(&out, "u1"), of(&out, "u2")), (open, present));
        pods.set_namespaces(namespaces(end));
        assert_eq!(of(&pods.render(&source(3, [])), "u1"), absent, "{end:?}");
    }
    let mut pods = Pods::default();
    pods.inherit(namespaces(&[("u1", "/n/1")]));
    assert_eq!(of(&pods.render(&source(1, of_pod("u1", "x"))), "u1"), present, "it is back");
    let mut pods = Pods::default();
    pods.inherit(namespaces(&[("u1", "/n/1")]));
    pods.envoy_restarted();
    assert_eq!(of(&pods.render(&source(2, [])), "u1"), absent, "another process has none");
}

#[test]
fn where_there_is_no_ipv6_everything_is_for_ipv4() {
    let at = |address: &str, namespace: &str| SocketAddress {
        address: address.to_owned(),
        ipv4_compat: address == "::",
        ..socket(namespace)
    };
    let of = |address: SocketAddress| Address { address: Some(Kind::SocketAddress(address)) };
    let listener = Listener { address: Some(of(at("::", "pod:u1"))), ..Listener::default() };
    let endpoint = |address: Address| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let internal = Address { address: Some(Kind::EnvoyInternalAddress(EnvoyInternalAddress::default())) };
    let endpoints = [of(at("fd00::1", "")), of(at("10.0.0.1", "")), internal.clone()].map(endpoint).to_vec();
    let locality = LocalityLbEndpoints { lb_endpoints: endpoints, ..LocalityLbEndpoints::default() };
    let all = ClusterLoadAssignment { endpoints: vec![locality], ..ClusterLoadAssignment::default() };
    let sent = Snapshot::default()
        .with(TypeUrl::Listener, [Resource::new("pod/u1/inbound", pack_any(listener))])
        .with(TypeUrl::Endpoint, [Resource::new("a", pack_any(all))]);
    let rendered = |ipv4_only: bool| {
        let mut pods = Pods::default().for_ipv4_only(ipv4_only);
        pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
        let out = pods.render(&sent);
        let listener: Listener = decoded(&out, TypeUrl::Listener, "pod/u1/inbound");
        let endpoints = decoded::<ClusterLoadAssignment>(&out, TypeUrl::Endpoint, "a").endpoints.remove(0);
        (listener.address.unwrap(), endpoints.lb_endpoints)
    };
    let (address, endpoints) = rendered(false);
    assert_eq!((address, endpoints.len()), (of(at("::", "/n/1")), 3));
    let (address, endpoints) = rendered(true);
    assert_eq!(address, of(at("0.0.0.0", "/n/1")));
    assert_eq!(endpoints, [endpoint(of(at("10.0.0.1", ""))), endpoint(internal)]);
}

#[test]
fn what_does_not_change_is_not_made_again() {
    let mut pods = Pods::default();
    pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
    let first = source(1, of_pod("u1", "x"));
    let (one, two) = (pods.render(&first), pods.render(&first));
    for kind in [TypeUrl::Cluster, TypeUrl::Listener] {
        assert!(Arc::ptr_eq(one.resources(kind).unwrap(), two.resources(kind).unwrap()), "{kind}");
    }
    let three = pods.render(&source(2, of_pod("u1", "x")));
    let of = |snapshot: &Snapshot| snapshot.get(TypeUrl::Listener, "pod/u1/inbound").unwrap().clone();
    assert!(Arc::ptr_eq(&of(&one), &of(&three)), "equal content, another map");
}

#[test]
fn a_pod_is_open_when_envoy_has_judged_what_it_has_now() {
    let mut pods = Pods::default();
    pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
    pods.render(&source(3, of_pod("u1", "x")));
    settled(&mut pods, 2);
    assert!(pods.opened().is_empty());
    settled(&mut pods, 3);
    assert_eq!(pods.opened(), ["u1".to_owned()].into());
    pods.render(&source(4, of_pod("u1", "x")));
    assert_eq!(pods.opened(), ["u1".to_owned()].into(), "nothing of it is new");
    pods.render(&source(5, of_pod("u1", "y")));
    assert!(pods.opened().is_empty());
    settled(&mut pods, 5);
    assert!(!pods.opened().is_empty());
    pods.envoy_restarted();
    assert!(pods.opened().is_empty());
}

#[test]
fn what_envoy_refuses_of_a_pod_stays_here_and_what_it_took_before_is_offered_again() {
    let mut pods = Pods::default();
    pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
    let good = pods.render(&source(1, of_pod("u1", "good")));
    settled(&mut pods, 1);
    let bad = pods.render(&source(2, of_pod("u1", "bad")));
    let Event::Nack { resources, .. } = refuse(&mut pods, &bad, "pod/u1/inbound") else { panic!() };
    assert!(resources.is_empty(), "the control plane could not mend it");
    settled(&mut pods, 2);
    assert_eq!(pods.refusal("u1").as_deref(), Some("address in use"));
    let version =
        |snapshot: &Snapshot, name: &str| snapshot.get(TypeUrl::Listener, name).unwrap().version().clone();
    let out = pods.render(&source(3, of_pod("u1", "bad")));
    assert_eq!(version(&out, "pod/u1/inbound"), version(&good, "pod/u1/inbound"));
    assert_eq!(version(&out, "pod/u1/outbound"), version(&bad, "pod/u1/outbound"));
    assert_eq!(pods.opened(), ["u1".to_owned()].into(), "the older one still stands");
    pods.envoy_restarted();
    let out = pods.render(&source(4, of_pod("u1", "bad")));
    assert_eq!(
        version(&out, "pod/u1/inbound"),
        version(&bad, "pod/u1/inbound"),
        "another process may judge differently"
    );
}

#[test]
fn a_listener_that_was_never_taken_is_tried_again_in_another_namespace() {
    let mut pods = Pods::default();
    pods.set_namespaces(namespaces(&[("u1", "/n/1")]));
    let out = pods.render(&source(1, of_pod("u1", "x")));
    refuse(&mut pods, &out, "pod/u1/inbound");
    assert_eq!(names(&pods.render(&source(2, of_pod("u1", "x")))), ["pod/u1/outbound /n/1"]);
    settled(&mut pods, 2);
    assert!(pods.opened().is_empty());
    pods.set_namespaces(namespaces(&[("u1", "/n/2")]));
    assert_eq!(names(&pods.render(&source(3, of_pod("u1", "x")))).len(), 2);
    pods.set_namespaces(BTreeMap::new());
    assert_eq!(pods.refusal("u1"), None);
}

#[test]
fn envoy_gets_the_clusters_that_it_has_asked_for_also_those_that_come_later() {
    use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
    let service = |name: &str| {
        let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
        let cluster = Cluster { name: name.to_owned(), cluster_discovery_type: eds, ..Cluster::default() };
        Resource::new(name, pack_any(cluster))
    };
    let of = |services: &[&str]| {
        let services = services.iter().map(|name| service(name));
        Snapshot::default().with(TypeUrl::Cluster, [cluster("mtls")].into_iter().chain(services))
    };
    let offered = |pods: &mut Pods, services: &[&str]| -> Vec<String> {
        let out = pods.render(&of(services));
        out.resources(TypeUrl::Cluster).unwrap().iter().map(|one| one.name().to_string()).collect()
    };
    let says = |pods: &mut Pods, subscribed: &[&str], held: &[&str]| {
        let (kind, list) =
            (TypeUrl::Cluster, |names: &[&str]| names.iter().map(|name| (*name).into()).collect());
        let (subscribed, held) = (list(subscribed), list(held));
        pods.asks(&Event::Subscription { kind, wildcard: true, subscribed, unsubscribed: Vec::new(), held })
    };
    let asks = |pods: &mut Pods, name: &str| says(pods, &[name], &[]);
    let mut pods = Pods::default();
    assert_eq!(offered(&mut pods, &["a", "b"]), ["mtls"]);
    assert!(asks(&mut pods, "a") && asks(&mut pods, "c") && !asks(&mut pods, "a"));
    assert_eq!(offered(&mut pods, &["a", "b"]), ["a", "mtls"]);
    assert_eq!(offered(&mut pods, &["b", "c"]), ["c", "mtls"]);
    assert!(asks(&mut pods, "d"), "there is none");
    assert_eq!(offered(&mut pods, &["a", "b"]), ["a", "mtls"]);
    pods.envoy_restarted();
    assert_eq!(offered(&mut pods, &["a", "b"]), ["a", "mtls"], "its pods will call the same");
    assert_eq!(offered(&mut pods, &["a", "b", "c", "d"]), ["a", "mtls"], "of those it knows nothing");

    // Another agent's process: Envoy has what it got from the one before without asking.
    let mut pods = Pods::default();
    assert!(says(&mut pods, &["a"], &["b", "mtls"]) && !says(&mut pods, &[], &["b"]));
    assert_eq!(offered(&mut pods, &["a", "b", "c"]), ["a", "b", "mtls"]);
}
