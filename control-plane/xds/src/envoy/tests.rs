//! Translation, looked at through the decoded protos; and, with `ENVOY_BIN`, through Envoy's eyes.

mod age;
mod encoded;
mod parts;
mod serve;
mod validate;

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::{Metadata, socket_address::PortSpecifier};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{RedirectAction, RouteAction, RouteConfiguration};
use envoy_types::pb::google::protobuf::value;
use meshwright_core::config::*;
use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
use meshwright_core::mesh::Peer;
use meshwright_core::model::*;
use prost::Message;

use super::path::Rewrite;
use super::*;

fn service(name: &str) -> ClusterRef {
    ClusterRef { service: ObjectKey::new("shop", name), port: 8080, protocol: BackendProtocol::Http1 }
}

fn backend(name: Option<&str>, weight: u32) -> WeightedBackend {
    WeightedBackend {
        cluster: name.map(service),
        weight,
        request_headers: HeaderModifier::default(),
        response_headers: HeaderModifier::default(),
    }
}

fn forward(backends: Vec<WeightedBackend>) -> CompiledRule {
    let action = RuleAction::Forward(Forward { backends, rewrite: None });
    CompiledRule { action, ..CompiledRule::default() }
}

fn entry(prefix: &str, rule: CompiledRule) -> RouteEntry {
    RouteEntry {
        kind: RouteKind::Http,
        route: ObjectKey::new("shop", "cart"),
        rule_index: 0,
        match_index: 0,
        matches: HttpRouteMatch { path: PathMatch::Prefix(prefix.to_owned()), ..HttpRouteMatch::default() },
        rule: Arc::new(rule),
    }
}

fn listener(
    name: &str,
    hostname: &str,
    secrets: &[&str],
    hosts: Vec<(&str, Vec<RouteEntry>)>,
) -> ListenerConfig {
    ListenerConfig {
        name: name.to_owned(),
        hostname: hostname.to_owned(),
        certificates: secrets.iter().map(|name| ObjectKey::new("shop", *name)).collect(),
        virtual_hosts: hosts
            .into_iter()
            .map(|(hostname, routes)| {
                let routes = routes.into_iter().map(Arc::new).collect();
                Arc::new(VirtualHostConfig { hostname: hostname.to_owned(), routes })
            })
            .collect(),
    }
}

fn port(port: u16, protocol: PortProtocol, listeners: Vec<ListenerConfig>) -> PortConfig {
    PortConfig { port, protocol, listeners }
}

fn ready(_: &ClusterRef) -> Endpoints {
    let endpoint =
        |address: &str, health| Endpoint { address: address.to_owned(), port: 3000, health, node: None };
    let endpoints =
        vec![endpoint("10.0.0.1", EndpointHealth::Ready), endpoint("10.0.0.2", EndpointHealth::Draining)];
    Endpoints { zones: [("zone-a".to_owned(), endpoints)].into() }
}

fn config(ports: Vec<PortConfig>) -> GatewayConfig {
    GatewayConfig { gateway: ObjectKey::new("infra", "gw"), ports }
}

fn translated(ports: Vec<PortConfig>) -> Translation {
    translated_with(&config(ports), &Options::default(), &mut ready, &mut |_| None)
}

/// With clusters and endpoints.
fn translated_with(
    config: &GatewayConfig,
    options: &Options,
    endpoints: &mut dyn FnMut(&ClusterRef) -> Endpoints,
    certificate: &mut dyn FnMut(&ObjectKey) -> Option<TlsCertificate>,
) -> Translation {
    let mut translation = translate(config, options, certificate, &EncodedHosts::default());
    for cluster in config.clusters() {
        let backends = Backends::new(Arc::new(endpoints(cluster)), &BTreeMap::new());
        translation.add(TypeUrl::Endpoint, endpoint::resource(cluster, &backends));
        translation.add(TypeUrl::Cluster, cluster::resource(cluster, &backends));
    }
    translation
}

fn decode<T: Message + Default>(translation: &Translation, kind: TypeUrl, name: &str) -> T {
    let resource = &translation.resources[&kind][name];
    T::decode(resource.body().value.as_slice()).unwrap()
}

