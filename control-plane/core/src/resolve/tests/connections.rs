//! TCPRoutes whose parent is a Service.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::fixtures::*;
use super::services::*;
use crate::Resolution;
use crate::config::{ClusterRef, RouteEntry, RuleAction};
use crate::mesh::{Protocol, Rules};
use crate::model::*;

/// To these Services, each with its weight.
fn tcp(namespace: &str, name: &str, port: Option<u16>, backends: &[(&str, u32)]) -> HttpRoute {
    let backend_refs = backends.iter().map(|(name, weight)| backend(name, *weight)).collect();
    let rules = vec![HttpRouteRule { backend_refs, ..HttpRouteRule::default() }];
    HttpRoute { kind: RouteKind::Tcp, ..of(service("echo", port), route(namespace, name, rules)) }
}

/// Where connections go, by name and weight; `-` is nowhere.
fn split(entry: &RouteEntry) -> Vec<String> {
    let RuleAction::Forward(forward) = &entry.rule.action else { return Vec::new() };
    let name = |cluster: Option<&ClusterRef>| cluster.map_or("-", |cluster| &cluster.service.name).to_owned();
    let all = forward.backends.iter();
    all.map(|backend| format!("{} {}", name(backend.cluster.as_ref()), backend.weight)).collect()
}

