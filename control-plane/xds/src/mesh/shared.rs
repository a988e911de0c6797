//! What all nodes have in common: Services, their endpoints, and who takes mutual TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::config::ServiceRoutes;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::mesh::{Mesh, MeshService, Node, Peer};
use meshwright_core::model::ObjectKey;

use super::memo::{Made, Memo};
use super::service::Port;
use super::{Ports, destinations, endpoint, fixed, inner, route};
use crate::{Resource, Resources, TypeUrl};

type Services = BTreeMap<ObjectKey, Arc<MeshService>>;
type Peers = BTreeMap<String, Peer>;
type Backends = BTreeMap<(ObjectKey, u16), Arc<Endpoints>>;

/// Resources that all nodes have, encoded once. Made anew with [`Shared::next`], it takes over what did not change.
#[derive(Debug, Clone)]
pub struct Shared {
    trust_domain: Arc<str>,
    services: Arc<Services>,
    routes: Arc<ServiceRoutes>,
    backends: Arc<Backends>,
    peers: Arc<Peers>,
    ports: BTreeMap<Arc<str>, Known>,
    resources: BTreeMap<TypeUrl, Arc<Resources>>,
    listeners: Vec<Arc<Resource>>,
    memo: Arc<Memo>,
}

/// A Service's port of which some endpoint takes mutual TLS, or that routes are about, or lead to.
#[derive(Debug, Clone)]
struct Known {
    port: Port,
    endpoints: Arc<Endpoints>,
    /// As whom the endpoints take mutual TLS, in their order.
    identities: Vec<Option<Arc<str>>>,
    assignment: Arc<Resource>,
}

impl Shared {
    /// Of an empty mesh, with that trust domain.
    pub fn new(trust_domain: &str) -> Self {
        let mut shared = Self {
            trust_domain: trust_domain.into(),
            services: Arc::default(),
            routes: Arc::default(),
            backends: Arc::default(),
            peers: Arc::default(),
            ports: BTreeMap::new(),
            resources: BTreeMap::new(),
            listeners: inner::listeners().into_iter().map(Arc::new).collect(),
            memo: Arc::default(),
        };
        shared.encode_ports();
        shared.put(TypeUrl::Endpoint, []);
        shared.put_extension(destinations::peers(&shared.peers));
        shared
    }

    /// Of this mesh.
    #[must_use]
    pub fn next(&self, mesh: &Mesh) -> Self {
        self.memo.retain(|node| mesh.nodes.contains_key(node));
        let mut next = self.clone();
        if self.is_of(mesh) {
            return next;
        }
        next.services = mesh.services.clone();
        next.routes = mesh.routes.clone();
        next.backends = mesh.backends.clone();
        next.peers = mesh.peers.clone();
        next.ports = self.ports_of(mesh);
        let as_before = |one: &Known, other: &Known| one.port == other.port;
        if !is_same(&self.ports, &next.ports, as_before) {
            next.encode_ports();
        }
        let as_before = |one: &Known, other: &Known| Arc::ptr_eq(&one.assignment, &other.assignment);
        if !is_same(&self.ports, &next.ports, as_before) {
            let all: Vec<_> = next.ports.values().map(|known| known.assignment.clone()).collect();
            next.put(TypeUrl::Endpoint, all);
        }
        if !self.peers.keys().eq(next.peers.keys()) {
            next.put_extension(destinations::peers(&next.peers));
        }
        next
    }

