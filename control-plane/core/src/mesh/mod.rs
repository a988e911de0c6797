//! The mesh between services: which pods are in it, what their proxies have to do. Pure, as everything here.

mod claims;
mod membership;
mod nodes;
mod peers;
mod policies;
mod protocol;
mod resolver;
mod routes;
mod services;
#[cfg(test)]
mod tests;
mod touched;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::ServiceRoutes;
use crate::endpoints::Endpoints;
use crate::model::{Balancing, ObjectKey};

pub use membership::{
    AMBIENT, COMPONENT, DATAPLANE_MODE, DISABLED, ENABLED, GATEWAY, LABEL, On, Outside, Rules, enrolls,
    is_foreign_sidecar, membership,
};
pub use policies::{
    Attributes, Authorization, Caller, InForce, Plaintext, PodPolicy, Rule, RuleSet, in_force,
};
pub use protocol::{OPAQUE_PORTS, Protocol, protocol};
pub use resolver::{MeshResolver, resolve};
pub use touched::Touched;
pub use workload::workload;

/// What node proxies do, all nodes together. Parts that did not change are the same allocation as in the resolution before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mesh {
    /// The nodes of which there is something to say: those that have members, a MeshNode, or pods outside that might be taken for members.
    pub nodes: BTreeMap<String, Arc<Node>>,
    /// Services that can be called by their addresses.
    pub services: Arc<BTreeMap<ObjectKey, Arc<MeshService>>>,
    /// What routes make of the requests and connections to some of them.
    pub routes: Arc<ServiceRoutes>,
    /// Where those routes lead: endpoints by Service and port, whether the Service is among `services` or not.
    pub backends: Arc<BTreeMap<(ObjectKey, u16), Arc<Endpoints>>>,
    /// Who speaks mutual TLS, by address: pods that a MeshNode lists with the very uid that the pod has, and that are members. An address that
    /// several pods claim has one of them at most.
    pub peers: Arc<BTreeMap<String, Peer>>,
    /// Every namespace, and whether its pods are members unless they say otherwise.
    pub namespaces: Arc<BTreeMap<String, bool>>,
    /// The namespaces whose pods are not members unless they say otherwise, and of which some do.
    pub mixed: Arc<BTreeSet<String>>,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Pods that are to be in the mesh, by uid.
    pub members: BTreeMap<String, Member>,
    /// Pods of Gateways, by uid: no members, but they call members and show who they are.
    pub gateways: BTreeMap<String, Member>,
    /// Uids of its pods that stay outside although their namespace's pods are members unless they say otherwise, or some of them are: the
    /// network plugin must not hold them up.
    pub outside: BTreeSet<String>,
    /// Who is to serve it: MeshRevision and epoch.
    pub claim: Option<(String, i64)>,
    /// Uids that its MeshNode lists, members or not.
    pub listed: BTreeSet<String>,
    /// Pods that were asked into the mesh and cannot be in it, by uid.
    pub refused: BTreeMap<String, Refused>,
    /// What policies say about its members, by uid; only those of which they say something.
    pub policies: BTreeMap<String, Arc<PodPolicy>>,
}

/// A pod that was asked into the mesh and cannot be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The Pod.
    pub pod: ObjectKey,
    /// Why, and what would help.
    pub why: Outside,
}

/// A pod that is to be in the mesh, or a Gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The Pod.
    pub pod: ObjectKey,
    /// SPIFFE id of its service account.
    pub identity: Arc<str>,
    /// Name of what made it, see [`workload`]; in the pod's namespace.
    pub workload: Arc<str>,
    /// Its addresses; empty until it has a network.
    pub addresses: Vec<String>,
}

/// A pod that takes mutual TLS at port 15008.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Uid of the Pod.
    pub uid: Arc<str>,
    /// SPIFFE id that it shows.
    pub identity: Arc<str>,
    /// Name of what made the pod, see [`workload`].
    pub workload: Arc<str>,
}

/// A Service with cluster IPs, as a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshService {
    /// Its cluster IPs.
    pub addresses: Vec<String>,
    /// Its TCP ports.
    pub ports: BTreeMap<u16, MeshPort>,
    /// How its callers are spread.
    pub balancing: Balancing,
}

/// One of a Service's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPort {
    /// What is spoken there. A port that a route of the Service's own namespace names is HTTP, unless it has a TCPRoute of that namespace: then
    /// it is TCP.
    pub protocol: Protocol,
    /// Where to.
    pub endpoints: Arc<Endpoints>,
}

/// The identities that endpoints may show, sorted, each once.
pub fn identities(endpoints: &Endpoints, peers: &BTreeMap<String, Peer>) -> BTreeSet<Arc<str>> {
    let all = endpoints.zones.values().flatten();
    all.filter_map(|endpoint| peers.get(&endpoint.address)).map(|peer| peer.identity.clone()).collect()
}