fn only_route(rule: CompiledRule, prefix: &str, number: u16) -> Action {
    let listener = listener("http", "*", &[], vec![("*", vec![entry(prefix, rule)])]);
    let translation = translated(vec![port(number, PortProtocol::Http, vec![listener])]);
    let routes: RouteConfiguration = decode(&translation, TypeUrl::Route, &format!("infra/gw/{number}"));
    routes.virtual_hosts[0].routes[0].action.clone().unwrap()
}

fn route_action(rule: CompiledRule) -> RouteAction {
    match only_route(rule, "/", 80) {
        Action::Route(action) => action,
        other => panic!("expected a route, got {other:?}"),
    }
}

fn redirect_action(to: RequestRedirect, number: u16) -> RedirectAction {
    let rule = CompiledRule { action: RuleAction::Redirect(to), ..CompiledRule::default() };
    match only_route(rule, "/old", number) {
        Action::Redirect(action) => action,
        other => panic!("expected a redirect, got {other:?}"),
    }
}

#[test]
fn clusters_and_endpoints_have_stable_names_and_origins() {
    let hosts = || vec![("*", vec![entry("/", forward(vec![backend(Some("cart"), 1)]))])];
    let ports = || {
        vec![
            port(80, PortProtocol::Http, vec![listener("http", "*", &[], hosts())]),
            port(443, PortProtocol::Https, vec![listener("https", "*", &["a"], hosts())]),
            port(444, PortProtocol::Https, vec![listener("broken", "*", &[], hosts())]),
        ]
    };
    let translation = translated(ports());
    let name = "outbound|8080|cart.shop";
    let cluster: Cluster = decode(&translation, TypeUrl::Cluster, name);
    assert_eq!(cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 0.0);
    let assignment: ClusterLoadAssignment = decode(&translation, TypeUrl::Endpoint, name);
    let health: Vec<_> =
        assignment.endpoints[0].lb_endpoints.iter().map(|endpoint| endpoint.health_status).collect();
    assert_eq!(health, [1, 3], "healthy, draining");
    let config = config(ports());
    let kinds =
        |kind, name| origins(&config, kind, name).into_iter().map(|origin| origin.kind).collect::<Vec<_>>();
    let (gateway, route) = (ObjectKind::Gateway, ObjectKind::HttpRoute);
    for (kind, name, expected) in [
        (TypeUrl::Cluster, name, vec![gateway, route]),
        (TypeUrl::Endpoint, name, vec![gateway, route]),
        (TypeUrl::Cluster, "outbound|8080|web.shop", vec![]),
        (TypeUrl::Route, "infra/gw/80", vec![gateway, route]),
        (TypeUrl::Route, "infra/gw/443/https", vec![gateway, route]),
        (TypeUrl::Route, "infra/gw/444/broken", vec![]),
        (TypeUrl::Listener, "infra/gw/443", vec![gateway]),
        (TypeUrl::Listener, "infra/gw/444", vec![]),
        (TypeUrl::Secret, "kubernetes://shop/a", vec![gateway]),
        (TypeUrl::Secret, "kubernetes://shop/b", vec![]),
    ] {
        assert_eq!(kinds(kind, name), expected, "{kind} {name}");
    }
}

#[test]
fn draining_endpoints_are_the_last_resort() {
    let endpoint =
        Endpoint { address: "10.0.0.2".to_owned(), port: 3000, health: EndpointHealth::Draining, node: None };
    let endpoints = Endpoints { zones: [(String::new(), vec![endpoint])].into() };
    let backends = Backends::new(Arc::new(endpoints), &BTreeMap::new());
    let resource = endpoint::resource(&service("cart"), &backends);
    let assignment = ClusterLoadAssignment::decode(resource.body().value.as_slice()).unwrap();
    assert_eq!(assignment.endpoints[0].lb_endpoints[0].health_status, 1);
}