fn told_tcp(resolution: &Resolution, name: &str) -> [(bool, &'static str); 2] {
    told(resolution, (RouteKind::Tcp, "infra", name), 0)
}

fn message(resolution: &Resolution, namespace: &str, name: &str) -> String {
    let status = &resolution.statuses.tcp_routes[&ObjectKey::new(namespace, name)];
    status.parents[0].conditions[0].message.clone()
}

fn protocol(world: &World, port: u16) -> Protocol {
    let mut world = world.clone();
    change(&mut world, "echo", |service| service.cluster_ips = vec!["10.0.0.1".to_owned()]);
    let routes = run(&world).services;
    let mesh = crate::mesh::resolve(&world, &Rules::default(), "td", &routes);
    mesh.services[&ObjectKey::new("infra", "echo")].ports[&port].protocol
}

#[test]
fn it_is_for_every_tcp_port_and_makes_tcp_of_it() {
    let mut world = with_echo();
    assert_eq!(
        [80, 7070, 9090].map(|port| protocol(&world, port)),
        [Protocol::Http, Protocol::Detect, Protocol::Tcp]
    );
    add(&mut world, tcp("infra", "r", None, &[("v1", 9), ("v2", 1), ("none", 2), ("v1", 0)]));
    let resolution = run(&world);
    assert_eq!(ports(&resolution), [80, 443, 7070, 8080, 9090]);
    for port in ports(&resolution) {
        let routes = at(&resolution, port);
        let producer = routes.connections.producer.as_ref().unwrap();
        assert_eq!(split(producer), ["v1 9", "v2 1", "- 2"]);
        assert!(!routes.has_requests() && !routes.is_named);
        assert_eq!(protocol(&world, port), Protocol::Tcp);
    }
    assert_eq!(told_tcp(&resolution, "r"), [FINE[0], (false, "BackendNotFound")]);
    // A consumer's changes nothing for others.
    world.tcp_routes.clear();
    add(&mut world, tcp("web", "r", Some(80), &[("web", 1)]));
    let resolution = run(&world);
    assert_eq!(ports(&resolution), [80]);
    assert_eq!(split(&at(&resolution, 80).connections.consumers["web"]), ["web 1"]);
    assert_eq!(at(&resolution, 80).connections.producer, None);
    assert_eq!(protocol(&world, 80), Protocol::Http);
}

#[test]
fn where_it_leads_any_protocol_is_spoken_and_the_service_itself_may_be() {
    let mut world = with_echo();
    let own = HttpBackendRef {
        backend_ref: BackendRef { port: Some(9090), ..backend_ref(None, "echo") },
        ..backend("", 1)
    };
    let mut route = tcp("infra", "r", Some(9090), &[("v1", 1)]);
    route.rules[0].backend_refs.push(own);
    add(&mut world, route);
    change(&mut world, "v1", |service| {
        service.ports[0].app_protocol = Some("kubernetes.io/other".to_owned())
    });
    let resolution = run(&world);
    assert_eq!(told_tcp(&resolution, "r"), FINE);
    let clusters = at(&resolution, 9090).connections.entries().flat_map(|entry| entry.rule.clusters());
    let clusters: Vec<_> = clusters.map(|cluster| (cluster.service.name.as_str(), cluster.port)).collect();
    assert_eq!(clusters, [("v1", 8080), ("echo", 9090)]);
}

#[test]
fn without_a_backend_nothing_is_forwarded_and_the_status_says_so() {
    let mut world = with_echo();
    add(&mut world, tcp("infra", "r", Some(9090), &[("none", 1)]));
    let resolution = run(&world);
    let action = |resolution: &Resolution| {
        at(resolution, 9090).connections.producer.as_ref().unwrap().rule.action.clone()
    };
    assert_eq!(action(&resolution), RuleAction::Fail);
    assert_eq!(told_tcp(&resolution, "r"), [FINE[0], (false, "BackendNotFound")]);
    add(&mut world, tcp("infra", "r", Some(9090), &[("v1", 0)]));
    let resolution = run(&world);
    assert_eq!((action(&resolution), told_tcp(&resolution, "r")), (RuleAction::Fail, FINE));
    let mut foreign = tcp("infra", "r", Some(9090), &[("v1", 1)]);
    foreign.rules[0].backend_refs[0].backend_ref.kind = Some("Bucket".to_owned());
    add(&mut world, foreign);
    assert_eq!(told_tcp(&run(&world), "r")[1], (false, "InvalidKind"));
}

#[test]
fn of_several_rules_the_first_is_in_force_and_the_status_says_so() {
    let mut world = with_echo();
    let mut long = tcp("infra", "r", Some(9090), &[("v1", 1)]);
    long.rules.extend(tcp("infra", "r", None, &[("v2", 1)]).rules);
    add(&mut world, long);
    let resolution = run(&world);
    assert_eq!(split(at(&resolution, 9090).connections.producer.as_ref().unwrap()), ["v1 1"]);
    assert_eq!(told_tcp(&resolution, "r"), FINE);
    let said = message(&resolution, "infra", "r");
    assert_eq!(said, "each connection is for the first rule: the others do nothing");
}

#[test]
fn routes_about_requests_take_a_port_from_it_and_the_older_of_two_has_it() {
    let mut world = with_echo();
    let mut old = tcp("infra", "old", None, &[("v1", 1)]);
    old.meta.created = 1;
    add(&mut world, old);
    add(&mut world, tcp("infra", "young", Some(9090), &[("v2", 1)]));
    add(&mut world, tcp("infra", "lost", Some(80), &[("v2", 1)]));
    add(&mut world, tcp("web", "theirs", Some(80), &[("web", 1)]));
    add(&mut world, of(service("echo", Some(80)), route("infra", "http", vec![rule("/", "v1")])));
    add(&mut world, grpc(of(service("echo", Some(8080)), route("infra", "grpc", vec![rule("/", "v1")]))));
    let resolution = run(&world);
    let producer =
        |port| at(&resolution, port).connections.producer.as_ref().map(|entry| entry.route.name.as_str());
    assert_eq!([80, 8080, 7070, 9090].map(producer), [None, None, Some("old"), Some("old")]);
    assert_eq!(names(at(&resolution, 80).producer.as_ref().unwrap()), ["http/0"]);
    assert_eq!(
        split(&at(&resolution, 80).connections.consumers["web"]),
        ["web 1"],
        "another namespace's own"
    );
    assert_eq!(told_tcp(&resolution, "lost")[0], (false, "Conflicted"));
    assert!(message(&resolution, "infra", "lost").starts_with("an HTTPRoute has port 80, and only"));
    assert_eq!(told_tcp(&resolution, "old"), FINE);
    let both = message(&resolution, "infra", "old");
    assert!(
        both.contains("an HTTPRoute has port 80") && both.contains("a GRPCRoute has port 8080"),
        "{both}"
    );
    // As for listeners of Gateways, it is accepted and waits.
    assert_eq!(told_tcp(&resolution, "young"), FINE);
    assert_eq!(
        message(&resolution, "infra", "young"),
        "TCPRoute infra/old is older and has port 9090, for as long as it is there"
    );
    assert_eq!(message(&resolution, "web", "theirs"), "");
    world.tcp_routes.remove(&ObjectKey::new("infra", "old"));
    let resolution = run(&world);
    assert_eq!(at(&resolution, 9090).connections.producer.as_ref().unwrap().route.name, "young");
    assert_eq!(message(&resolution, "infra", "young"), "");
}

#[test]
fn a_gateway_has_no_listener_for_it_and_says_so() {
    let mut world = with_echo();
    let mut both = tcp("infra", "r", Some(9090), &[("v1", 1)]);
    both.parent_refs.push(parent("gw"));
    both.parent_refs.push(ParentRef { section_name: Some("none".to_owned()), ..parent("gw") });
    both.parent_refs.push(parent("of-another-controller"));
    add(&mut world, both);
    let resolution = run(&world);
    let of = |parent| told(&resolution, (RouteKind::Tcp, "infra", "r"), parent);
    assert_eq!(
        [of(0), of(1), of(2)],
        [FINE, [(false, "NotAllowedByListeners"), FINE[1]], [(false, "NoMatchingParent"), FINE[1]]]
    );
    assert_eq!(resolution.statuses.tcp_routes.values().next().unwrap().parents.len(), 3);
    assert_eq!(listener_status(&resolution, "http").attached_routes, 0);
    assert!(hosts(&resolution, "http").iter().all(|(_, routes)| routes.is_empty()));
    // Nor is it looked at where there is no mesh.
    let config = crate::ControllerConfig { has_mesh: false, ..crate::ControllerConfig::default() };
    assert!(crate::resolve(&world, &config).services.is_empty());
}

/// Kind, namespace, port or all, age.
type Spec = (RouteKind, usize, Option<u16>, i64);

const NAMESPACES: [&str; 3] = ["infra", "web", "third"];

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let kinds = vec![RouteKind::Tcp, RouteKind::Tcp, RouteKind::Http, RouteKind::Grpc];
    let port = proptest::option::of(proptest::sample::select(vec![80_u16, 9090]));
    vec((proptest::sample::select(kinds), 0_usize..3, port, 0_i64..3), 0..7)
}

