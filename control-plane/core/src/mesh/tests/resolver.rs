use super::*;

const IN: &[(&str, &str)] = &[("meshwright.io/mesh", "enabled")];

/// Two members on two nodes, both listed, and one pod that is not in the mesh.
fn world() -> World {
    let mut world = World::default();
    add_namespace(&mut world, "shop", IN);
    add_namespace(&mut world, "other", &[]);
    add_pod(&mut world, "shop", "cart-0", pod("u-cart", "n1", &["10.0.1.1", "fd00::1:1"]));
    let account = "pay".to_owned();
    add_pod(
        &mut world,
        "shop",
        "pay-0",
        Pod { service_account: account, ..pod("u-pay", "n2", &["10.0.2.1"]) },
    );
    add_pod(&mut world, "other", "plain", pod("u-plain", "n1", &["10.0.1.9"]));
    add_mesh_node(&mut world, "n1", 3, &[("u-cart", &["10.0.1.1", "fd00::0001:0001"])]);
    add_mesh_node(&mut world, "n2", 1, &[("u-pay", &["10.0.2.1"])]);
    add_service(
        &mut world,
        "cart",
        &["10.96.0.1", "fd00:96::1"],
        vec![port("http", 80, None), port("db", 3306, None)],
    );
    add_slice(&mut world, "cart", &["http", "db"], &["10.0.1.1"]);
    world
}

fn peers(mesh: &Mesh) -> Vec<(&str, &str, &str)> {
    mesh.peers.iter().map(|(address, peer)| (address.as_str(), &*peer.uid, &*peer.identity)).collect()
}

fn addresses(mesh: &Mesh) -> Vec<&str> {
    mesh.peers.keys().map(String::as_str).collect()
}

#[test]
fn members_peers_and_services_are_found() {
    let mesh = fresh(&world());
    let cart = "spiffe://example.org/ns/shop/sa/default";
    let expected = [
        ("10.0.1.1", "u-cart", cart),
        ("10.0.2.1", "u-pay", "spiffe://example.org/ns/shop/sa/pay"),
        ("fd00::1:1", "u-cart", cart),
    ];
    assert_eq!(peers(&mesh), expected);
    let node = &mesh.nodes["n1"];
    assert_eq!(node.members.keys().collect::<Vec<_>>(), ["u-cart"]);
    assert_eq!(node.members["u-cart"].pod, ObjectKey::new("shop", "cart-0"));
    assert_eq!(node.claim, Some(("mesh-1".to_owned(), 3)));
    assert_eq!(*mesh.namespaces, BTreeMap::from([("other".to_owned(), false), ("shop".to_owned(), true)]));
    let service = &mesh.services[&ObjectKey::new("shop", "cart")];
    assert_eq!(service.addresses, ["10.96.0.1", "fd00:96::1"]);
    assert_eq!((service.ports[&80].protocol, service.ports[&3306].protocol), (Protocol::Http, Protocol::Tcp));
    let to = |port: u16| {
        service.ports[&port].endpoints.zones[""].iter().map(|endpoint| endpoint.port).collect::<Vec<_>>()
    };
    assert_eq!((to(80), to(3306)), (vec![8080], vec![8081]));
    assert_eq!(identities(&service.ports[&80].endpoints, &mesh.peers), [Arc::from(cart)].into());
}

