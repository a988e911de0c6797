//! A small world to change: one class, one Gateway `infra/gw`, Services `v1`, `v2` in `infra` and `web` in
//! `web`.

use std::sync::Arc;

use crate::config::{GatewayConfig, ListenerConfig};
use crate::model::*;
use crate::status::{ConditionStatus, ConditionUpdate, GatewayStatus, ListenerStatus, RouteParentStatus};
use crate::{ControllerConfig, Resolution, resolve};

pub(super) fn world() -> World {
    let mut world = World { crd_bundle_version: Some("v1.7.0".to_owned()), ..World::default() };
    let class = GatewayClass {
        meta: Meta::new("", "meshwright", 1, 0),
        controller_name: "meshwright.io/gateway-controller".to_owned(),
        parameters_ref: None,
    };
    world.gateway_classes.insert("meshwright".to_owned(), Arc::new(class));
    for namespace in ["infra", "web"] {
        let labels = [("name".to_owned(), namespace.to_owned())].into();
        world.namespaces.insert(namespace.to_owned(), Arc::new(Namespace { labels }));
    }
    add_service(&mut world, "infra", "v1", None);
    add_service(&mut world, "infra", "v2", None);
    add_service(&mut world, "web", "web", None);
    add_gateway(&mut world, gateway(vec![listener("http", 80, None)]));
    world
}

pub(super) fn add_service(world: &mut World, namespace: &str, name: &str, app_protocol: Option<&str>) {
    let service = Service {
        meta: Meta::new(namespace, name, 1, 0),
        kind: ServiceType::Cluster,
        headless: false,
        has_selector: true,
        balancing: Default::default(),
        cluster_ips: Vec::new(),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 8080,
            protocol: "TCP".to_owned(),
            app_protocol: app_protocol.map(str::to_owned),
        }],
    };
    world.services.insert(service.meta.key.clone(), Arc::new(service));
}

pub(super) fn gateway(listeners: Vec<Listener>) -> Gateway {
    Gateway {
        meta: Meta::new("infra", "gw", 3, 0),
        class_name: "meshwright".to_owned(),
        listeners,
        addresses: Vec::new(),
        infrastructure: Infrastructure::default(),
        unsupported_fields: Vec::new(),
    }
}

/// Adds or replaces a Gateway, with proxies that are ready.
pub(super) fn add_gateway(world: &mut World, gateway: Gateway) {
    let key = gateway.meta.key.clone();
    let observed = GatewayObservation {
        addresses: vec![AssignedAddress { kind: AddressType::IpAddress, value: "192.0.2.1".to_owned() }],
        deployment: DeploymentState::Ready { ready: 2 },
    };
    world.gateway_observations.insert(key.clone(), Arc::new(observed));
    world.gateways.insert(key, Arc::new(gateway));
}

pub(super) fn listener(name: &str, port: u16, hostname: Option<&str>) -> Listener {
    Listener {
        name: name.to_owned(),
        hostname: hostname.map(str::to_owned),
        port,
        protocol: "HTTP".to_owned(),
        tls: None,
        allowed_namespaces: FromNamespaces::Same,
        allowed_kinds: Vec::new(),
        missing_guard: None,
    }
}

pub(super) fn https(name: &str, hostname: Option<&str>, secrets: &[(&str, &str)]) -> Listener {
    let references = secrets.iter().map(|(namespace, name)| CertificateRef {
        group: Some(String::new()),
        kind: Some("Secret".to_owned()),
        namespace: Some((*namespace).to_owned()),
        name: (*name).to_owned(),
    });
    let tls = ListenerTls {
        certificate_refs: references.collect(),
        mode: TlsMode::Terminate,
        options: Default::default(),
    };
    Listener { protocol: "HTTPS".to_owned(), tls: Some(tls), ..listener(name, 443, hostname) }
}

pub(super) fn add_certificate(world: &mut World, namespace: &str, name: &str) {
    let certificate =
        TlsCertificate { certificate_chain: b"crt"[..].into(), private_key: PrivateKey(b"key"[..].into()) };
    world.secrets.insert(ObjectKey::new(namespace, name), Arc::new(SecretState::Ok(certificate)));
}

