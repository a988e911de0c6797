//! Attaching, following references, virtual hosts.

use super::fixtures::*;
use crate::config::{BackendProtocol, RuleAction};
use crate::model::*;

fn accepted(world: &World, namespace: &str, name: &str) -> (bool, &'static str) {
    state(&parent_status(&run(world), namespace, name).conditions, "Accepted")
}

fn resolved(world: &World, name: &str) -> (bool, &'static str) {
    state(&parent_status(&run(world), "infra", name).conditions, "ResolvedRefs")
}

fn action(resolution: &crate::Resolution, index: usize) -> &RuleAction {
    &config_of(resolution, "http").virtual_hosts[0].routes[index].rule.action
}

#[test]
fn a_route_attaches_and_is_counted_once_for_two_ways_to_a_listener() {
    let mut world = world();
    let mut simple = route("infra", "r", vec![rule("/", "v1")]);
    simple.parent_refs.push(ParentRef { section_name: Some("http".to_owned()), ..parent("gw") });
    add_route(&mut world, simple);
    let resolution = run(&world);
    assert_eq!(resolution.statuses.http_routes[&ObjectKey::new("infra", "r")].parents.len(), 2);
    assert_eq!(listener_status(&resolution, "http").attached_routes, 1);
    assert_eq!(hosts(&resolution, "http"), [("*".to_owned(), vec!["r/0".to_owned()])]);
    let conditions = &parent_status(&resolution, "infra", "r").conditions;
    assert!(conditions.iter().all(|condition| condition.is_true() && condition.observed_generation == 7));
}

#[test]
fn each_way_not_to_attach_has_its_reason() {
    let mut world = world();
    let with = |section: Option<&str>, port: Option<u16>| HttpRoute {
        parent_refs: vec![ParentRef { section_name: section.map(str::to_owned), port, ..parent("gw") }],
        ..route("infra", "r", vec![rule("/", "v1")])
    };
    for bad in [with(Some("http1"), Some(80)), with(None, Some(81)), with(Some("http"), Some(81))] {
        add_route(&mut world, bad);
        assert_eq!(accepted(&world, "infra", "r"), (false, "NoMatchingParent"));
        assert_eq!(resolved(&world, "r"), (true, "ResolvedRefs"));
    }
    add_route(&mut world, with(Some("http"), Some(80)));
    assert_eq!(accepted(&world, "infra", "r"), (true, "Accepted"));
    add_route(&mut world, route("web", "w", vec![rule("/", "web")]));
    assert_eq!(accepted(&world, "web", "w"), (false, "NotAllowedByListeners"));
    add_gateway(&mut world, gateway(vec![listener("http", 80, Some("a.example.com"))]));
    let hostnames = vec!["b.example.com".to_owned()];
    add_route(&mut world, HttpRoute { hostnames, ..with(None, None) });
    assert_eq!(accepted(&world, "infra", "r"), (false, "NoMatchingListenerHostname"));
    assert_eq!(listener_status(&run(&world), "http").attached_routes, 0);
}

#[test]
fn parents_that_are_not_ours_get_no_status() {
    let mut world = world();
    let parent_refs = vec![parent("unknown"), ParentRef { kind: Some("Service".to_owned()), ..parent("gw") }];
    add_route(&mut world, HttpRoute { parent_refs, ..route("infra", "r", vec![]) });
    assert!(run(&world).statuses.http_routes.is_empty());
}

#[test]
fn references_that_lead_nowhere_answer_500_and_say_why() {
    let mut world = world();
    let unknown = BackendRef { kind: Some("NonExistent".to_owned()), ..backend_ref(None, "v1") };
    let cases = [
        (unknown, "InvalidKind"),
        (backend_ref(None, "absent"), "BackendNotFound"),
        (backend_ref(Some("web"), "web"), "RefNotPermitted"),
        (backend_ref(Some("web"), "absent"), "RefNotPermitted"),
        (BackendRef { port: Some(1), ..backend_ref(None, "v1") }, "BackendNotFound"),
    ];
    for (reference, reason) in cases {
        let bad = HttpBackendRef { backend_ref: reference, ..backend("v1", 1) };
        let rules = vec![HttpRouteRule { backend_refs: vec![bad], ..HttpRouteRule::default() }];
        add_route(&mut world, route("infra", "r", rules));
        assert_eq!(resolved(&world, "r"), (false, reason));
        assert_eq!(accepted(&world, "infra", "r"), (true, "Accepted"));
        assert_eq!(action(&run(&world), 0), &RuleAction::Fail);
    }
    let elsewhere = HttpBackendRef { backend_ref: backend_ref(Some("web"), "web"), ..backend("v1", 1) };
    let rules = vec![HttpRouteRule { backend_refs: vec![elsewhere], ..HttpRouteRule::default() }];
    add_route(&mut world, route("infra", "r", rules));
    grant(&mut world, "web", ("HTTPRoute", "infra"), ("Service", Some("web")));
    assert_eq!(resolved(&world, "r"), (true, "ResolvedRefs"));
}

