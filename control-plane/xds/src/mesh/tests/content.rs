//! What the resources say.

use envoy_types::pb::envoy::config::cluster::v3 as cds;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    TypedExtensionConfig, address, envoy_internal_address, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::Value;
use envoy_types::pb::envoy::extensions::filters::listener::set_filter_state::v3::Config;

use super::*;

#[test]
fn names_are_the_ones_that_agents_and_statistics_know() {
    let snapshot = snapshot(&shop(), "n1");
    assert_eq!(
        names(&snapshot, TypeUrl::Listener),
        [
            "inbound/checked",
            "inbound/http",
            "node",
            "node/detect",
            "node/mirror",
            "node/mtls",
            "pod/uid-cart/inbound",
            "pod/uid-cart/outbound",
            "pod/uid-front/inbound",
            "pod/uid-front/outbound",
        ]
    );
    assert_eq!(
        names(&snapshot, TypeUrl::Cluster),
        [
            "10.96.0.2:3306",
            "10.96.0.3:8000",
            "[fd96::3]:8000",
            "inbound",
            "inbound/app",
            "inbound/checked",
            "inbound/http",
            "mtls",
            "nobody",
            "node",
            "node/detect",
            "node/mirror",
            "node/mirror/2",
            "outbound|80|web|shop",
            "passthrough",
        ]
    );
    let by_address: cds::Cluster = decode(&snapshot, TypeUrl::Cluster, "[fd96::3]:8000");
    assert_eq!(by_address.alt_stat_name, "outbound|8000|any|shop");
    assert_eq!(by_address.eds_cluster_config.unwrap().service_name, "outbound|8000|any|shop");
}

#[test]
fn a_node_without_pods_has_what_all_have() {
    let snapshot = snapshot(&shop(), "n3");
    assert_eq!(
        names(&snapshot, TypeUrl::Listener),
        ["inbound/checked", "inbound/http", "node", "node/detect", "node/mirror", "node/mtls"]
    );
    assert!(snapshot.get(TypeUrl::Cluster, "mtls").is_some());
}

#[test]
fn listeners_of_pods_are_in_a_namespace_that_the_agent_knows() {
    let snapshot = snapshot(&shop(), "n2");
    for (name, port) in [("pod/uid-db/outbound", 15101), ("pod/uid-db/inbound", 15108)] {
        let listener: Listener = decode(&snapshot, TypeUrl::Listener, name);
        let Some(address::Address::SocketAddress(socket)) = listener.address.unwrap().address else {
            panic!("no socket")
        };
        assert_eq!(socket.network_namespace_filepath, "pod:uid-db");
        assert_eq!(socket.port_specifier, Some(socket_address::PortSpecifier::PortValue(port)));
        assert!(socket.address == "::" && socket.ipv4_compat, "both families");
    }
}

#[test]
fn only_what_is_no_pods_says_where_it_leaves_from() {
    let tracing = Tracing { host: "collector".to_owned(), port: 4317, sampling: 1 };
    let telemetry = Telemetry { tracing: Some(tracing), ..Telemetry::default() };
    let shared = Shared::new(TRUST_DOMAIN).with_telemetry(telemetry).next(&shop().mesh);
    let snapshot = node(&shared, &shop().mesh, "n1", PORTS);
    let has_own = |name: &String| {
        decode::<cds::Cluster>(&snapshot, TypeUrl::Cluster, name).upstream_bind_config.is_some()
    };
    assert_eq!(
        names(&snapshot, TypeUrl::Cluster).into_iter().filter(has_own).collect::<Vec<_>>(),
        ["otlp"],
        "it is nowhere for all others, in the bootstrap"
    );
}

fn endpoints(snapshot: &Snapshot, name: &str) -> Vec<LbEndpoint> {
    let assignment: ClusterLoadAssignment = decode(snapshot, TypeUrl::Endpoint, name);
    assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints).collect()
}

#[test]
fn an_endpoint_takes_mutual_tls_if_it_is_a_peer_and_only_then() {
    let cluster = shop().service("web", &[], 80, Protocol::Http, &[("10.0.1.2", 8080), ("10.0.3.1", 8080)]);
    let [peer, other] = endpoints(&snapshot(&cluster, "n1"), "outbound|80|web|shop").try_into().unwrap();
    let address = |endpoint: LbEndpoint| match endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => {
            (endpoint.address.unwrap().address.unwrap(), endpoint.hostname)
        }
        other => panic!("{other:?}"),
    };
    let (address::Address::EnvoyInternalAddress(through), hostname) = address(peer) else {
        panic!("goes out by itself")
    };
    let listener = envoy_internal_address::AddressNameSpecifier::ServerListenerName("node/mtls".to_owned());
    assert_eq!(through.address_name_specifier, Some(listener));
    assert_eq!((&*through.endpoint_id, &*hostname), ("10.0.1.2:8080/shop,cart,cart", "shop,cart,cart"));
    let (address::Address::SocketAddress(socket), hostname) = address(other) else {
        panic!("goes through mTLS")
    };
    assert_eq!((&*socket.address, &*hostname), ("10.0.3.1", "-"));
}

