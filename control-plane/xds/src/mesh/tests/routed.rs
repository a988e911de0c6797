//! Routes for the tests' meshes, resolved as the control plane does it.

use meshwright_core::ControllerConfig;
use meshwright_core::config::ServiceRoutes;
use meshwright_core::model::{
    BackendRef, HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, Meta, ParentRef,
    PathMatch, RouteKind, Service, ServicePort, ServiceType, World,
};

use super::*;

impl Cluster {
    /// With these routes instead of those that it has.
    pub fn routed(mut self, routes: Vec<HttpRoute>) -> Self {
        let mut world = World::default();
        for (key, service) in self.mesh.services.iter() {
            world.services.insert(key.clone(), Arc::new(as_object(key, service)));
        }
        for route in routes {
            let all = match route.kind {
                RouteKind::Http => &mut world.http_routes,
                RouteKind::Grpc => &mut world.grpc_routes,
                RouteKind::Tcp => &mut world.tcp_routes,
            };
            all.insert(route.meta.key.clone(), Arc::new(route));
        }
        let found = meshwright_core::resolve(&world, &ControllerConfig::default()).services;
        self.mesh.backends = Arc::new(self.backends(&found));
        for (key, ports) in found.iter() {
            let service = Arc::make_mut(Arc::make_mut(&mut self.mesh.services).get_mut(key).unwrap());
            for (number, _) in ports.iter().filter(|(_, routes)| routes.is_named) {
                service.ports.get_mut(number).unwrap().protocol = Protocol::Http;
            }
            for (number, _) in ports.iter().filter(|(_, routes)| routes.connections.producer.is_some()) {
                service.ports.get_mut(number).unwrap().protocol = Protocol::Tcp;
            }
        }
        self.mesh.routes = found;
        self
    }

    fn backends(&self, routes: &ServiceRoutes) -> BTreeMap<(ObjectKey, u16), Arc<Endpoints>> {
        let ports = routes.values().flat_map(BTreeMap::values);
        let entries = ports.flat_map(|routes| routes.entries().chain(routes.connections.entries()));
        let clusters = entries.flat_map(|entry| entry.rule.clusters());
        let endpoints = clusters.map(|cluster| {
            let port = &self.mesh.services[&cluster.service].ports[&cluster.port];
            ((cluster.service.clone(), cluster.port), port.endpoints.clone())
        });
        endpoints.collect()
    }
}

fn as_object(key: &ObjectKey, service: &MeshService) -> Service {
    let port = |(number, port): (&u16, &MeshPort)| ServicePort {
        name: String::new(),
        port: *number,
        protocol: "TCP".to_owned(),
        app_protocol: match port.protocol {
            Protocol::Http => Some("http".to_owned()),
            Protocol::Tcp => Some("tcp".to_owned()),
            Protocol::Detect => None,
        },
    };
    Service {
        meta: Meta::new(key.namespace.clone(), key.name.clone(), 1, 0),
        kind: ServiceType::Cluster,
        headless: false,
        has_selector: true,
        balancing: Default::default(),
        cluster_ips: service.addresses.clone(),
        ports: service.ports.iter().map(port).collect(),
    }
}

/// A route in a namespace for the Service `shop/<parent>`.
pub fn route(namespace: &str, name: &str, parent: &str, rules: Vec<HttpRouteRule>) -> HttpRoute {
    HttpRoute {
        kind: RouteKind::Http,
        meta: Meta::new(namespace, name, 1, 0),
        parent_refs: vec![ParentRef {
            group: Some(String::new()),
            kind: Some("Service".to_owned()),
            namespace: Some("shop".to_owned()),
            name: parent.to_owned(),
            section_name: None,
            port: None,
        }],
        hostnames: vec!["nobody.looks.at.it".to_owned()],
        rules,
    }
}

/// To port 80 of `shop/<name>`.
pub fn backend(name: &str, weight: u32) -> HttpBackendRef {
    let backend_ref = BackendRef {
        group: None,
        kind: None,
        namespace: Some("shop".to_owned()),
        name: name.to_owned(),
        port: Some(80),
    };
    HttpBackendRef { backend_ref, weight, filters: Vec::new() }
}

/// A TCPRoute in a namespace for the Service `shop/<parent>`, to port 3306 of these Services.
pub fn tcp_route(namespace: &str, parent: &str, backends: &[(&str, u32)]) -> HttpRoute {
    let backend = |&(name, weight): &(&str, u32)| {
        let mut backend = backend(name, weight);
        backend.backend_ref.port = Some(3306);
        backend
    };
    let backend_refs = backends.iter().map(backend).collect();
    let rules = vec![HttpRouteRule { backend_refs, ..HttpRouteRule::default() }];
    let name = format!("tcp-{parent}");
    HttpRoute { kind: RouteKind::Tcp, hostnames: Vec::new(), ..route(namespace, &name, parent, rules) }
}

/// A rule for paths that begin so.
pub fn rule(prefix: &str, backend_refs: Vec<HttpBackendRef>) -> HttpRouteRule {
    let path = PathMatch::Prefix(prefix.to_owned());
    let matches = vec![HttpRouteMatch { path, ..HttpRouteMatch::default() }];
    HttpRouteRule { matches, backend_refs, ..HttpRouteRule::default() }
}

/// The same with a filter more.
pub fn with(filter: HttpRouteFilter, rule: HttpRouteRule) -> HttpRouteRule {
    let filters = [rule.filters, vec![filter]].concat();
    HttpRouteRule { filters, ..rule }
}
