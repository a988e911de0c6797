//! Worlds for the tests beside this, and what a resolution makes of them.

mod membership;
mod policies;
mod properties;
mod protocol;
mod resolver;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::difference;
use crate::model::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn rules() -> Rules {
    Rules { closed: ["kube-system", "mesh"].map(str::to_owned).into(), root: "mesh".to_owned() }
}

/// A pod without labels.
fn pod(uid: &str, node: &str, addresses: &[&str]) -> Pod {
    Pod {
        uid: uid.to_owned(),
        node: node.to_owned(),
        service_account: "default".to_owned(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        ..Pod::default()
    }
}

fn add_namespace(world: &mut World, name: &str, pairs: &[(&str, &str)]) {
    world.namespaces.insert(name.to_owned(), Arc::new(Namespace { labels: labels(pairs) }));
}

fn add_pod(world: &mut World, namespace: &str, name: &str, pod: Pod) {
    world.pods.insert(ObjectKey::new(namespace, name), Arc::new(pod));
}

fn add_mesh_node(world: &mut World, name: &str, epoch: i64, pods: &[(&str, &[&str])]) {
    let pods = pods.iter().map(|(uid, addresses)| {
        ((*uid).to_owned(), addresses.iter().map(|address| (*address).to_owned()).collect())
    });
    let node = MeshNode { wanted: "mesh-1".to_owned(), epoch, pods: pods.collect() };
    world.mesh_nodes.insert(name.to_owned(), Arc::new(node));
}

fn port(name: &str, number: u16, app_protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        port: number,
        protocol: "TCP".to_owned(),
        app_protocol: app_protocol.map(str::to_owned),
    }
}

/// In namespace `shop`.
fn add_service(world: &mut World, name: &str, cluster_ips: &[&str], ports: Vec<ServicePort>) {
    let service = Service {
        meta: Meta::new("shop", name, 1, 0),
        kind: ServiceType::Cluster,
        headless: cluster_ips.is_empty(),
        has_selector: true,
        balancing: Default::default(),
        cluster_ips: cluster_ips.iter().map(|ip| (*ip).to_owned()).collect(),
        ports,
    };
    world.services.insert(service.meta.key.clone(), Arc::new(service));
}

/// The Service's only slice; its ports are 8080 and up, under the names given.
fn add_slice(world: &mut World, service: &str, ports: &[&str], addresses: &[&str]) {
    let ports = ports.iter().zip(8080..).map(|(name, port)| EndpointPort {
        name: (*name).to_owned(),
        port: Some(port),
        protocol: "TCP".to_owned(),
    });
    let endpoints = addresses.iter().map(|address| SliceEndpoint {
        addresses: vec![(*address).to_owned()],
        ready: true,
        serving: true,
        terminating: false,
        zone: None,
        node: None,
    });
    let key = ObjectKey::new("shop", service);
    let slice = EndpointSlice {
        service: key.clone(),
        fqdn: false,
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    };
    world.endpoint_slices.insert(key, [("s".to_owned(), Arc::new(slice))].into());
}

/// Tells its resolver what is different, and no more.
struct Follower {
    resolver: MeshResolver,
    seen: World,
}

impl Follower {
    fn resolve(&mut self, world: &World) -> Arc<Mesh> {
        let before = std::mem::replace(&mut self.seen, world.clone());
        let slices = difference(&before.endpoint_slices, &world.endpoint_slices, |a, b| a == b);
        let services = difference(&before.services, &world.services, Arc::ptr_eq).chain(slices);
        let mut touched = Touched::default();
        touched.namespaces.extend(difference(&before.namespaces, &world.namespaces, Arc::ptr_eq).cloned());
        touched.nodes.extend(difference(&before.mesh_nodes, &world.mesh_nodes, Arc::ptr_eq).cloned());
        touched.services.extend(services.cloned());
        let authorization = (&before.authorization_policies, &world.authorization_policies);
        touched.policies.extend(difference(authorization.0, authorization.1, Arc::ptr_eq).cloned());
        let tls = (&before.mesh_tls_policies, &world.mesh_tls_policies);
        touched.policies.extend(difference(tls.0, tls.1, Arc::ptr_eq).cloned());
        for key in difference(&before.pods, &world.pods, Arc::ptr_eq) {
            let states = [&before, world].map(|world| world.pods.get(key).map(AsRef::as_ref));
            touched.pod(key.clone(), states);
        }
        self.resolver.resolve(world, &touched, &routes(world))
    }
}

fn resolver() -> Follower {
    Follower { resolver: MeshResolver::new(rules(), "example.org"), seen: World::default() }
}

fn fresh(world: &World) -> Arc<Mesh> {
    resolve(world, &rules(), "example.org", &routes(world))
}

/// What the routes of the world come to.
fn routes(world: &World) -> Arc<ServiceRoutes> {
    crate::resolve(world, &crate::ControllerConfig::default()).services
}