#[test]
fn pods_of_gateways_are_no_members_and_it_is_known_who_they_are() {
    let mut world = world();
    let gateway = |uid: &str, component: &str| Pod {
        labels: labels(&[("meshwright.io/component", component)]),
        service_account: "edge".to_owned(),
        ..pod(uid, "n9", &["10.0.9.1"])
    };
    // Of a namespace that is in the mesh, of one that never is, and what is none.
    add_pod(&mut world, "shop", "edge-0", gateway("u-edge", "gateway"));
    add_pod(&mut world, "mesh", "edge-1", gateway("u-own", "gateway"));
    add_pod(&mut world, "mesh", "cp-0", gateway("u-cp", "control-plane"));
    add_pod(&mut world, "mesh", "host", Pod { host_network: true, ..gateway("u-host", "gateway") });
    let mut resolver = resolver();
    let mesh = resolver.resolve(&world);
    let node = &mesh.nodes["n9"];
    assert!(node.members.is_empty());
    let known = node.gateways.iter().map(|(uid, of)| (uid.as_str(), &*of.identity)).collect::<Vec<_>>();
    let expected = [
        ("u-edge", "spiffe://example.org/ns/shop/sa/edge"),
        ("u-own", "spiffe://example.org/ns/mesh/sa/edge"),
    ];
    assert_eq!(known, expected);
    assert_eq!(node.gateways["u-edge"].addresses, ["10.0.9.1"]);
    world.pods.remove(&ObjectKey::new("shop", "edge-0"));
    let node = &resolver.resolve(&world).nodes["n9"];
    assert_eq!(node.gateways.keys().collect::<Vec<_>>(), ["u-own"]);
}

