//! Routes whose parent is a Service.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::fixtures::*;
use crate::config::{PortRoutes, RouteEntry, RuleAction};
use crate::model::*;
use crate::{Resolution, Resolver};

/// Ports of `infra/echo`: 80 and 8080 are HTTP, 7070 is not declared, 443 and 9090 are something else.
pub(super) fn with_echo() -> World {
    let mut world = world();
    let ports = [("http", 80), ("http-alt", 8080), ("https", 443), ("tcp", 9090), ("", 7070)];
    let ports = ports.map(|(name, port)| ServicePort {
        name: name.to_owned(),
        port,
        protocol: "TCP".to_owned(),
        app_protocol: None,
    });
    add_service(&mut world, "infra", "echo", None);
    change(&mut world, "echo", |service| service.ports = ports.to_vec());
    world
}

pub(super) fn change(world: &mut World, name: &str, change: impl FnOnce(&mut Service)) {
    change(Arc::make_mut(world.services.get_mut(&ObjectKey::new("infra", name)).unwrap()));
}

pub(super) fn service(name: &str, port: Option<u16>) -> ParentRef {
    ParentRef { group: Some(String::new()), kind: Some("Service".to_owned()), port, ..parent(name) }
}

pub(super) fn of(parent: ParentRef, route: HttpRoute) -> HttpRoute {
    HttpRoute { parent_refs: vec![parent], ..route }
}

pub(super) fn grpc(route: HttpRoute) -> HttpRoute {
    HttpRoute { kind: RouteKind::Grpc, ..route }
}

pub(super) fn add(world: &mut World, route: HttpRoute) {
    let all = match route.kind {
        RouteKind::Http => &mut world.http_routes,
        RouteKind::Grpc => &mut world.grpc_routes,
        RouteKind::Tcp => &mut world.tcp_routes,
    };
    all.insert(route.meta.key.clone(), Arc::new(route));
}

pub(super) fn ports(resolution: &Resolution) -> Vec<u16> {
    let all = resolution.services.get(&ObjectKey::new("infra", "echo"));
    all.into_iter().flat_map(BTreeMap::keys).copied().collect()
}

pub(super) fn at(resolution: &Resolution, port: u16) -> &PortRoutes {
    &resolution.services[&ObjectKey::new("infra", "echo")][&port]
}

pub(super) fn names(entries: &[Arc<RouteEntry>]) -> Vec<String> {
    entries.iter().map(|entry| format!("{}/{}", entry.route.name, entry.rule_index)).collect()
}

