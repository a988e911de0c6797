//! What all nodes have in common: Services, their endpoints, and who takes mutual TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::config::ServiceRoutes;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::mesh::{Mesh, MeshService, Node, Peer};
use meshwright_core::model::{Balancing, Near, ObjectKey};
use tokio::time::Instant;

use super::linger::{Clusters, Lingering};
use super::memo::{Made, Memo};
use super::nearby::{Nearby, zones};
use super::service::Port;
use super::{Ports, Telemetry, destinations, endpoint, fixed, inner, route};
use crate::envoy::route::EncodedHost;
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
    clusters: Clusters,
    lingering: Lingering,
    resources: BTreeMap<TypeUrl, Arc<Resources>>,
    listeners: Vec<Arc<Resource>>,
    telemetry: Telemetry,
    memo: Arc<Memo>,
    /// Zones of nodes, as far as they matter.
    zones: Arc<BTreeMap<String, String>>,
    nearby: Arc<Nearby>,
}

/// A Service's port of which some endpoint takes mutual TLS, or that routes are about, or lead to.
#[derive(Debug, Clone)]
struct Known {
    port: Port,
    endpoints: Arc<Endpoints>,
    /// Which of them the pods of a node get.
    near: Near,
    /// As whom the endpoints take mutual TLS, in their order.
    who: Vec<Option<Peer>>,
    assignment: Arc<Resource>,
    hosts: Vec<Arc<EncodedHost>>,
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
            clusters: Clusters::new(),
            lingering: Lingering::default(),
            resources: BTreeMap::new(),
            listeners: inner::listeners(trust_domain, &Telemetry::default())
                .into_iter()
                .map(Arc::new)
                .collect(),
            telemetry: Telemetry::default(),
            memo: Arc::default(),
            zones: Arc::default(),
            nearby: Arc::default(),
        };
        shared.encode_ports();
        shared.put_clusters();
        shared.put_endpoints();
        shared.put_extension(destinations::peers(&shared.peers));
        shared
    }

    /// The same, and its proxies tell this beside their statistics.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Telemetry) -> Self {
        let listeners = inner::listeners(&self.trust_domain, &telemetry);
        self.listeners = listeners.into_iter().map(Arc::new).collect();
        self.telemetry = telemetry;
        self.memo = Arc::default();
        self.put_clusters();
        self
    }

    /// Of this mesh.
    #[must_use]
    pub fn next(&self, mesh: &Mesh) -> Self {
        self.memo.retain(|node| mesh.nodes.contains_key(node));
        self.nearby.retain(|node| mesh.nodes.contains_key(node));
        let mut next = self.clone();
        if self.is_of(mesh) {
            return next;
        }
        next.services = mesh.services.clone();
        next.routes = mesh.routes.clone();
        next.backends = mesh.backends.clone();
        next.peers = mesh.peers.clone();
        next.ports = self.ports_of(mesh);
        next.zones = match next.ports.values().any(|known| matches!(known.near, Near::Zone | Near::Node)) {
            true => Arc::new(zones(mesh)),
            false => Arc::default(),
        };
        let as_before = |one: &Known, other: &Known| one.port == other.port;
        if !is_same(&self.ports, &next.ports, as_before) {
            next.encode_ports();
            let assignment = |name: &str| self.ports.get(name).map(|known| known.assignment.clone());
            next.lingering = self.lingering.next(&self.clusters, &next.clusters, assignment);
            next.put_clusters();
        }
        let as_before = |one: &Known, other: &Known| {
            Arc::ptr_eq(&one.assignment, &other.assignment) && one.near == other.near
        };
        if !is_same(&self.ports, &next.ports, as_before) {
            next.put_endpoints();
        }
        if !self.peers.keys().eq(next.peers.keys()) {
            next.put_extension(destinations::peers(&next.peers));
        }
        next
    }

    /// Version of the table of routes that all nodes have.
    pub fn version_of_routes(&self) -> Option<&Arc<str>> {
        self.resources.get(&TypeUrl::Route)?.get(route::NAME).map(|table| table.version())
    }

    /// Version of what all nodes have about connections to Services.
    pub fn version_of_connections(&self) -> Option<&Arc<str>> {
        let extensions = self.resources.get(&TypeUrl::ExtensionConfig)?;
        extensions.get(destinations::SERVICES).map(|extension| extension.version())
    }

    /// Forgets clusters that nothing leads to any more for long enough. Returns whether there was one.
    pub fn let_go(&mut self, now: Instant) -> bool {
        let changed = self.lingering.let_go(now);
        if changed {
            self.put_clusters();
            self.put_endpoints();
        }
        changed
    }

    /// When there will be something to let go.
    pub fn next_end(&self) -> Option<Instant> {
        self.lingering.next_end()
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

    /// The endpoints of all Services, for the pods of a node.
    pub(super) fn endpoints(&self, node: &str) -> Option<Arc<Resources>> {
        let all = self.resources.get(&TypeUrl::Endpoint)?;
        let mut ports = self.ports.values().filter(|known| known.near != Near::Anywhere).peekable();
        if ports.peek().is_none() {
            return Some(all.clone());
        }
        let zone = self.zones.get(node).map(String::as_str);
        Some(self.nearby.of(node, zone, all, || {
            let changed = ports.filter_map(|known| {
                let near = known.endpoints.near(known.near, node, zone)?;
                Some(endpoint::assignment(&known.port.name, &near, |address| self.peers.get(address)))
            });
            changed.collect()
        }))
    }

    fn ports_of(&self, mesh: &Mesh) -> BTreeMap<Arc<str>, Known> {
        let mut all = BTreeMap::new();
        for (key, service) in mesh.services.iter() {
            let routes = mesh.routes.get(key);
            for (number, port) in &service.ports {
                let routes = routes.and_then(|routes| routes.get(number)).cloned();
                let who = who(&port.endpoints, &mesh.peers);
                if routes.is_some() || who.iter().any(Option::is_some) {
                    let shape = Port::new(key, *number, &service.addresses, port.protocol);
                    let Balancing { by_client, near } = service.balancing;
                    let shape = Port { routes, by_client, ..shape };
                    let known = self.known(shape, &port.endpoints, near, who, &mesh.peers);
                    all.insert(known.port.name.clone(), known);
                }
            }
        }
        for ((key, number), endpoints) in mesh.backends.iter() {
            let balancing = mesh.services.get(key).map(|service| service.balancing);
            let Balancing { by_client, near } = balancing.unwrap_or_default();
            let shape = Port { by_client, ..Port::backend(key, *number) };
            match all.get_mut(&shape.name) {
                Some(known) => known.port.is_backend = true,
                None => {
                    let who = who(endpoints, &mesh.peers);
                    let known = self.known(shape, endpoints, near, who, &mesh.peers);
                    all.insert(known.port.name.clone(), known);
                }
            }
        }
        for (name, known) in &mut all {
            known.hosts = match self.ports.get(name).filter(|before| before.port == known.port) {
                Some(before) => before.hosts.clone(),
                None => route::hosts(&known.port, &self.trust_domain),
            };
        }
        all
    }

    /// Without its hosts.
    fn known(
        &self,
        port: Port,
        endpoints: &Arc<Endpoints>,
        near: Near,
        who: Vec<Option<Peer>>,
        peers: &Peers,
    ) -> Known {
        let before = self.ports.get(&port.name).filter(|before| {
            before.who == who && (Arc::ptr_eq(&before.endpoints, endpoints) || before.endpoints == *endpoints)
        });
        let assignment = match before {
            Some(before) => before.assignment.clone(),
            None => Arc::new(endpoint::assignment(&port.name, endpoints, |address| peers.get(address))),
        };
        Known { port, endpoints: endpoints.clone(), near, who, assignment, hosts: Vec::new() }
    }

    /// Clusters, routes, and the list of destinations; what lingers is another thing.
    fn encode_ports(&mut self) {
        let ports = || self.ports.values().map(|known| &known.port);
        let of_port = |port: &Port| {
            let clusters = port.clusters().into_iter().map(Arc::new);
            let named = clusters.map(|cluster| (cluster.name().clone(), (cluster, port.name.clone())));
            named.collect::<Vec<_>>()
        };
        let clusters = ports().flat_map(of_port).collect();
        let routes = route::configuration(self.ports.values().flat_map(|known| &known.hosts));
        let services = destinations::services(ports(), &self.trust_domain);
        self.clusters = clusters;
        self.put(TypeUrl::Route, [Arc::new(routes)]);
        self.put_extension(services);
    }

    fn put_clusters(&mut self) {
        let fixed = fixed::clusters(&self.trust_domain).into_iter().map(Arc::new);
        let own = self.clusters.values().map(|(cluster, _)| cluster.clone());
        let collector = self.telemetry.cluster().map(Arc::new);
        let all: Vec<_> =
            fixed.chain(collector).chain(own).chain(self.lingering.clusters().cloned()).collect();
        self.put(TypeUrl::Cluster, all);
    }

    fn put_endpoints(&mut self) {
        let own = self.ports.values().map(|known| &known.assignment);
        // Of a port that is there again, or still is and is called in another way, its own come last, and count.
        let all: Vec<_> = self.lingering.assignments().chain(own).cloned().collect();
        self.put(TypeUrl::Endpoint, all);
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

fn who(endpoints: &Endpoints, peers: &Peers) -> Vec<Option<Peer>> {
    endpoints.zones.values().flatten().map(|endpoint| peers.get(&endpoint.address).cloned()).collect()
}

#[cfg(test)]
impl Shared {
    /// The virtual hosts of a port, as they are kept.
    pub(super) fn hosts(&self, name: &str) -> &[Arc<EncodedHost>] {
        &self.ports[name].hosts
    }
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
