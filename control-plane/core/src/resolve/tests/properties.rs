//! What holds for any world.

use proptest::collection::vec;
use proptest::prelude::*;

use super::fixtures::*;
use crate::config::RuleAction;
use crate::model::*;

const HOSTS: &[&str] =
    &["*", "*.example.com", "a.example.com", "b.example.com", "*.a.example.com", "example.org"];
const SERVICES: &[&str] = &["v1", "v2", "absent"];

fn hostname() -> impl Strategy<Value = String> {
    proptest::sample::select(HOSTS).prop_map(str::to_owned)
}

fn namespaces() -> impl Strategy<Value = FromNamespaces> {
    let selector = LabelSelector {
        match_labels: [("name".to_owned(), "web".to_owned())].into(),
        ..LabelSelector::default()
    };
    prop_oneof![
        Just(FromNamespaces::Same),
        Just(FromNamespaces::All),
        Just(FromNamespaces::None),
        Just(FromNamespaces::Selector(selector)),
    ]
}

pub(super) fn listeners() -> impl Strategy<Value = Vec<Listener>> {
    let guard = || proptest::bool::weighted(0.2);
    vec((hostname(), 80_u16..82, namespaces(), guard()), 1..4).prop_map(|specs| {
        let build =
            |(index, (host, port, allowed, guard)): (usize, (String, u16, FromNamespaces, bool))| Listener {
                hostname: (host != "*").then_some(host),
                allowed_namespaces: allowed,
                missing_guard: guard.then(|| "spec.listeners.filters".to_owned()),
                ..listener(&format!("l{index}"), port, None)
            };
        specs.into_iter().enumerate().map(build).collect()
    })
}

/// In namespace `web` or not, hostnames, backends with weights, age, port of the parentRef.
type RouteSpec = (bool, Vec<String>, Vec<(&'static str, u32)>, i64, Option<u16>);

pub(super) fn routes() -> impl Strategy<Value = Vec<HttpRoute>> {
    let backends = vec((proptest::sample::select(SERVICES), 0_u32..4), 0..3);
    let spec = (any::<bool>(), vec(hostname(), 0..3), backends, 0_i64..3, proptest::option::of(80_u16..83));
    vec(spec, 0..6).prop_map(|specs| {
        let build = |(index, (in_web, hosts, backends, created, port)): (usize, RouteSpec)| {
            let backend_refs = backends.iter().map(|(name, weight)| backend(name, *weight)).collect();
            let namespace = if in_web { "web" } else { "infra" };
            HttpRoute {
                kind: RouteKind::Http,
                meta: Meta::new(namespace, format!("r{index}"), 1, created),
                parent_refs: vec![ParentRef { port, ..parent("gw") }],
                hostnames: hosts.into_iter().filter(|host| host != "*").collect(),
                rules: vec![HttpRouteRule { backend_refs, ..HttpRouteRule::default() }],
            }
        };
        specs.into_iter().enumerate().map(build).collect()
    })
}

fn build(listeners: &[Listener], routes: &[HttpRoute], backwards: bool) -> World {
    let mut world = world();
    add_gateway(&mut world, gateway(listeners.to_vec()));
    let mut routes = routes.to_vec();
    if backwards {
        routes.reverse();
    }
    for route in routes {
        add_route(&mut world, route);
    }
    world
}

/// May this route serve this host on this listener? Written from the listener's side and with plain string
/// operations.
fn may_serve(listener: &Listener, route: &HttpRoute, host: &str) -> bool {
    let namespace = route.meta.key.namespace.as_str();
    let welcome = match &listener.allowed_namespaces {
        FromNamespaces::Same => namespace == "infra",
        FromNamespaces::All => true,
        FromNamespaces::None => false,
        FromNamespaces::Selector(_) => namespace == "web",
    };
    // Any request for `host`, with the wildcard replaced by a label that nobody mentions.
    let request = host.replace('*', "zz");
    let fits = |pattern: &str| match pattern.split_once('*') {
        None => pattern == request,
        Some((_, suffix)) => request.ends_with(suffix) && request.len() > suffix.len(),
    };
    let port =
        route.parent_refs.iter().any(|reference| reference.port.is_none_or(|port| port == listener.port));
    listener.missing_guard.is_none()
        && welcome
        && port
        && listener.hostname.as_deref().is_none_or(fits)
        && (route.hostnames.is_empty() || route.hostnames.iter().any(|pattern| fits(pattern)))
}

proptest! {
    #[test]
    fn no_route_attaches_without_permission(listeners in listeners(), routes in routes()) {
        let world = build(&listeners, &routes, false);
        let resolution = run(&world);
        for configured in config(&resolution).ports.iter().flat_map(|port| &port.listeners) {
            let spec = listeners.iter().find(|spec| spec.name == configured.name).unwrap();
            for host in &configured.virtual_hosts {
                for entry in &host.routes {
                    let route = &world.http_routes[&entry.route];
                    prop_assert!(may_serve(spec, route, &host.hostname), "{:?} {} {:?}", spec, host.hostname, route);
                }
            }
        }
    }

    #[test]
    fn no_host_of_a_port_is_answered_by_two_listeners(listeners in listeners(), routes in routes()) {
        let resolution = run(&build(&listeners, &routes, false));
        for port in &config(&resolution).ports {
            let hosts = port.listeners.iter().flat_map(|listener| &listener.virtual_hosts);
            let mut hosts: Vec<_> = hosts.map(|host| &host.hostname).collect();
            let all = hosts.len();
            hosts.sort();
            hosts.dedup();
            prop_assert_eq!(all, hosts.len());
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(listeners in listeners(), routes in routes()) {
        let one = run(&build(&listeners, &routes, false));
        let two = run(&build(&listeners, &routes, true));
        prop_assert_eq!(one, two);
    }

    #[test]
    fn weights_add_up(routes in routes()) {
        let all = Listener { allowed_namespaces: FromNamespaces::All, ..listener("all", 80, None) };
        let world = build(&[all], &routes, false);
        let resolution = run(&world);
        for listener in config(&resolution).ports.iter().flat_map(|port| &port.listeners) {
            for entry in listener.virtual_hosts.iter().flat_map(|host| &host.routes) {
                let asked = &world.http_routes[&entry.route].rules[entry.rule_index].backend_refs;
                let total: u32 = asked.iter().map(|backend| backend.weight).sum();
                match &entry.rule.action {
                    RuleAction::Forward(forward) => {
                        prop_assert_eq!(forward.backends.iter().map(|backend| backend.weight).sum::<u32>(), total);
                        prop_assert!(forward.backends.iter().all(|backend| backend.weight > 0));
                        prop_assert!(forward.backends.iter().any(|backend| backend.cluster.is_some()));
                    }
                    _ => {
                        let key = |name: &String| ObjectKey::new(entry.route.namespace.clone(), name.clone());
                        let exists = |name: &String| world.services.contains_key(&key(name));
                        let lost = asked.iter().any(|asked| asked.weight > 0 && exists(&asked.backend_ref.name));
                        prop_assert!(!lost);
                    }
                }
            }
        }
    }
}