/// A pod of the mesh, one that is not, and one of the mesh with another identity.
#[test]
fn backends_in_the_mesh_get_mutual_tls_each_with_its_own_identity() {
    let endpoint = |last: u8| Endpoint {
        address: format!("10.0.0.{last}"),
        port: 3000,
        health: EndpointHealth::Ready,
        node: None,
    };
    let endpoints = Arc::new(Endpoints { zones: [(String::new(), [1, 2, 3].map(endpoint).to_vec())].into() });
    let peer = |last: u8, account: &str| {
        let identity = format!("spiffe://td/ns/shop/sa/{account}");
        (
            format!("10.0.0.{last}"),
            Peer { uid: format!("uid-{last}").into(), identity: identity.into(), ..Peer::default() },
        )
    };
    let peers = BTreeMap::from([peer(1, "cart"), peer(3, "other"), peer(9, "elsewhere")]);
    let backends = Backends::new(endpoints.clone(), &peers);
    let resource = endpoint::resource(&service("cart"), &backends);
    let assignment = ClusterLoadAssignment::decode(resource.body().value.as_slice()).unwrap();
    let seen = assignment.endpoints[0].lb_endpoints.iter().map(|found| {
        let Some(HostIdentifier::Endpoint(endpoint)) = &found.host_identifier else { panic!("{found:?}") };
        let Some(Address::SocketAddress(address)) = endpoint.address.as_ref().unwrap().address.as_ref()
        else {
            panic!("{endpoint:?}")
        };
        let named = |metadata: &Metadata| {
            let value =
                metadata.filter_metadata["envoy.transport_socket_match"].fields["identity"].kind.clone();
            match value {
                Some(value::Kind::StringValue(identity)) => identity,
                other => panic!("{other:?}"),
            }
        };
        let port = match address.port_specifier {
            Some(PortSpecifier::PortValue(port)) => port,
            _ => 0,
        };
        (address.address.as_str(), port, endpoint.hostname.as_str(), found.metadata.as_ref().map(named))
    });
    let identity = |account: &str| Some(format!("spiffe://td/ns/shop/sa/{account}"));
    let expected = [
        ("10.0.0.1", 15008, "3000", identity("cart")),
        ("10.0.0.2", 3000, "", None),
        ("10.0.0.3", 15008, "3000", identity("other")),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    let resource = cluster::resource(&service("cart"), &backends);
    let cluster = Cluster::decode(resource.body().value.as_slice()).unwrap();
    let names: Vec<_> = cluster.transport_socket_matches.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["spiffe://td/ns/shop/sa/cart", "spiffe://td/ns/shop/sa/other"]);
    let plain = cluster::resource(&service("cart"), &Backends::new(endpoints, &BTreeMap::new()));
    let cluster = Cluster::decode(plain.body().value.as_slice()).unwrap();
    assert_eq!(cluster.transport_socket_matches, []);
}

#[test]
fn translation_is_deterministic() {
    let build = || {
        let secure = listener("https", "*.example.com", &["a", "b"], vec![("*.example.com", vec![])]);
        let hosts =
            vec![("*", vec![entry("/", forward(vec![backend(Some("cart"), 1), backend(Some("web"), 2)]))])];
        translated(vec![
            port(80, PortProtocol::Http, vec![listener("http", "*", &[], hosts)]),
            port(443, PortProtocol::Https, vec![secure]),
        ])
    };
    assert_eq!(build().resources, build().resources);
}

#[test]
fn unresolved_shares_and_failed_rules_answer_500() {
    let action = route_action(forward(vec![backend(Some("cart"), 3), backend(None, 1)]));
    assert_eq!(action.cluster_not_found_response_code, 2, "internal server error");
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = action.cluster_specifier else {
        panic!("no weights")
    };
    let shares: Vec<_> =
        weighted.clusters.iter().map(|share| (share.name.as_str(), share.weight.unwrap().value)).collect();
    assert_eq!(shares, [("outbound|8080|cart.shop", 3), ("unresolved", 1)]);
    let Action::DirectResponse(answer) = only_route(CompiledRule::default(), "/", 80) else {
        panic!("no answer")
    };
    assert_eq!(answer.status, 500);
}