    /// Whether there is nothing in the mesh that it was not made of.
    pub fn is_of(&self, mesh: &Mesh) -> bool {
        Arc::ptr_eq(&self.services, &mesh.services)
            && Arc::ptr_eq(&self.routes, &mesh.routes)
            && Arc::ptr_eq(&self.backends, &mesh.backends)
            && Arc::ptr_eq(&self.peers, &mesh.peers)
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = (TypeUrl, &Arc<Resources>)> {
        self.resources.iter().map(|(kind, resources)| (*kind, resources))
    }

    pub(super) fn of_node(&self, name: &str, node: Option<&Arc<Node>>, ports: Ports) -> Made {
        let shared = self.resources.get(&TypeUrl::ExtensionConfig).cloned().unwrap_or_default();
        self.memo.of_node(&self.trust_domain, (&self.listeners, &shared), name, node, ports)
    }

    fn ports_of(&self, mesh: &Mesh) -> BTreeMap<Arc<str>, Known> {
        let mut all = BTreeMap::new();
        for (key, service) in mesh.services.iter() {
            let routes = mesh.routes.get(key);
            for (number, port) in &service.ports {
                let routes = routes.and_then(|routes| routes.get(number)).cloned();
                let identities = identities(&port.endpoints, &mesh.peers);
                if routes.is_some() || identities.iter().any(Option::is_some) {
                    let shape = Port::new(key, *number, &service.addresses, port.protocol);
                    let shape = Port { routes, ..shape };
                    let known = self.known(shape, &port.endpoints, identities, &mesh.peers);
                    all.insert(known.port.name.clone(), known);
                }
            }
        }
        for ((key, number), endpoints) in mesh.backends.iter() {
            let shape = Port::backend(key, *number);
            match all.get_mut(&shape.name) {
                Some(known) => known.port.is_backend = true,
                None => {
                    let identities = identities(endpoints, &mesh.peers);
                    let known = self.known(shape, endpoints, identities, &mesh.peers);
                    all.insert(known.port.name.clone(), known);
                }
            }
        }
        all
    }

    fn known(
        &self,
        port: Port,
        endpoints: &Arc<Endpoints>,
        identities: Vec<Option<Arc<str>>>,
        peers: &Peers,
    ) -> Known {
        let before = self.ports.get(&port.name).filter(|before| {
            before.identities == identities
                && (Arc::ptr_eq(&before.endpoints, endpoints) || before.endpoints == *endpoints)
        });
        let assignment = match before {
            Some(before) => before.assignment.clone(),
            None => Arc::new(endpoint::assignment(&port.name, endpoints, |address| identity(address, peers))),
        };
        Known { port, endpoints: endpoints.clone(), identities, assignment }
    }

    /// Clusters, routes, and the list of destinations.
    fn encode_ports(&mut self) {
        let ports = || self.ports.values().map(|known| &known.port);
        let clusters: Vec<_> = ports().flat_map(Port::clusters).map(Arc::new).collect();
        let (routes, services) =
            (route::configuration(ports(), &self.trust_domain), destinations::services(ports()));
        let fixed = fixed::clusters(&self.trust_domain).into_iter().map(Arc::new);
        self.put(TypeUrl::Cluster, fixed.chain(clusters));
        self.put(TypeUrl::Route, [Arc::new(routes)]);
        self.put_extension(services);
    }

    fn put(&mut self, kind: TypeUrl, resources: impl IntoIterator<Item = Arc<Resource>>) {
        let mut all = Resources::default();
        resources.into_iter().for_each(|resource| all.insert(resource));
        self.resources.insert(kind, Arc::new(all));
    }

    fn put_extension(&mut self, extension: Resource) {
        let all = self.resources.entry(TypeUrl::ExtensionConfig).or_default();
        Arc::make_mut(all).insert(extension);
    }
}

fn identities(endpoints: &Endpoints, peers: &Peers) -> Vec<Option<Arc<str>>> {
    endpoints.zones.values().flatten().map(|endpoint| identity(&endpoint.address, peers)).collect()
}

fn identity(address: &str, peers: &Peers) -> Option<Arc<str>> {
    peers.get(address).map(|peer| peer.identity.clone())
}

fn is_same(
    one: &BTreeMap<Arc<str>, Known>,
    other: &BTreeMap<Arc<str>, Known>,
    known: impl Fn(&Known, &Known) -> bool,
) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((name, one), (other_name, other))| name == other_name && known(one, other))
}