pub(super) fn grant(world: &mut World, namespace: &str, from: (&str, &str), to: (&str, Option<&str>)) {
    let grant = ReferenceGrant {
        meta: Meta::new(namespace, format!("grant-{}", world.reference_grants.len()), 1, 0),
        from: vec![GrantFrom {
            group: GATEWAY_GROUP.to_owned(),
            kind: from.0.to_owned(),
            namespace: from.1.to_owned(),
        }],
        to: vec![GrantTo { group: String::new(), kind: to.0.to_owned(), name: to.1.map(str::to_owned) }],
    };
    world.reference_grants.insert(grant.meta.key.clone(), Arc::new(grant));
}

pub(super) fn parent(name: &str) -> ParentRef {
    ParentRef {
        group: None,
        kind: None,
        namespace: Some("infra".to_owned()),
        name: name.to_owned(),
        section_name: None,
        port: None,
    }
}

pub(super) fn route(namespace: &str, name: &str, rules: Vec<HttpRouteRule>) -> HttpRoute {
    HttpRoute {
        kind: RouteKind::Http,
        meta: Meta::new(namespace, name, 7, 100),
        parent_refs: vec![parent("gw")],
        hostnames: Vec::new(),
        rules,
    }
}

pub(super) fn add_route(world: &mut World, route: HttpRoute) {
    world.http_routes.insert(route.meta.key.clone(), Arc::new(route));
}

pub(super) fn backend(name: &str, weight: u32) -> HttpBackendRef {
    HttpBackendRef { backend_ref: backend_ref(None, name), weight, filters: Vec::new() }
}

pub(super) fn backend_ref(namespace: Option<&str>, name: &str) -> BackendRef {
    BackendRef {
        group: None,
        kind: None,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        port: Some(8080),
    }
}

/// A rule with one prefix match and one backend.
pub(super) fn rule(prefix: &str, service: &str) -> HttpRouteRule {
    HttpRouteRule {
        matches: vec![HttpRouteMatch {
            path: PathMatch::Prefix(prefix.to_owned()),
            ..HttpRouteMatch::default()
        }],
        backend_refs: vec![backend(service, 1)],
        ..HttpRouteRule::default()
    }
}

pub(super) fn run(world: &World) -> Resolution {
    resolve(world, &ControllerConfig::default())
}

pub(super) fn config(resolution: &Resolution) -> &GatewayConfig {
    &resolution.gateways[&ObjectKey::new("infra", "gw")]
}

pub(super) fn config_of<'a>(resolution: &'a Resolution, listener: &str) -> &'a ListenerConfig {
    let listeners = config(resolution).ports.iter().flat_map(|port| &port.listeners);
    listeners.into_iter().find(|found| found.name == listener).expect("the listener is configured")
}

/// Hostname and routes (`name/rule`) of each virtual host of a listener.
pub(super) fn hosts(resolution: &Resolution, listener: &str) -> Vec<(String, Vec<String>)> {
    let hosts = config_of(resolution, listener).virtual_hosts.iter();
    hosts
        .map(|host| {
            let routes = host.routes.iter().map(|entry| format!("{}/{}", entry.route.name, entry.rule_index));
            (host.hostname.clone(), routes.collect())
        })
        .collect()
}

pub(super) fn gateway_status(resolution: &Resolution) -> &GatewayStatus {
    &resolution.statuses.gateways[&ObjectKey::new("infra", "gw")]
}

pub(super) fn listener_status<'a>(resolution: &'a Resolution, name: &str) -> &'a ListenerStatus {
    let mut listeners = gateway_status(resolution).listeners.iter();
    listeners.find(|status| status.name == name).expect("the listener has a status")
}

pub(super) fn parent_status<'a>(
    resolution: &'a Resolution,
    namespace: &str,
    name: &str,
) -> &'a RouteParentStatus {
    &resolution.statuses.http_routes[&ObjectKey::new(namespace, name)].parents[0]
}

/// Status and reason of a condition.
pub(super) fn state(conditions: &[ConditionUpdate], kind: &str) -> (bool, &'static str) {
    let condition =
        conditions.iter().find(|condition| condition.kind == kind).expect("the condition is there");
    assert_ne!(condition.status, ConditionStatus::Unknown);
    (condition.is_true(), condition.reason)
}