#[test]
fn unresolved_backends_keep_their_share_and_zero_weights_vanish() {
    let mut world = world();
    let backend_refs = vec![backend("v1", 3), backend("absent", 1), backend("v2", 0)];
    add_route(
        &mut world,
        route("infra", "r", vec![HttpRouteRule { backend_refs, ..HttpRouteRule::default() }]),
    );
    let resolution = run(&world);
    let RuleAction::Forward(forward) = action(&resolution, 0) else { panic!("expected backends") };
    let shares: Vec<_> =
        forward.backends.iter().map(|backend| (backend.cluster.is_some(), backend.weight)).collect();
    assert_eq!(shares, [(true, 3), (false, 1)]);
    let none = vec![
        HttpRouteRule::default(),
        HttpRouteRule { backend_refs: vec![backend("v1", 0)], ..HttpRouteRule::default() },
    ];
    add_route(&mut world, route("infra", "r", none));
    let resolution = run(&world);
    assert_eq!((action(&resolution, 0), action(&resolution, 1)), (&RuleAction::Fail, &RuleAction::Fail));
    assert_eq!(resolved(&world, "r"), (true, "ResolvedRefs"));
}

#[test]
fn app_protocol_chooses_how_to_speak() {
    let mut world = world();
    add_route(&mut world, route("infra", "r", vec![rule("/", "v1")]));
    let mut with = |name: Option<&str>| {
        add_service(&mut world, "infra", "v1", name);
        let resolution = run(&world);
        config(&resolution).clusters().first().map(|cluster| cluster.protocol)
    };
    assert_eq!(with(None), Some(BackendProtocol::Http1));
    assert_eq!(with(Some("kubernetes.io/ws")), Some(BackendProtocol::Http1));
    assert_eq!(with(Some("kubernetes.io/h2c")), Some(BackendProtocol::H2c));
    assert_eq!(with(Some("kubernetes.io/wss")), None);
    assert_eq!(resolved(&world, "r"), (false, "UnsupportedProtocol"));
}

#[test]
fn an_unsupported_rule_answers_500_and_keeps_its_requests() {
    let mut world = world();
    let bad = HttpRouteRule {
        filters: vec![HttpRouteFilter::Unsupported("ExtensionRef".to_owned())],
        ..rule("/special", "v1")
    };
    add_route(&mut world, route("infra", "r", vec![rule("/", "v1"), bad.clone()]));
    let resolution = run(&world);
    assert_eq!(accepted(&world, "infra", "r"), (true, "Accepted"));
    let conditions = &parent_status(&resolution, "infra", "r").conditions;
    assert_eq!(state(conditions, "PartiallyInvalid"), (true, "UnsupportedValue"));
    assert!(conditions[2].message.starts_with("Dropped Rule"));
    // `/special` comes first, and nothing wider takes its requests.
    assert_eq!(hosts(&resolution, "http")[0].1, ["r/1", "r/0"]);
    assert_eq!(action(&resolution, 0), &RuleAction::Fail);
    add_route(&mut world, route("infra", "r", vec![bad]));
    assert_eq!(accepted(&world, "infra", "r"), (false, "UnsupportedValue"));
    let resolution = run(&world);
    assert_eq!(hosts(&resolution, "http")[0].1, ["r/0"]);
    assert_eq!(listener_status(&resolution, "http").attached_routes, 0);
}