fn build(specs: &[Spec]) -> World {
    let mut world = with_echo();
    for (index, (kind, namespace, port, created)) in specs.iter().enumerate() {
        let mut route = tcp(NAMESPACES[*namespace], &format!("r{index}"), *port, &[("v1", 1)]);
        (route.kind, route.meta.created) = (*kind, *created);
        add(&mut world, route);
    }
    world
}

/// The TCPRoute that decides about a connection, None if there is none, or routes about requests decide. From the connection's side.
fn oracle(specs: &[Spec], caller: usize, port: u16) -> Option<usize> {
    let of = |namespace: usize| -> Vec<usize> {
        let is_about = |spec: &Spec| {
            let speaks = spec.0 == RouteKind::Tcp || port != 9090;
            spec.1 == namespace && spec.2.is_none_or(|wanted| wanted == port) && speaks
        };
        (0..specs.len()).filter(|index| is_about(&specs[*index])).collect()
    };
    let own = of(caller);
    let all = if own.is_empty() { of(0) } else { own };
    if all.iter().any(|index| specs[*index].0 != RouteKind::Tcp) {
        return None;
    }
    all.into_iter().min_by_key(|index| (specs[*index].3, *index))
}

proptest! {
    #[test]
    fn each_connection_gets_the_route_that_is_meant(specs in specs()) {
        let world = build(&specs);
        let resolution = run(&world);
        for (caller, name) in NAMESPACES.iter().enumerate() {
            for port in [80, 9090] {
                let routes = resolution.services.get(&ObjectKey::new("infra", "echo")).and_then(|ports| ports.get(&port));
                let entry = routes.and_then(|routes| {
                    let own = routes.connections.consumers.get(*name);
                    let producer = routes.connections.producer.as_ref().filter(|_| !routes.consumers.contains_key(*name));
                    own.or(producer)
                });
                let found = entry.map(|entry| entry.route.name[1..].parse::<usize>().unwrap());
                prop_assert_eq!(found, oracle(&specs, caller, port), "{} {}", name, port);
                // Who has routes of one kind has none of the other.
                if let Some(routes) = routes {
                    prop_assert!(routes.producer.is_none() || routes.connections.producer.is_none());
                    let of_requests: BTreeSet<_> = routes.consumers.keys().collect();
                    prop_assert!(!routes.connections.consumers.keys().any(|namespace| of_requests.contains(namespace)));
                }
            }
        }
        // Whoever does not hold anywhere is told: it is not accepted, or there is a sentence about it.
        for (key, status) in &resolution.statuses.tcp_routes {
            let holds = resolution.services.values().flat_map(|ports| ports.values()).any(|routes| {
                routes.connections.entries().any(|entry| entry.route == **key)
            });
            let accepted = &status.parents[0].conditions[0];
            prop_assert!(holds || !accepted.message.is_empty(), "{}", key);
        }
    }
}
