//! Mutual TLS of a gateway with backends in the mesh, in the mesh's wire format: to port 15008 of the pod, whose own port is the server name.
//!
//! Each identity is a match of its own in the cluster, and an endpoint names the one that its certificate must have. The gateway is the TLS
//! client of the cluster itself, without a hop in between, so that a pod that is gone is still a failed connection, which may be retried.
//! A TLS context takes about 27 kB; most Services have one identity.
//!
//! Endpoints for other identities are another resource. While Envoy warms a changed cluster, the one before is still in use, and would get the
//! same endpoints, which it cannot speak to: it has to keep its own until the other takes its place with all that belongs to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use meshwright_core::config::BackendProtocol;
use meshwright_core::endpoints::{Endpoint, Endpoints};
use meshwright_core::mesh::Peer;
use sha2::{Digest, Sha256};

use crate::mesh::tls;
use crate::types::short;

/// Metadata that transport sockets are chosen by, and in it the key of the SPIFFE id.
const MATCH: &str = "envoy.transport_socket_match";
const IDENTITY: &str = "identity";

/// Endpoints of a cluster, and as whom those that are in the mesh take mutual TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    endpoints: Arc<Endpoints>,
    identities: BTreeMap<String, Arc<str>>,
}

impl Backends {
    /// `peers` are all that take mutual TLS, by address.
    pub fn new(endpoints: Arc<Endpoints>, peers: &BTreeMap<String, Peer>) -> Self {
        let all = endpoints.zones.values().flatten();
        let known = all.filter_map(|Endpoint { address, .. }| Some((address, peers.get(address)?)));
        let identities = known.map(|(address, peer)| (address.clone(), peer.identity.clone())).collect();
        Self { endpoints, identities }
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// As whom that endpoint takes mutual TLS, if it does.
    pub(super) fn identity(&self, endpoint: &Endpoint) -> Option<&str> {
        self.identities.get(&endpoint.address).map(AsRef::as_ref)
    }

    /// Name of these endpoints for the cluster of that name.
    pub(super) fn name(&self, cluster: String) -> String {
        if self.identities.is_empty() {
            return cluster;
        }
        let mut all = Sha256::new();
        for identity in self.identities.values().collect::<BTreeSet<_>>() {
            all.update(identity.as_bytes());
            all.update([0]);
        }
        format!("{cluster}?{}", short(&all.finalize()))
    }

    /// How to speak to each identity; whoever has none is spoken to in plaintext.
    pub(super) fn sockets(&self, protocol: BackendProtocol) -> Vec<TransportSocketMatch> {
        let alpn = match protocol {
            BackendProtocol::Http1 => tls::HTTP1,
            BackendProtocol::H2c => tls::HTTP2,
        };
        let identities: BTreeSet<_> = self.identities.values().collect();
        let sockets = identities.into_iter().map(|identity| TransportSocketMatch {
            name: identity.to_string(),
            r#match: Some(criteria(identity)),
            transport_socket: Some(tls::gateway(identity, alpn)),
        });
        sockets.collect()
    }
}

/// What an endpoint of that identity has.
pub(super) fn metadata(identity: &str) -> Metadata {
    let filter_metadata = HashMap::from([(MATCH.to_owned(), criteria(identity))]);
    Metadata { filter_metadata, ..Metadata::default() }
}

fn criteria(identity: &str) -> Struct {
    let identity = Value { kind: Some(value::Kind::StringValue(identity.to_owned())) };
    Struct { fields: HashMap::from([(IDENTITY.to_owned(), identity)]) }
}