#[test]
fn timeouts_are_off_unless_asked_for_and_retries_hide_only_what_nobody_saw() {
    let plain = route_action(forward(vec![backend(Some("cart"), 1)]));
    assert_eq!(plain.timeout.unwrap().seconds, 0);
    let retry = plain.retry_policy.unwrap();
    assert_eq!(retry.retry_on, "connect-failure,refused-stream,reset-before-request");
    assert!(retry.per_try_timeout.is_none());
    let rule = CompiledRule {
        request_timeout: Some(Duration::from_millis(500)),
        backend_request_timeout: Some(Duration::from_millis(200)),
        retry: Some(RetryConfig { codes: vec![500], attempts: 3, backoff: None }),
        ..forward(vec![backend(Some("cart"), 1)])
    };
    let asked = route_action(rule);
    assert_eq!(asked.timeout.unwrap().nanos, 500_000_000);
    let retry = asked.retry_policy.unwrap();
    assert_eq!(retry.retry_on, "connect-failure,refused-stream,reset,retriable-status-codes");
    assert_eq!((retry.num_retries.unwrap().value, retry.retriable_status_codes), (3, vec![500]));
    assert_eq!(retry.per_try_timeout.unwrap().nanos, 200_000_000);
}

#[test]
fn redirects_write_the_port_only_where_it_is_not_understood() {
    let to = |scheme: Option<&str>, port| RequestRedirect {
        scheme: scheme.map(str::to_owned),
        port,
        ..RequestRedirect::default()
    };
    let ports = [
        (to(None, None), 80, 0),
        (to(None, None), 8080, 8080),
        (to(None, Some(80)), 8080, 0),
        (to(None, Some(8080)), 80, 8080),
        (to(Some("https"), None), 8080, 0),
        (to(Some("https"), Some(443)), 80, 0),
        (to(Some("https"), Some(8443)), 80, 8443),
    ];
    for (redirect, listener, expected) in ports {
        assert_eq!(
            redirect_action(redirect.clone(), listener).port_redirect,
            expected,
            "{redirect:?} on {listener}"
        );
    }
}

#[test]
fn rewrites_keep_single_slashes_at_the_seam() {
    let prefix = |from: &str, to: &str| {
        path::rewrite(&PathModifier::ReplacePrefixMatch(to.to_owned()), &PathMatch::Prefix(from.to_owned()))
    };
    assert_eq!(prefix("/a", "/b"), Rewrite::Prefix("/b".to_owned()));
    assert_eq!(prefix("/", "/b"), Rewrite::Prefix("/b/".to_owned()));
    let Rewrite::Regex(stripped) = prefix("/a.b", "/") else { panic!("no expression") };
    assert_eq!(
        (stripped.pattern.unwrap().regex.as_str(), stripped.substitution.as_str()),
        (r"^/a\.b/?(.*)$", r"/\1")
    );
}

#[test]
fn every_tls_listener_has_a_chain_and_other_listeners_hosts_get_421() {
    let own = |host: &'static str| vec![(host, vec![entry("/", forward(vec![backend(Some("cart"), 1)]))])];
    let listeners = vec![
        listener("any", "*", &["a"], own("*")),
        listener("one", "one.example.com", &["a"], own("one.example.com")),
        listener("broken", "*.example.com", &[], own("*.example.com")),
    ];
    let translation = translated(vec![port(443, PortProtocol::Https, listeners)]);
    let proto: Listener = decode(&translation, TypeUrl::Listener, "infra/gw/443");
    let chains: Vec<_> = proto.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(chains, ["any", "one"]);
    let names: Vec<_> = proto.filter_chains[1].filter_chain_match.clone().unwrap().server_names;
    assert_eq!(names, ["one.example.com"]);
    let hosts = |name: &str| {
        let routes: RouteConfiguration =
            decode(&translation, TypeUrl::Route, &format!("infra/gw/443/{name}"));
        routes.virtual_hosts.into_iter().map(|host| host.name).collect::<Vec<_>>()
    };
    assert_eq!(hosts("any"), ["*", "misdirected/*.example.com", "misdirected/one.example.com"]);
    assert_eq!(hosts("one"), ["misdirected/*", "misdirected/*.example.com", "one.example.com"]);
}

#[test]
fn a_port_without_any_certificate_is_not_opened() {
    let broken = listener("broken", "*", &[], vec![("*", vec![])]);
    let config = config(vec![port(443, PortProtocol::Https, vec![broken])]);
    let translation = translate(&config, &Options::default(), &mut |_| None, &EncodedHosts::default());
    assert!(translation.resources.is_empty());
}
