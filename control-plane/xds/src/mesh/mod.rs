//! From a [`Mesh`] to the Envoy resources of its nodes' proxies.
//!
//! ```text
//! pod ──redirected──► pod/<uid>/outbound ─► node ─┬─ http ───► Service's cluster ─┬─► endpoint in plaintext
//!                     who calls, to where         ├─ tcp ────► cluster IP:port ───┤
//!                                                 ├─ detect ─► node/detect ───────┴─► node/mtls ─► mtls ─► pod:15008
//!                                                 ├─ peer ───────────────────────────────────────► mtls
//!                                                 └─ direct ─► passthrough
//! copies of requests ─► node/mirror ─► Service's cluster
//! pod:15008 ─► pod/<uid>/inbound ─► inbound ─► the pod's application
//! ```
//!
//! Listeners depend on the node's own pods only. Services come and go by RDS, CDS and ECDS (which destinations there are), endpoints and who
//! of them takes mutual TLS by EDS: all of it the same for all nodes, so [`Shared`] makes it once. Only a Service of which some endpoint takes
//! mutual TLS, or that routes are about, is there at all; every other passes untouched, as anything outside the mesh.
//!
//! One TLS context serves all connections to other pods (cluster `mtls`), with the certificate of the pod that calls. Clusters of Services
//! reach it through an internal listener: a TLS context in each cluster would take as much memory as the cluster, and another one for each
//! identity that uses it.

mod authorize;
mod connections;
pub mod demand;
mod destinations;
mod endpoint;
mod fixed;
mod http;
mod inner;
mod linger;
mod memo;
mod mirror;
mod nearby;
mod ordered;
mod parts;
mod pod;
mod route;
mod service;
mod shared;
pub mod signals;
mod state;
mod telemetry;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod upstream;

use meshwright_core::mesh::{Mesh, PodPolicy};

pub use self::authorize::{RULES, is_open_policy, open_policy, pod_of_policy, policy_name, rules_with};
pub use self::destinations::SERVICES;
pub use self::route::NAME as ROUTES;
pub use self::shared::Shared;
pub use self::telemetry::{Telemetry, Tracing};
use crate::{Snapshot, TypeUrl};

/// Where pods of the mesh take mutual TLS, on the wire.
pub(crate) const PORT: u16 = 15008;
/// What pods' connections are redirected to, in either slot: nobody's service.
const OUTBOUND_PORTS: [u16; 2] = [15101, 15201];

/// Ports of the slot that a proxy is in, in each pod's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// What the pod's processes send is redirected to it.
    pub outbound: u16,
    /// Mutual TLS.
    pub inbound: u16,
}

/// The secret with the certificate that a pod shows where it calls: the same certificate as the one that is named by its SPIFFE id, which it
/// shows where it is called. Two names, because Envoy gives a secret of ADS to the first who asked for it only, if one asks before it is
/// needed (a listener) and the other when it is (a connection): [envoy#47309](https://github.com/envoyproxy/envoy/issues/47309).
pub fn caller_secret(identity: &str) -> String {
    format!("{identity}?caller")
}

/// The version of the extension by which the proxy of a pod's node enforces its policy; the pod has this SPIFFE id.
pub fn policy_version(uid: &str, identity: &str, policy: &PodPolicy) -> String {
    authorize::policy(uid, identity, Some(policy)).version().to_string()
}

/// What the proxy of a node should have. `shared` has to be made of the mesh's Services and peers; of the mesh itself only the node is looked at.
pub fn node(shared: &Shared, mesh: &Mesh, node: &str, ports: Ports) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (kind, resources) in shared.resources() {
        snapshot.share(kind, resources.clone());
    }
    shared.endpoints(node).into_iter().for_each(|endpoints| snapshot.share(TypeUrl::Endpoint, endpoints));
    let made = shared.of_node(node, mesh.nodes.get(node), ports);
    snapshot.share(TypeUrl::Listener, made.listeners);
    snapshot.share(TypeUrl::ExtensionConfig, made.extensions);
    snapshot
}