#[test]
fn draining_endpoints_are_the_last_resort() {
    let health = |mesh: &Cluster| -> Vec<i32> {
        let all = endpoints(&snapshot(mesh, "n1"), "outbound|80|web|shop");
        all.iter().map(|endpoint| endpoint.health_status).collect()
    };
    let mut cluster =
        shop().service("web", &[], 80, Protocol::Http, &[("10.0.1.2", 8080), ("10.0.2.1", 8080)]);
    let drain = |cluster: &mut Cluster, from: usize| {
        let services = Arc::make_mut(&mut cluster.mesh.services);
        let web = Arc::make_mut(services.get_mut(&ObjectKey::new("shop", "web")).unwrap());
        let endpoints = Arc::make_mut(&mut web.ports.get_mut(&80).unwrap().endpoints);
        let zone = endpoints.zones.get_mut("").unwrap();
        zone[from..].iter_mut().for_each(|endpoint| endpoint.health = EndpointHealth::Draining);
    };
    drain(&mut cluster, 1);
    assert_eq!(health(&cluster), [1, 3], "healthy, draining");
    drain(&mut cluster, 0);
    assert_eq!(health(&cluster), [1, 1]);
}

#[test]
fn http_is_routed_by_where_it_was_going() {
    let table: RouteConfiguration = decode(&snapshot(&shop(), "n1"), TypeUrl::Route, "node/http");
    assert_eq!(table.vhost_header, "x-meshwright-destination");
    assert_eq!(table.request_headers_to_remove, ["x-meshwright-destination"]);
    let hosts: Vec<_> = table
        .virtual_hosts
        .into_iter()
        .map(|host| {
            let Some(Action::Route(route)) = host.routes[0].action.clone() else { panic!("no route") };
            assert_eq!(route.timeout.unwrap().seconds, 0);
            assert!(route.retry_policy.is_none());
            let Some(ClusterSpecifier::Cluster(cluster)) = route.cluster_specifier else {
                panic!("no cluster")
            };
            (host.domains.join(" "), cluster)
        })
        .collect();
    let expected = [
        ("10.96.0.2:3306", "10.96.0.2:3306"),
        ("10.96.0.1:80 [fd96::1]:80", "outbound|80|web|shop"),
        ("10.96.0.3:8000", "10.96.0.3:8000"),
        ("[fd96::3]:8000", "[fd96::3]:8000"),
        ("*", "passthrough"),
    ];
    let mut hosts: Vec<_> =
        hosts.iter().map(|(domains, cluster)| (domains.as_str(), cluster.as_str())).collect();
    hosts.sort_unstable_by_key(|(domains, _)| expected.iter().position(|(known, _)| known == domains));
    assert_eq!(hosts, expected);
}

pub fn expressions(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let extension: TypedExtensionConfig = decode(snapshot, TypeUrl::ExtensionConfig, name);
    assert_eq!(extension.name, name);
    let config = Config::decode(extension.typed_config.unwrap().value.as_slice()).unwrap();
    let text = |value| {
        let Some(Value::FormatString(format)) = value else { panic!("no format") };
        let Some(Format::TextFormatSource(source)) = format.format else { panic!("no text") };
        let Some(Specifier::InlineString(text)) = source.specifier else { panic!("not inline") };
        text
    };
    config.on_accept.into_iter().map(|value| text(value.value)).collect()
}

#[test]
fn destinations_of_services_have_the_chain_of_their_protocol() {
    assert_eq!(
        expressions(&snapshot(&shop(), "n1"), "node/services"),
        [
            "%CEL(destination.address in ['10.96.0.3:8000','[fd96::3]:8000'] ? 'detect' : '')%",
            "%CEL(destination.address in ['10.96.0.1:80','[fd96::1]:80'] ? 'http' : '')%",
            "%CEL(destination.address in ['10.96.0.2:3306'] ? 'tcp' : '')%",
        ]
    );
}

#[test]
fn peers_are_looked_up_by_their_address_where_nothing_else_is_known() {
    assert_eq!(
        expressions(&snapshot(&shop(), "n1"), "node/peers"),
        [
            "%CEL(filter_state['meshwright.io/chain'] == b'direct' && filter_state['meshwright.io/address'] in \
         [b'10.0.1.1',b'10.0.1.2',b'10.0.2.1',b'fd00::1:1'] ? 'peer' : '')%",
        ]
    );
}

#[test]
fn what_is_no_address_is_left_out() {
    let cluster = shop().service("odd", &["None", "10.96.0.7'"], 80, Protocol::Tcp, &[("10.0.2.1", 80)]);
    let mut cluster = cluster;
    Arc::make_mut(&mut cluster.mesh.peers)
        .insert("x'".to_owned(), Peer { uid: "x".into(), identity: spiffe("x"), ..Peer::default() });
    let snapshot = snapshot(&cluster, "n1");
    assert_eq!(expressions(&snapshot, "node/services").len(), 3);
    assert!(!expressions(&snapshot, "node/services").iter().any(|text| text.contains("10.96.0.7")));
    assert!(!expressions(&snapshot, "node/peers")[0].contains('x'));
}

#[test]
fn long_lists_are_split_so_that_each_is_short_enough_for_envoy() {
    let mut cluster = shop();
    let services = Arc::make_mut(&mut cluster.mesh.services);
    let known = services[&ObjectKey::new("shop", "db")].clone();
    for number in 0..10_000 {
        let mut service = known.as_ref().clone();
        service.addresses = vec![format!("10.97.{}.{}", number / 250, number % 250)];
        services.insert(ObjectKey::new("shop", format!("db-{number}")), Arc::new(service));
    }
    let all = expressions(&snapshot(&cluster, "n1"), "node/services");
    assert!(all.iter().all(|text| text.len() < 90_000));
    let count = |text: &String| text.matches("'10.97.").count();
    assert_eq!(all.iter().map(count).sum::<usize>(), 10_000);
}