pub(super) fn told(
    resolution: &Resolution,
    id: (RouteKind, &str, &str),
    parent: usize,
) -> [(bool, &'static str); 2] {
    let status = &resolution.statuses.routes(id.0)[&ObjectKey::new(id.1, id.2)].parents[parent];
    ["Accepted", "ResolvedRefs"].map(|kind| state(&status.conditions, kind))
}

pub(super) const FINE: [(bool, &str); 2] = [(true, "Accepted"), (true, "ResolvedRefs")];

#[test]
fn without_a_port_it_is_for_all_ports_that_speak_http() {
    let mut world = with_echo();
    add(&mut world, of(service("echo", None), route("infra", "r", vec![rule("/", "v1")])));
    let resolution = run(&world);
    assert_eq!(ports(&resolution), [80, 7070, 8080]);
    assert_eq!(told(&resolution, (RouteKind::Http, "infra", "r"), 0), FINE);
    add(&mut world, of(service("echo", Some(8080)), route("infra", "r", vec![rule("/", "v1")])));
    assert_eq!(ports(&run(&world)), [8080]);
    let named = ParentRef { section_name: Some("http-alt".to_owned()), ..service("echo", None) };
    add(&mut world, of(named, route("infra", "r", vec![rule("/", "v1")])));
    assert_eq!(ports(&run(&world)), [8080]);
}

#[test]
fn a_port_is_named_by_a_producer_that_names_it() {
    let section = ParentRef { section_name: Some("http".to_owned()), ..service("echo", None) };
    for (namespace, parent, expected) in [
        ("infra", service("echo", None), false),
        ("infra", service("echo", Some(80)), true),
        ("infra", section, true),
        ("web", service("echo", Some(80)), false),
    ] {
        let mut world = with_echo();
        add(&mut world, of(parent.clone(), route(namespace, "r", vec![rule("/", "v1")])));
        assert_eq!(at(&run(&world), 80).is_named, expected, "{namespace} {parent:?}");
        add(&mut world, of(service("echo", None), route("infra", "all", vec![rule("/", "v1")])));
        let resolution = run(&world);
        assert_eq!(at(&resolution, 80).is_named, expected, "{namespace} {parent:?}");
        assert!(!at(&resolution, 7070).is_named, "another port");
    }
    // One that has lost the port does not count.
    let mut world = with_echo();
    add(&mut world, of(service("echo", Some(80)), route("infra", "r", vec![rule("/", "v1")])));
    add(&mut world, grpc(of(service("echo", None), route("infra", "g", vec![]))));
    assert!(!at(&run(&world), 80).is_named);
}

#[test]
fn what_cannot_be_a_parent_is_told_and_takes_nothing() {
    let section =
        |name: &str, port| ParentRef { section_name: Some(name.to_owned()), ..service("echo", port) };
    let cases = [
        (service("nobody", None), "no Service infra/nobody"),
        (service("echo", Some(81)), "Service infra/echo has no TCP port 81"),
        (section("http1", None), "Service infra/echo has no TCP port of name http1"),
        (section("http", Some(8080)), "Service infra/echo has no TCP port 8080 of name http"),
        (service("echo", Some(9090)), "port 9090 of Service infra/echo is not HTTP"),
        (service("headless", None), "Service infra/headless is headless"),
        (service("external", None), "Service infra/external is of type ExternalName"),
    ];
    for (parent, expected) in cases {
        let mut world = with_echo();
        add_service(&mut world, "infra", "headless", None);
        change(&mut world, "headless", |service| service.headless = true);
        add_service(&mut world, "infra", "external", None);
        change(&mut world, "external", |service| service.kind = ServiceType::ExternalName("x".to_owned()));
        add(&mut world, of(parent, route("infra", "r", vec![rule("/", "v1")])));
        let resolution = run(&world);
        assert!(resolution.services.is_empty(), "{expected}");
        let id = (RouteKind::Http, "infra", "r");
        assert_eq!(told(&resolution, id, 0), [(false, "NoMatchingParent"), FINE[1]], "{expected}");
        let message = &parent_status(&resolution, "infra", "r").conditions[0].message;
        assert!(message.starts_with(expected), "{message}");
    }
    // Another group's Service is none, and not ours to speak of.
    let mut world = with_echo();
    let foreign = ParentRef { group: Some("example.com".to_owned()), ..service("echo", None) };
    add(&mut world, of(foreign, route("infra", "r", vec![])));
    let unsaid = ParentRef { group: None, ..service("echo", None) };
    add(&mut world, of(unsaid, route("infra", "s", vec![])));
    assert!(run(&world).statuses.http_routes.is_empty());
}

#[test]
fn routes_of_a_namespace_are_merged_by_precedence_and_those_of_others_are_apart() {
    let mut world = with_echo();
    let young =
        of(service("echo", Some(80)), route("infra", "young", vec![rule("/a", "v1"), rule("/", "v1")]));
    let mut old =
        of(service("echo", None), route("infra", "old", vec![rule("/a/b", "v2"), rule("/a", "v2")]));
    old.meta.created = 1;
    old.hostnames = vec!["means.nothing".to_owned()];
    add(&mut world, young);
    add(&mut world, old);
    add(&mut world, of(service("echo", Some(80)), route("web", "theirs", vec![rule("/", "web")])));
    let resolution = run(&world);
    let routes = at(&resolution, 80);
    assert_eq!(names(routes.producer.as_ref().unwrap()), ["old/0", "old/1", "young/0", "young/1"]);
    assert_eq!(names(&routes.consumers["web"]), ["theirs/0"]);
    assert_eq!(names(at(&resolution, 8080).producer.as_ref().unwrap()), ["old/0", "old/1"]);
    assert!(at(&resolution, 8080).consumers.is_empty());
    world.http_routes.retain(|key, _| key.namespace == "web");
    assert_eq!(at(&run(&world), 80).producer, None, "who is not in web is not concerned");
}

#[test]
fn a_grpc_route_takes_a_port_from_http_routes_of_its_namespace() {
    let mut world = with_echo();
    add(&mut world, of(service("echo", Some(80)), route("infra", "http", vec![rule("/", "v1")])));
    add(&mut world, of(service("echo", None), route("infra", "both", vec![rule("/", "v1")])));
    add(&mut world, of(service("echo", Some(80)), route("web", "http", vec![rule("/", "web")])));
    let rules = vec![HttpRouteRule { backend_refs: vec![backend("v1", 1)], ..HttpRouteRule::default() }];
    add(&mut world, grpc(of(service("echo", Some(80)), route("infra", "grpc", rules))));
    let mut resolver = Resolver::new(crate::ControllerConfig::default());
    let resolution = resolver.resolve(&world);
    assert_eq!(names(at(&resolution, 80).producer.as_ref().unwrap()), ["grpc/0"]);
    assert_eq!(names(at(&resolution, 8080).producer.as_ref().unwrap()), ["both/0"]);
    assert_eq!(names(&at(&resolution, 80).consumers["web"]), ["http/0"]);
    let http = |resolution: &Resolution, name| told(resolution, (RouteKind::Http, "infra", name), 0)[0];
    assert_eq!(http(&resolution, "http"), (false, "Conflicted"));
    assert_eq!(http(&resolution, "both"), (true, "Accepted"), "it has other ports");
    let message = |resolution: &Resolution, name| {
        parent_status(resolution, "infra", name).conditions[0].message.clone()
    };
    assert!(
        message(&resolution, "both").starts_with("a GRPCRoute has port 80, "),
        "and hears of the lost one"
    );
    assert!(message(&resolution, "http").starts_with("a GRPCRoute has port 80, "));
    assert_eq!(told(&resolution, (RouteKind::Grpc, "infra", "grpc"), 0), FINE);
    assert_eq!(told(&resolution, (RouteKind::Http, "web", "http"), 0), FINE);
    world.grpc_routes.clear();
    let resolution = resolver.resolve(&world);
    assert_eq!(http(&resolution, "http"), (true, "Accepted"));
    assert_eq!(message(&resolution, "both"), "");
    assert_eq!(names(at(&resolution, 80).producer.as_ref().unwrap()), ["both/0", "http/0"]);
}

#[test]
fn a_gateway_and_a_service_as_parents_have_an_entry_each() {
    let mut world = with_echo();
    let mut both = route("infra", "r", vec![rule("/", "v1")]);
    both.parent_refs.extend([service("echo", Some(80)), service("echo", Some(9090))]);
    add(&mut world, both);
    let resolution = run(&world);
    let parents = &resolution.statuses.http_routes[&ObjectKey::new("infra", "r")].parents;
    let kinds: Vec<_> =
        parents.iter().map(|parent| (parent.parent_ref.kind.clone(), parent.parent_ref.port)).collect();
    let service = || Some("Service".to_owned());
    assert_eq!(kinds, [(None, None), (service(), Some(80)), (service(), Some(9090))]);
    let id = (RouteKind::Http, "infra", "r");
    assert_eq!([0, 1].map(|parent| told(&resolution, id, parent)), [FINE, FINE]);
    assert_eq!(told(&resolution, id, 2)[0], (false, "NoMatchingParent"));
    assert_eq!(listener_status(&resolution, "http").attached_routes, 1);
    // A GRPCRoute has no Gateway here that would take it.
    add(&mut world, grpc(route("infra", "g", vec![])));
    assert!(run(&world).statuses.grpc_routes.is_empty());
}

#[test]
fn without_a_mesh_services_are_no_parents() {
    let mut world = with_echo();
    let mut both = of(service("echo", Some(80)), route("infra", "both", vec![rule("/", "v1")]));
    both.parent_refs.push(parent("gw"));
    add(&mut world, both);
    add(&mut world, of(service("echo", Some(80)), route("infra", "r", vec![rule("/", "v1")])));
    add(&mut world, of(service("nobody", None), route("infra", "s", vec![rule("/", "v1")])));
    add(&mut world, grpc(of(service("echo", None), route("infra", "g", vec![]))));
    let config = crate::ControllerConfig { has_mesh: false, ..crate::ControllerConfig::default() };
    let resolution = crate::resolve(&world, &config);
    assert!(resolution.services.is_empty() && resolution.statuses.grpc_routes.is_empty());
    let told: Vec<_> = resolution
        .statuses
        .http_routes
        .iter()
        .map(|(key, status)| {
            let parents = status.parents.iter().map(|parent| parent.parent_ref.kind.as_deref());
            (key.name.as_str(), parents.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(told, [("both", vec![None])]);
}

#[test]
fn in_the_mesh_no_grant_is_needed() {
    let mut world = with_echo();
    let to = |namespace: &str, name: &str| HttpRouteRule {
        backend_refs: vec![HttpBackendRef {
            backend_ref: backend_ref(Some(namespace), name),
            ..backend("", 1)
        }],
        ..HttpRouteRule::default()
    };
    add_service(&mut world, "third", "other", None);
    let rules = || vec![to("infra", "v1"), to("third", "other"), to("web", "web")];
    for namespace in ["infra", "web"] {
        add(&mut world, of(service("echo", Some(80)), route(namespace, "r", rules())));
        add(&mut world, grpc(of(service("echo", Some(8080)), route(namespace, "r", rules()))));
        let resolution = run(&world);
        for (kind, port) in [(RouteKind::Http, 80), (RouteKind::Grpc, 8080)] {
            assert_eq!(told(&resolution, (kind, namespace, "r"), 0), FINE);
            let all = at(&resolution, port).entries().filter(|entry| entry.route.namespace == namespace);
            assert!(all.into_iter().all(|entry| matches!(entry.rule.action, RuleAction::Forward(_))));
        }
    }
    add(&mut world, of(service("echo", Some(80)), route("web", "r", vec![to("third", "absent")])));
    let id = (RouteKind::Http, "web", "r");
    assert_eq!(told(&run(&world), id, 0), [(true, "Accepted"), (false, "BackendNotFound")]);
    // For a Gateway one is.
    let gateway = parent("gw");
    let everybody = Listener { allowed_namespaces: FromNamespaces::All, ..listener("http", 80, None) };
    add_gateway(&mut world, super::fixtures::gateway(vec![everybody]));
    let mut both = of(service("echo", Some(80)), route("web", "r", vec![to("infra", "v1")]));
    both.parent_refs.push(gateway);
    add(&mut world, both);
    let resolution = run(&world);
    assert_eq!(told(&resolution, id, 0), FINE);
    assert_eq!(told(&resolution, id, 1)[1], (false, "RefNotPermitted"));
    grant(&mut world, "infra", ("HTTPRoute", "web"), ("Service", None));
    assert_eq!([0, 1].map(|parent| told(&run(&world), id, parent)), [FINE, FINE]);
}

#[test]
fn a_mirror_is_the_same_whether_the_parent_is_a_service_or_a_gateway() {
    let mut world = with_echo();
    let mirror = RequestMirror { backend_ref: backend_ref(None, "v2"), fraction: None };
    let mirrored = HttpRouteRule { filters: vec![HttpRouteFilter::RequestMirror(mirror)], ..rule("/", "v1") };
    let mut both = route("infra", "r", vec![mirrored]);
    both.parent_refs.push(service("echo", Some(80)));
    add(&mut world, both);
    let resolution = run(&world);
    let producer = at(&resolution, 80).producer.as_ref().unwrap();
    let names = producer[0].rule.clusters().map(|cluster| cluster.service.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["v1", "v2"]);
    assert_eq!(producer[0].rule.mirrors.len(), 1);
}

#[test]
fn calls_are_ordered_by_service_and_then_by_method() {
    let exact = |text: &str| Some(StringMatch::Exact(text.to_owned()));
    let matching = |path| HttpRouteRule {
        matches: vec![HttpRouteMatch { path, ..HttpRouteMatch::default() }],
        ..rule("/", "v1")
    };
    let call = |service, method| matching(PathMatch::Rpc { service, method });
    let like = |text: &str| Some(StringMatch::RegularExpression(text.to_owned()));
    let mut rules = vec![
        call(None, None),
        call(None, exact("LongestMethod")),
        call(exact("a.B"), None),
        call(exact("a.B"), exact("C")),
        call(like("a.B.+"), None),
        call(like("("), None),
    ];
    rules.push(HttpRouteRule { matches: Vec::new(), ..rule("/", "v1") });
    let mut world = with_echo();
    add(&mut world, grpc(of(service("echo", Some(80)), route("infra", "g", rules))));
    let resolution = run(&world);
    let order = names(at(&resolution, 80).producer.as_ref().unwrap());
    assert_eq!(order, ["g/4", "g/3", "g/2", "g/1", "g/0", "g/6"], "and not what no proxy would take");
    let status = &resolution.statuses.grpc_routes[&ObjectKey::new("infra", "g")].parents[0];
    assert!(status.conditions.iter().any(|condition| condition.kind == "PartiallyInvalid"));
}

/// Kind, namespace, whether for port 80 only, age, and prefixes, each with a header or not.
type Spec = (bool, usize, bool, i64, Vec<(usize, bool)>);

const NAMESPACES: [&str; 3] = ["infra", "web", "third"];
const PREFIXES: [&str; 3] = ["/", "/a", "/a/b"];

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    vec((any::<bool>(), 0_usize..3, any::<bool>(), 0_i64..3, vec((0_usize..3, any::<bool>()), 1..4)), 0..6)
}

fn build(specs: &[Spec]) -> World {
    let mut world = with_echo();
    for (index, (is_grpc, namespace, is_narrow, created, matches)) in specs.iter().enumerate() {
        let rules = matches.iter().map(|(prefix, has_header)| {
            let mut rule = rule(PREFIXES[*prefix], "v1");
            let header = ValueMatch { name: "x".to_owned(), value: StringMatch::Exact("1".to_owned()) };
            rule.matches[0].headers = has_header.then_some(header).into_iter().collect();
            rule
        });
        let parent = service("echo", is_narrow.then_some(80));
        let mut route = of(parent, route(NAMESPACES[*namespace], &format!("r{index}"), rules.collect()));
        route.meta.created = *created;
        add(&mut world, if *is_grpc { grpc(route) } else { route });
    }
    world
}

/// Which route and rule answers a request, None for 404; nothing at all where no route is about it. From the request's side.
fn oracle(
    specs: &[Spec],
    caller: usize,
    port: u16,
    path: &str,
    header: bool,
) -> Option<Option<(usize, usize)>> {
    let in_namespace = |namespace: usize| -> Vec<usize> {
        let all =
            (0..specs.len()).filter(|index| specs[*index].1 == namespace && (port == 80 || !specs[*index].2));
        let (grpc, http): (Vec<_>, Vec<_>) = all.partition(|index| specs[*index].0);
        if grpc.is_empty() { http } else { grpc }
    };
    let mut routes = in_namespace(caller);
    if routes.is_empty() {
        routes = in_namespace(0);
    }
    if routes.is_empty() {
        return None;
    }
    let mut best: Option<((usize, bool), i64, usize, usize)> = None;
    for index in routes {
        for (rule, (prefix, has_header)) in specs[index].4.iter().enumerate() {
            let prefix = PREFIXES[*prefix];
            let fits = prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
            if !fits || (*has_header && !header) {
                continue;
            }
            let found = ((prefix.len(), *has_header), specs[index].3, index, rule);
            let wins = |known: &((usize, bool), i64, usize, usize)| {
                found.0 > known.0
                    || (found.0 == known.0 && (found.1, found.2, found.3) < (known.1, known.2, known.3))
            };
            if best.as_ref().is_none_or(wins) {
                best = Some(found);
            }
        }
    }
    Some(best.map(|(_, _, index, rule)| (index, rule)))
}

fn answer(
    resolution: &Resolution,
    caller: &str,
    port: u16,
    path: &str,
    header: bool,
) -> Option<Option<(usize, usize)>> {
    let routes = resolution.services.get(&ObjectKey::new("infra", "echo"))?.get(&port)?;
    let entries = routes.consumers.get(caller).or(routes.producer.as_ref())?;
    let found = entries.iter().find(|entry| {
        let PathMatch::Prefix(prefix) = &entry.matches.path else { panic!("no prefix") };
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            && (entry.matches.headers.is_empty() || header)
    });
    Some(found.map(|entry| (entry.route.name[1..].parse().unwrap(), entry.rule_index)))
}

proptest! {
    #[test]
    fn each_request_gets_the_rule_that_is_meant(specs in specs()) {
        let resolution = run(&build(&specs));
        for (caller, name) in NAMESPACES.iter().enumerate() {
            for port in [80, 8080] {
                for path in ["/", "/a", "/ab", "/a/b", "/a/b/c"] {
                    for header in [false, true] {
                        let expected = oracle(&specs, caller, port, path, header);
                        prop_assert_eq!(answer(&resolution, name, port, path, header), expected, "{} {} {}", name, port, path);
                    }
                }
            }
        }
    }
}
