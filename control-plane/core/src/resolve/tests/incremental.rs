//! What is kept from one resolution to the next changes nothing but the work.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::fixtures::{parent as parent_of, *};
use super::properties::{listeners, routes};
use crate::model::*;
use crate::{ControllerConfig, Resolver, resolve};

/// Something that happens to a world. Numbers and flags choose among a few names.
#[derive(Debug, Clone)]
enum Step {
    Gateway(bool, Vec<Listener>),
    GatewayGone(bool),
    /// With an HTTPS listener, whose Secret is in another namespace or not.
    Secure(bool, bool),
    /// With a second parentRef or not, and a backend in another namespace or not.
    Route(HttpRoute, Option<bool>, bool),
    RouteGone(usize),
    /// A route for a Service, beside its Gateway or not, of any kind.
    AtService(HttpRoute, RouteKind, bool),
    OtherRouteGone(bool, usize),
    /// A path that is none, or a filter that is not supported, spoils a rule.
    Spoilt(usize, bool),
    Service(bool, Option<&'static str>),
    ServiceGone(bool),
    Grants(Option<bool>),
    Labels(&'static str),
    Secret(bool, u8),
    Refused(Option<usize>),
    Observed(bool, u32),
    Parameters(bool),
    Class(bool),
    Bundle(bool),
}

fn kind() -> impl Strategy<Value = RouteKind> {
    proptest::sample::select(vec![RouteKind::Http, RouteKind::Grpc, RouteKind::Tcp])
}

fn step() -> impl Strategy<Value = Step> {
    let route = || routes().prop_filter_map("no route", |mut routes| routes.pop());
    prop_oneof![
        2 => (any::<bool>(), listeners()).prop_map(|(second, all)| Step::Gateway(second, all)),
        1 => any::<bool>().prop_map(Step::GatewayGone),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(second, foreign)| Step::Secure(second, foreign)),
        8 => (route(), proptest::option::of(any::<bool>()), any::<bool>())
            .prop_map(|(route, parent, foreign)| Step::Route(route, parent, foreign)),
        3 => (0_usize..6).prop_map(Step::RouteGone),
        6 => (route(), kind(), any::<bool>())
            .prop_map(|(route, kind, second)| Step::AtService(route, kind, second)),
        1 => (any::<bool>(), 0_usize..6).prop_map(|(is_tcp, index)| Step::OtherRouteGone(is_tcp, index)),
        2 => (0_usize..6, any::<bool>()).prop_map(|(index, other)| Step::Spoilt(index, other)),
        2 => (any::<bool>(), prop_oneof![Just(None), Just(Some("kubernetes.io/h2c")), Just(Some("kubernetes.io/x"))])
            .prop_map(|(second, protocol)| Step::Service(second, protocol)),
        1 => any::<bool>().prop_map(Step::ServiceGone),
        2 => proptest::option::of(any::<bool>()).prop_map(Step::Grants),
        1 => prop_oneof![Just("web"), Just("infra")].prop_map(Step::Labels),
        2 => (any::<bool>(), 0_u8..4).prop_map(|(foreign, state)| Step::Secret(foreign, state)),
        1 => proptest::option::of(0_usize..7).prop_map(Step::Refused),
        1 => (any::<bool>(), 0_u32..3).prop_map(|(second, ready)| Step::Observed(second, ready)),
        1 => any::<bool>().prop_map(Step::Parameters),
        1 => any::<bool>().prop_map(Step::Class),
        1 => any::<bool>().prop_map(Step::Bundle),
    ]
}

fn name(second: bool) -> ObjectKey {
    ObjectKey::new("infra", if second { "second" } else { "gw" })
}

fn secret(foreign: bool) -> ObjectKey {
    ObjectKey::new(if foreign { "web" } else { "infra" }, "cert")
}

fn route_at(world: &World, index: usize) -> Option<ObjectKey> {
    world.http_routes.keys().nth(index).cloned()
}

fn put_gateway(world: &mut World, second: bool, listeners: Vec<Listener>, parameters: bool) {
    let reference = || ParametersRef {
        group: MESHWRIGHT_GROUP.to_owned(),
        kind: "GatewayParameters".to_owned(),
        namespace: None,
        name: "large".to_owned(),
    };
    let mut gateway = Gateway { class_name: "meshwright".to_owned(), ..gateway(listeners) };
    gateway.meta.key = name(second);
    gateway.infrastructure.parameters_ref = parameters.then(reference);
    add_gateway(world, gateway);
}

fn happen(world: &mut World, step: Step) {
    match step {
        Step::Gateway(second, listeners) => put_gateway(world, second, listeners, second),
        Step::GatewayGone(second) => drop(world.gateways.remove(&name(second))),
        Step::Secure(second, foreign) => {
            let key = secret(foreign);
            let secure = https("https", None, &[(&key.namespace, &key.name)]);
            put_gateway(world, second, vec![listener("l0", 80, None), secure], false);
        }
        Step::Route(mut route, parent, foreign) => {
            let section =
                |gateway: &str| ParentRef { section_name: Some("l0".to_owned()), ..parent_of(gateway) };
            route.parent_refs.extend(parent.map(|second| section(&name(second).name)));
            if foreign {
                let backend_ref = backend_ref(Some("web"), "web");
                route.rules[0].backend_refs.push(HttpBackendRef { backend_ref, ..backend("web", 1) });
            }
            add_route(world, route);
        }
        Step::RouteGone(index) => {
            route_at(world, index).map(|key| world.http_routes.remove(&key));
        }
        Step::AtService(mut route, kind, second) => {
            let service = ParentRef {
                group: Some(String::new()),
                kind: Some("Service".to_owned()),
                ..parent_of(if second { "v2" } else { "v1" })
            };
            route.parent_refs.push(service);
            route.kind = kind;
            let all = match kind {
                RouteKind::Http => &mut world.http_routes,
                RouteKind::Grpc => &mut world.grpc_routes,
                RouteKind::Tcp => &mut world.tcp_routes,
            };
            all.insert(route.meta.key.clone(), Arc::new(route));
        }
        Step::OtherRouteGone(is_tcp, index) => {
            let all = if is_tcp { &mut world.tcp_routes } else { &mut world.grpc_routes };
            let key = all.keys().nth(index).cloned();
            key.map(|key| all.remove(&key));
        }
        Step::Spoilt(index, other) => {
            if let Some(key) = route_at(world, index) {
                let mut route = HttpRoute::clone(&world.http_routes[&key]);
                match other {
                    true => route.rules.push(rule("no path", "v1")),
                    false => route.rules[0].filters = vec![HttpRouteFilter::Unsupported("X".to_owned())],
                }
                add_route(world, route);
            }
        }
        Step::Service(second, protocol) => {
            add_service(world, "infra", if second { "v2" } else { "v1" }, protocol);
        }
        Step::ServiceGone(second) => {
            world.services.remove(&ObjectKey::new("infra", if second { "v2" } else { "v1" }));
        }
        Step::Grants(Some(true)) => grant(world, "web", ("Gateway", "infra"), ("Secret", None)),
        Step::Grants(Some(false)) => grant(world, "web", ("HTTPRoute", "infra"), ("Service", Some("web"))),
        Step::Grants(None) => world.reference_grants.clear(),
        Step::Labels(of) => {
            let labels = [("name".to_owned(), of.to_owned())].into();
            world.namespaces.insert("web".to_owned(), Arc::new(Namespace { labels }));
        }
        Step::Secret(foreign, state) => {
            let key = secret(foreign);
            match state {
                0 => drop(world.secrets.remove(&key)),
                1 => drop(world.secrets.insert(key, Arc::new(SecretState::Missing))),
                _ => add_certificate(world, &key.namespace, &key.name),
            }
        }
        Step::Refused(which) => {
            let route = which.and_then(|index| route_at(world, index));
            let kind = |key: &ObjectKey| match key.namespace.as_str() {
                "web" => ObjectKind::GrpcRoute,
                _ => ObjectKind::HttpRoute,
            };
            let route = route.map(|key| ObjectId { kind: kind(&key), key });
            let gateway = which.map(|_| ObjectId { kind: ObjectKind::Gateway, key: name(false) });
            world.rejections =
                route.or(gateway).into_iter().map(|object| (object, "no".to_owned())).collect();
        }
        Step::Observed(second, ready) => {
            let deployment = DeploymentState::Ready { ready };
            let observed = GatewayObservation { deployment, ..GatewayObservation::default() };
            world.gateway_observations.insert(name(second), Arc::new(observed));
        }
        Step::Parameters(there) => {
            let parameters = GatewayParameters { meta: Meta::new("infra", "large", 1, 0) };
            match there {
                true => {
                    drop(world.gateway_parameters.insert(parameters.meta.key.clone(), Arc::new(parameters)))
                }
                false => world.gateway_parameters.clear(),
            }
        }
        Step::Class(ours) => {
            let class = world.gateway_classes.get_mut("meshwright").unwrap();
            let name = if ours { "meshwright.io/gateway-controller" } else { "example.com/other" };
            Arc::make_mut(class).controller_name = name.to_owned();
        }
        Step::Bundle(known) => world.crd_bundle_version = known.then(|| "v1.7.0".to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn what_is_kept_changes_nothing_but_the_work(steps in vec(vec(step(), 1..4), 1..12)) {
        let config = ControllerConfig::default();
        let (mut world, mut resolver) = (world(), Resolver::new(config.clone()));
        for steps in steps {
            let said = format!("{steps:?}");
            steps.into_iter().for_each(|step| happen(&mut world, step));
            prop_assert_eq!(resolver.resolve(&world), resolve(&world, &config), "after {}", said);
        }
    }
}

#[test]
fn what_did_not_change_keeps_its_address() {
    let mut world = world();
    put_gateway(&mut world, true, vec![listener("http", 80, None)], false);
    let mut second = route("infra", "second", vec![rule("/", "v1")]);
    second.parent_refs = vec![parent_of("second")];
    add_route(&mut world, second);
    let with_host = |name: &str| HttpRoute {
        hostnames: vec![format!("{name}.example.com")],
        ..route("infra", name, vec![rule("/", "v1")])
    };
    add_route(&mut world, with_host("a"));
    let mut resolver = Resolver::new(ControllerConfig::default());
    let before = resolver.resolve(&world);
    add_route(&mut world, with_host("b"));
    let after = resolver.resolve(&world);
    let config = |resolution: &crate::Resolution, second| resolution.gateways[&name(second)].clone();
    assert!(Arc::ptr_eq(&config(&before, true), &config(&after, true)));
    assert!(!Arc::ptr_eq(&config(&before, false), &config(&after, false)));
    let host = |resolution: &crate::Resolution| {
        let hosts = config(resolution, false).ports[0].listeners[0].virtual_hosts.clone();
        hosts.into_iter().find(|host| host.hostname == "a.example.com").unwrap()
    };
    assert!(Arc::ptr_eq(&host(&before), &host(&after)));
}