#[test]
fn only_namespaces_of_pods_that_are_captured_or_not_any_more_are_looked_at_again() {
    let mut world = world();
    for name in ["a", "b"] {
        add_namespace(&mut world, name, IN);
        add_pod(&mut world, name, "app", pod(&format!("u-{name}"), "n1", &[]));
    }
    let captured = |world: &mut World, uids: &[&str]| {
        let pods: Vec<_> = uids.iter().map(|uid| (*uid, &[][..])).collect();
        add_mesh_node(world, "n1", 3, &pods);
        fresh(world).nodes["n1"].clone()
    };
    let before = captured(&mut world, &["u-cart", "u-a", "u-plain"]);
    let same = captured(&mut world, &["u-cart", "u-a"]);
    let after = captured(&mut world, &["u-cart", "u-b"]);
    let between = |one: Option<&Arc<Node>>, other| {
        super::super::resolver::captured_otherwise(one, other)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(between(Some(&before), Some(&same)), [""; 0], "the one outside is no policy's");
    assert_eq!(between(Some(&before), Some(&after)), ["a", "b"]);
    assert_eq!(between(Some(&before), None), ["a", "shop"]);
    assert_eq!(between(None, Some(&before)), ["a", "shop"]);
}

#[test]
fn pods_that_stay_outside_are_told_where_they_might_be_taken_for_members() {
    let mut world = world();
    let mut resolver = resolver();
    let outside = |mesh: &Mesh, node: &str| mesh.nodes[node].outside.iter().cloned().collect::<Vec<_>>();
    assert_eq!(outside(&resolver.resolve(&world), "n1"), [""; 0], "nobody expects those of namespace other");
    let host = Pod { host_network: true, ..pod("u-host", "n1", &[]) };
    add_pod(&mut world, "shop", "host", host.clone());
    assert_eq!(outside(&resolver.resolve(&world), "n1"), ["u-host"]);
    add_pod(&mut world, "shop", "host", Pod { uid: "u-again".to_owned(), node: "n3".to_owned(), ..host });
    let mesh = resolver.resolve(&world);
    assert_eq!((outside(&mesh, "n1"), outside(&mesh, "n3")), (vec![], vec!["u-again".to_owned()]));
    let refused = Refused { pod: ObjectKey::new("shop", "host"), why: Outside::HostNetwork };
    assert_eq!(mesh.nodes["n3"].refused, [("u-again".to_owned(), refused)].into());
    assert!(mesh.nodes["n1"].refused.is_empty(), "nobody asked for the others");
    add_namespace(&mut world, "shop", &[]);
    assert!(!resolver.resolve(&world).nodes.contains_key("n3"));
}

#[test]
fn where_some_pods_ask_by_themselves_the_others_are_told_of_on_every_node() {
    let mut world = world();
    add_pod(&mut world, "other", "far", pod("u-far", "n2", &[]));
    let mut resolver = resolver();
    let told = |mesh: &Mesh| {
        let outside = ["n1", "n2"].map(|node| mesh.nodes[node].outside.iter().cloned().collect::<Vec<_>>());
        (mesh.mixed.iter().cloned().collect::<Vec<_>>(), outside)
    };
    let of = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(told(&resolver.resolve(&world)), (of(&[]), [of(&[]), of(&[])]));
    let asks = |uid: &str| Pod { labels: labels(IN), ..pod(uid, "n1", &[]) };
    add_pod(&mut world, "other", "asks", asks("u-asks"));
    let mesh = resolver.resolve(&world);
    assert_eq!(told(&mesh), (of(&["other"]), [of(&["u-plain"]), of(&["u-far"])]));
    assert!(mesh.nodes["n1"].members.contains_key("u-asks"));
    add_pod(&mut world, "other", "too", asks("u-too"));
    world.pods.remove(&ObjectKey::new("other", "asks"));
    assert_eq!(told(&resolver.resolve(&world)).0, ["other"], "one is left");
    world.pods.remove(&ObjectKey::new("other", "too"));
    assert_eq!(told(&resolver.resolve(&world)), (of(&[]), [of(&[]), of(&[])]));
}

#[test]
fn a_service_without_addresses_or_without_tcp_is_no_destination() {
    let mut world = World::default();
    add_service(&mut world, "headless", &[], vec![port("http", 80, None)]);
    let udp = ServicePort { protocol: "UDP".to_owned(), ..port("dns", 53, None) };
    add_service(&mut world, "udp", &["10.96.0.1"], vec![udp.clone()]);
    add_service(&mut world, "dns", &["10.96.0.2"], vec![udp, port("dns-tcp", 53, None)]);
    let mesh = fresh(&world);
    assert_eq!(mesh.services.keys().collect::<Vec<_>>(), [&ObjectKey::new("shop", "dns")]);
    assert_eq!(mesh.services[&ObjectKey::new("shop", "dns")].ports[&53].protocol, Protocol::Tcp);
}

#[test]
fn a_pod_of_the_same_name_with_another_uid_is_no_peer() {
    let mut world = world();
    let mut resolver = resolver();
    resolver.resolve(&world);
    // A StatefulSet's pod comes back, on the same node and even at the same address.
    add_pod(&mut world, "shop", "cart-0", pod("u-new", "n1", &["10.0.1.1"]));
    let mesh = resolver.resolve(&world);
    assert_eq!(addresses(&mesh), ["10.0.2.1"]);
    assert_eq!(mesh.nodes["n1"].members.keys().collect::<Vec<_>>(), ["u-new"]);
    add_mesh_node(&mut world, "n1", 3, &[("u-cart", &["10.0.1.1"]), ("u-new", &["10.0.1.1"])]);
    assert_eq!(resolver.resolve(&world).peers["10.0.1.1"].uid.as_ref(), "u-new");
}

#[test]
fn who_leaves_is_no_peer_even_while_it_is_listed() {
    for leave in [
        // By its namespace, by its own label, by its end.
        (|world| add_namespace(world, "shop", &[])) as fn(&mut World),
        |world| {
            let label = labels(&[("meshwright.io/mesh", "disabled")]);
            add_pod(world, "shop", "cart-0", Pod { labels: label, ..pod("u-cart", "n1", &["10.0.1.1"]) });
        },
        |world| drop(world.pods.remove(&ObjectKey::new("shop", "cart-0"))),
    ] {
        let mut world = world();
        let mut resolver = resolver();
        assert!(resolver.resolve(&world).peers.contains_key("10.0.1.1"));
        leave(&mut world);
        let mesh = resolver.resolve(&world);
        assert!(!mesh.peers.contains_key("10.0.1.1") && !mesh.peers.contains_key("fd00::1:1"));
        assert!(mesh.nodes["n1"].members.is_empty(), "the node itself stays: it has a MeshNode");
        assert_eq!(mesh.nodes["n1"].listed.iter().collect::<Vec<_>>(), ["u-cart"], "its agent has to know");
        add_mesh_node(&mut world, "n1", 3, &[]);
        assert!(resolver.resolve(&world).nodes["n1"].listed.is_empty());
    }
}

#[test]
fn a_node_speaks_only_for_its_own_pods_and_their_own_addresses() {
    let mut world = world();
    // Another node's pod; an address that is not the pod's; a pod that is not in the mesh.
    let lies: &[(&str, &[&str])] =
        &[("u-pay", &["10.0.2.1"]), ("u-cart", &["10.0.2.7"]), ("u-plain", &["10.0.1.9"])];
    add_mesh_node(&mut world, "n1", 3, lies);
    add_mesh_node(&mut world, "n2", 1, &[]);
    assert_eq!(addresses(&fresh(&world)), [""; 0]);
}

#[test]
fn without_its_mesh_node_a_pod_is_a_member_and_no_peer() {
    let mut world = world();
    let mut resolver = resolver();
    resolver.resolve(&world);
    world.mesh_nodes.remove("n2");
    let mesh = resolver.resolve(&world);
    assert_eq!(addresses(&mesh), ["10.0.1.1", "fd00::1:1"]);
    assert_eq!((mesh.nodes["n2"].members.len(), mesh.nodes["n2"].claim.clone()), (1, None));
    world.pods.remove(&ObjectKey::new("shop", "pay-0"));
    assert!(!resolver.resolve(&world).nodes.contains_key("n2"));
}

/// Node n2 is lost, with `u-pay` that got its network at 10, and its address is given to this pod of n1.
fn reused(newer: Pod) -> World {
    let mut world = world();
    let pay = Pod { service_account: "pay".to_owned(), since: 10, ..pod("u-pay", "n2", &["10.0.2.1"]) };
    add_pod(&mut world, "shop", "pay-0", pay);
    add_pod(&mut world, "shop", "new", newer);
    world
}

#[test]
fn of_two_who_claim_an_address_the_newer_one_is_expected() {
    let newer = Pod { since: 11, ..pod("u-new", "n1", &["10.0.2.1"]) };
    let mut world = reused(newer.clone());
    let mut resolver = resolver();
    let expected = |mesh: &Mesh| mesh.peers.get("10.0.2.1").map(|peer| peer.uid.to_string());
    // It is on its way: nothing goes there in plaintext.
    assert_eq!(expected(&resolver.resolve(&world)).as_deref(), Some("u-pay"));
    let listed: &[(&str, &[&str])] = &[("u-cart", &["10.0.1.1"]), ("u-new", &["10.0.2.1"])];
    add_mesh_node(&mut world, "n1", 3, listed);
    assert_eq!(expected(&resolver.resolve(&world)).as_deref(), Some("u-new"));
    // Were it the older one, it would not matter.
    add_pod(&mut world, "shop", "new", Pod { since: 9, ..newer.clone() });
    assert_eq!(expected(&resolver.resolve(&world)).as_deref(), Some("u-pay"));
    // Who has ended claims nothing.
    world.pods.remove(&ObjectKey::new("shop", "pay-0"));
    assert_eq!(expected(&resolver.resolve(&world)).as_deref(), Some("u-new"));
}

#[test]
fn an_address_that_went_to_a_pod_outside_the_mesh_is_a_strangers_on_the_same_node() {
    let out = labels(&[("meshwright.io/mesh", "disabled")]);
    let stranger =
        |node: &str, since: i64| Pod { since, labels: out.clone(), ..pod("u-new", node, &["10.0.2.1"]) };
    let is_peer = |newer: Pod| fresh(&reused(newer)).peers.contains_key("10.0.2.1");
    assert!(!is_peer(stranger("n2", 11)));
    assert!(is_peer(stranger("n2", 10)) && is_peer(stranger("n2", 9)), "as long as it is not surely newer");
    assert!(is_peer(stranger("n1", 11)), "another node's word lays nothing bare");
    let on_the_node = Pod { host_network: true, ..stranger("n2", 11) };
    assert!(is_peer(on_the_node), "that address is its node's");
}

#[test]
fn what_did_not_change_is_the_same_allocation() {
    let mut world = world();
    add_service(&mut world, "pay", &["10.96.0.2"], vec![port("grpc", 80, None)]);
    let mut resolver = resolver();
    let before = resolver.resolve(&world);
    assert!(Arc::ptr_eq(&before, &resolver.resolve(&world)));
    // Other objects that say the same.
    add_namespace(&mut world, "shop", &[("meshwright.io/mesh", "enabled"), ("team", "a")]);
    add_slice(&mut world, "cart", &["http", "db"], &["10.0.1.1"]);
    assert!(Arc::ptr_eq(&before, &resolver.resolve(&world)));

    add_slice(&mut world, "cart", &["http"], &["10.0.1.1"]);
    let moved = resolver.resolve(&world);
    let [cart, pay] = ["cart", "pay"].map(|name| ObjectKey::new("shop", name));
    let endpoints = |mesh: &Mesh, port: u16| mesh.services[&cart].ports[&port].endpoints.clone();
    assert!(Arc::ptr_eq(&endpoints(&before, 80), &endpoints(&moved, 80)));
    assert!(endpoints(&moved, 3306).is_empty());
    assert!(Arc::ptr_eq(&before.services[&pay], &moved.services[&pay]));
    assert!(Arc::ptr_eq(&before.peers, &moved.peers) && Arc::ptr_eq(&before.namespaces, &moved.namespaces));
    assert!(Arc::ptr_eq(&before.nodes["n1"], &moved.nodes["n1"]));

    add_pod(&mut world, "shop", "cart-1", pod("u-cart-1", "n1", &[]));
    let joined = resolver.resolve(&world);
    assert!(!Arc::ptr_eq(&moved.nodes["n1"], &joined.nodes["n1"]));
    assert!(Arc::ptr_eq(&moved.nodes["n2"], &joined.nodes["n2"]));
    assert!(Arc::ptr_eq(&moved.services, &joined.services) && Arc::ptr_eq(&moved.peers, &joined.peers));
}

/// A producer's route for `shop/any`, at a port or for all of it.
fn add_route(world: &mut World, namespace: &str, port: Option<u16>) {
    let parent = ParentRef {
        group: Some(String::new()),
        kind: Some("Service".to_owned()),
        namespace: Some("shop".to_owned()),
        name: "any".to_owned(),
        section_name: None,
        port,
    };
    let route = HttpRoute {
        kind: RouteKind::Http,
        meta: Meta::new(namespace, "r", 1, 0),
        parent_refs: vec![parent],
        hostnames: Vec::new(),
        rules: Vec::new(),
    };
    world.http_routes.insert(route.meta.key.clone(), Arc::new(route));
}

#[test]
fn only_a_producers_route_that_names_a_port_makes_http_of_it() {
    let (mut world, mut resolver) = (world(), resolver());
    let ports = vec![port("web", 8000, None), port("own", 9000, None), port("tcp", 80, None)];
    add_service(&mut world, "any", &["10.96.0.7"], ports);
    let mut protocols = |world: &World| {
        let ports = &resolver.resolve(world).services[&ObjectKey::new("shop", "any")].ports;
        [8000, 9000, 80].map(|port: u16| ports[&port].protocol)
    };
    let undeclared = [Protocol::Detect, Protocol::Detect, Protocol::Tcp];
    assert_eq!(protocols(&world), undeclared);
    add_route(&mut world, "other", Some(8000));
    assert_eq!(protocols(&world), undeclared, "a consumer's");
    add_route(&mut world, "shop", None);
    assert_eq!(protocols(&world), undeclared, "on the other ports the server may speak first");
    add_route(&mut world, "shop", Some(8000));
    assert_eq!(protocols(&world), [Protocol::Http, Protocol::Detect, Protocol::Tcp]);
    world.http_routes.clear();
    assert_eq!(protocols(&world), undeclared);
}