#[test]
fn what_no_proxy_would_take_is_not_given_to_one() {
    let with = |path| HttpRouteMatch { path, ..HttpRouteMatch::default() };
    let header = |name: &str| HttpRouteMatch {
        headers: vec![ValueMatch { name: name.to_owned(), value: StringMatch::Exact("1".to_owned()) }],
        ..HttpRouteMatch::default()
    };
    let bad = HttpRouteRule {
        matches: vec![
            with(PathMatch::RegularExpression("(".to_owned())),
            header("no token"),
            with(PathMatch::Exact("no path".to_owned())),
            header("token"),
        ],
        ..rule("/", "v1")
    };
    let mut world = world();
    add_route(&mut world, route("infra", "r", vec![bad, rule("/", "v1")]));
    let resolution = run(&world);
    let conditions = &parent_status(&resolution, "infra", "r").conditions;
    assert_eq!(state(conditions, "PartiallyInvalid"), (true, "UnsupportedValue"));
    assert_eq!(hosts(&resolution, "http")[0].1, ["r/0", "r/1"]);
    assert_eq!(action(&resolution, 0), &RuleAction::Fail, "what can be matched is answered");
}

#[test]
fn a_listener_answers_only_for_hosts_that_no_narrower_one_owns() {
    let mut world = world();
    let listeners = [
        ("any", None),
        ("wide", Some("*.example.com")),
        ("narrow", Some("*.foo.example.com")),
        ("exact", Some("abc.foo.example.com")),
    ];
    add_gateway(
        &mut world,
        gateway(listeners.iter().map(|(name, host)| listener(name, 80, *host)).collect()),
    );
    for (name, _) in listeners {
        let hostnames = ["bar.com", "*.example.com", "*.foo.example.com", "abc.foo.example.com"];
        add_route(
            &mut world,
            HttpRoute {
                parent_refs: vec![ParentRef { section_name: Some(name.to_owned()), ..parent("gw") }],
                hostnames: hostnames.map(str::to_owned).to_vec(),
                ..route("infra", name, vec![rule("/", "v1")])
            },
        );
    }
    let resolution = run(&world);
    let only = |host: &str, routes: &[&str]| {
        (host.to_owned(), routes.iter().map(|route| (*route).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(hosts(&resolution, "any"), [only("*", &[]), only("bar.com", &["any/0"])]);
    assert_eq!(hosts(&resolution, "wide"), [only("*.example.com", &["wide/0"])]);
    assert_eq!(hosts(&resolution, "narrow"), [only("*.foo.example.com", &["narrow/0"])]);
    assert_eq!(hosts(&resolution, "exact"), [only("abc.foo.example.com", &["exact/0"])]);
}

#[test]
fn within_one_host_the_routes_own_hostname_decides_first() {
    let mut world = world();
    add_gateway(&mut world, gateway(vec![listener("http", 80, Some("abc.example.com"))]));
    let with = |name: &str, host: &str, created: i64, prefix: &str| HttpRoute {
        meta: Meta::new("infra", name, 1, created),
        hostnames: vec![host.to_owned()],
        ..route("infra", name, vec![rule(prefix, "v1")])
    };
    add_route(&mut world, with("older", "*.example.com", 1, "/path/prefix"));
    add_route(&mut world, with("newer", "abc.example.com", 2, "/path"));
    assert_eq!(
        hosts(&run(&world), "http"),
        [("abc.example.com".to_owned(), vec!["newer/0".to_owned(), "older/0".to_owned()])]
    );
}

#[test]
fn matches_are_ordered_by_the_api() {
    let mut world = world();
    let header = |name: &str| ValueMatch { name: name.to_owned(), value: StringMatch::Exact("x".to_owned()) };
    let matches = |path: PathMatch| HttpRouteMatch { path, ..HttpRouteMatch::default() };
    let prefix = |text: &str| PathMatch::Prefix(text.to_owned());
    let all = [
        matches(prefix("/")),
        HttpRouteMatch { query_params: vec![header("q")], ..matches(prefix("/")) },
        HttpRouteMatch { headers: vec![header("a"), header("A")], ..matches(prefix("/")) },
        HttpRouteMatch { headers: vec![header("a"), header("b")], ..matches(prefix("/")) },
        HttpRouteMatch { method: Some("GET".to_owned()), ..matches(prefix("/")) },
        matches(prefix("/longer/")),
        matches(PathMatch::RegularExpression("/r.*".to_owned())),
        matches(PathMatch::Exact("/e".to_owned())),
    ];
    let rules = all.iter().map(|matches| HttpRouteRule { matches: vec![matches.clone()], ..rule("/", "v1") });
    add_route(&mut world, route("infra", "r", rules.collect()));
    assert_eq!(hosts(&run(&world), "http")[0].1, ["r/7", "r/6", "r/5", "r/4", "r/3", "r/2", "r/1", "r/0"]);
}
