//! Endpoints of a Service's port. One that takes mutual TLS is not an address to connect to, but a way through the internal listener that
//! speaks it: the address that is meant is the endpoint's id, the identity that its certificate must have is its metadata. So who takes
//! mutual TLS, and as whom, changes by EDS alone.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value};
use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
use meshwright_core::mesh::Peer;

use super::fixed::SENDER;
use super::parts::internal_address;
use super::service::destination;
use super::{ordered, signals};
use crate::Resource;
use crate::envoy::common::socket_address;

/// Metadata of endpoints that take mutual TLS, and in it the keys of their SPIFFE id and of their workload as [`signals::workload`] writes it.
/// Nothing that differs between Services: endpoints with the same metadata share it, and it takes about 2.7 kB where they cannot.
pub(super) const PEER: &str = "meshwright.io/peer";
pub(super) const IDENTITY: &str = "identity";
pub(super) const WORKLOAD: &str = "workload";

/// `who` says as whom an address takes mutual TLS, if it does.
pub(super) fn assignment<'a>(
    name: &str,
    endpoints: &Endpoints,
    who: impl Fn(&str) -> Option<&'a Peer>,
) -> Resource {
    // As kube-proxy: who drains gets new connections only when nobody else is there.
    let last_resort = !endpoints.has_ready();
    let lb_endpoint = |endpoint: &Endpoint| {
        let who = who(&endpoint.address);
        let status = match endpoint.health {
            EndpointHealth::Draining if !last_resort => HealthStatus::Draining,
            EndpointHealth::Ready | EndpointHealth::Draining => HealthStatus::Healthy,
        };
        LbEndpoint {
            health_status: status as i32,
            metadata: who.map(peer),
            host_identifier: Some(HostIdentifier::Endpoint(address(endpoint, who.is_some()))),
            ..LbEndpoint::default()
        }
    };
    let localities = endpoints.zones.iter().filter(|(_, endpoints)| !endpoints.is_empty());
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities
            .map(|(zone, endpoints)| LocalityLbEndpoints {
                locality: Some(Locality { zone: zone.clone(), ..Locality::default() }),
                lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
                ..LocalityLbEndpoints::default()
            })
            .collect(),
        ..ClusterLoadAssignment::default()
    };
    Resource::new(name, ordered::assignment(assignment))
}

fn address(endpoint: &Endpoint, takes_mtls: bool) -> EnvoyEndpoint {
    let through = destination(&endpoint.address, endpoint.port).filter(|_| takes_mtls);
    let address = match through {
        Some(id) => internal_address(SENDER, &id),
        None => socket_address(&endpoint.address, endpoint.port),
    };
    EnvoyEndpoint { address: Some(address), ..EnvoyEndpoint::default() }
}

fn peer(who: &Peer) -> Metadata {
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let workload = signals::workload(&who.identity, &who.workload);
    let fields = [(IDENTITY, text(&who.identity)), (WORKLOAD, text(&workload))];
    let peer = Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() };
    Metadata { filter_metadata: HashMap::from([(PEER.to_owned(), peer)]), ..Metadata::default() }
}
