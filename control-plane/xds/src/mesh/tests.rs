//! Translation, looked at through the decoded protos; and, in [`lab`], what Envoy makes of it.

mod changes;
mod connections;
mod content;
mod generated;
mod lab;
mod routed;
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
use meshwright_core::mesh::{Member, Mesh, MeshPort, MeshService, Peer, PodPolicy, Protocol};
use meshwright_core::model::{Balancing, Near, ObjectKey};
use prost::Message;

use super::*;

const TRUST_DOMAIN: &str = "cluster.local";
const PORTS: Ports = Ports { outbound: 15101, inbound: 15108 };

fn spiffe(account: &str) -> Arc<str> {
    spiffe_in("shop", account)
}

fn spiffe_in(namespace: &str, account: &str) -> Arc<str> {
    format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}").into()
}

/// A mesh in parts that a test can change; each build makes new allocations of what changed only if the test did.
#[derive(Clone, Default)]
struct Cluster {
    mesh: Mesh,
}

impl Cluster {
    /// A pod on a node; it takes mutual TLS if it has addresses.
    fn pod(mut self, node: &str, account: &str, addresses: &[&str]) -> Self {
        let uid = format!("uid-{account}");
        let member = Member {
            pod: ObjectKey::new("shop", account),
            identity: spiffe(account),
            workload: account.into(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        };
        let found = self.mesh.nodes.entry(node.to_owned()).or_default();
        Arc::make_mut(found).members.insert(uid.clone(), member);
        for &address in addresses {
            let peer = Peer { uid: uid.as_str().into(), identity: spiffe(account), workload: account.into() };
            Arc::make_mut(&mut self.mesh.peers).insert(address.to_owned(), peer);
        }
        self
    }

    /// A Service's port, with endpoints `address:port`.
    fn service(
        mut self,
        name: &str,
        addresses: &[&str],
        port: u16,
        protocol: Protocol,
        endpoints: &[(&str, u16)],
    ) -> Self {
        let services = Arc::make_mut(&mut self.mesh.services);
        let service = services.entry(ObjectKey::new("shop", name)).or_insert_with(|| {
            Arc::new(MeshService {
                addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
                ports: BTreeMap::new(),
                balancing: Default::default(),
            })
        });
        let port_of = MeshPort { protocol, endpoints: Arc::new(of(endpoints)) };
        Arc::make_mut(service).ports.insert(port, port_of);
        self
    }

    /// With endpoints that are on nodes, and a Service that says which of them its callers get.
    fn balanced(mut self, name: &str, balancing: Balancing, nodes: &[(&str, &str)]) -> Self {
        let services = Arc::make_mut(&mut self.mesh.services);
        let service = Arc::make_mut(services.get_mut(&ObjectKey::new("shop", name)).unwrap());
        service.balancing = balancing;
        for port in service.ports.values_mut() {
            for endpoint in Arc::make_mut(&mut port.endpoints).zones.values_mut().flatten() {
                let node = nodes.iter().find(|(address, _)| *address == endpoint.address);
                endpoint.node = node.map(|(_, node)| (*node).to_owned());
            }
        }
        self
    }

    /// What policies say about a pod.
    fn policy(mut self, node: &str, account: &str, policy: PodPolicy) -> Self {
        let found = Arc::make_mut(self.mesh.nodes.get_mut(node).unwrap());
        found.policies.insert(format!("uid-{account}"), Arc::new(policy));
        self
    }

    fn without_service(mut self, name: &str) -> Self {
        Arc::make_mut(&mut self.mesh.services).remove(&ObjectKey::new("shop", name));
        self
    }

    fn without_peer(mut self, address: &str) -> Self {
        Arc::make_mut(&mut self.mesh.peers).remove(address);
        self
    }
}

fn of(endpoints: &[(&str, u16)]) -> Endpoints {
    let endpoint = |&(address, port): &(&str, u16)| Endpoint {
        address: address.to_owned(),
        port,
        health: EndpointHealth::Ready,
        node: None,
    };
    Endpoints { zones: [(String::new(), endpoints.iter().map(endpoint).collect())].into() }
}

/// Two nodes with three pods, and a Service of each protocol.
fn shop() -> Cluster {
    Cluster::default()
        .pod("n1", "front", &["10.0.1.1", "fd00::1:1"])
        .pod("n1", "cart", &["10.0.1.2"])
        .pod("n2", "db", &["10.0.2.1"])
        .service("web", &["10.96.0.1", "fd96::1"], 80, Protocol::Http, &[("10.0.1.2", 8080)])
        .service("db", &["10.96.0.2"], 3306, Protocol::Tcp, &[("10.0.2.1", 3306)])
        .service("any", &["10.96.0.3", "fd96::3"], 8000, Protocol::Detect, &[("10.0.1.2", 8080)])
        .service("away", &["10.96.0.4"], 80, Protocol::Http, &[("10.0.3.1", 8080)])
}

fn shared(cluster: &Cluster) -> Shared {
    Shared::new(TRUST_DOMAIN).next(&cluster.mesh)
}

fn snapshot(cluster: &Cluster, name: &str) -> Snapshot {
    node(&shared(cluster), &cluster.mesh, name, PORTS)
}

fn names(snapshot: &Snapshot, kind: TypeUrl) -> Vec<String> {
    let found = snapshot.resources(kind).into_iter().flat_map(|all| all.iter());
    found.map(|resource| resource.name().to_string()).collect()
}

fn decode<T: Message + Default>(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> T {
    let resource = snapshot.get(kind, name).unwrap_or_else(|| panic!("no {kind} {name}"));
    T::decode(resource.body().value.as_slice()).unwrap()
}

/// `<type> <name>` of what two snapshots do not have alike.
fn differences(one: &Snapshot, other: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for kind in TypeUrl::ALL.iter().copied() {
        let names = names(one, kind).into_iter().chain(names(other, kind));
        let short = kind.as_str().rsplit('.').next().unwrap_or_default();
        let differs = |name: &String| one.get(kind, name) != other.get(kind, name);
        all.extend(names.filter(differs).map(|name| format!("{short} {name}")));
    }
    all.sort();
    all.dedup();
    all
}
