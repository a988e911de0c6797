//! Endpoints of a Service's port. One that takes mutual TLS is not an address to connect to, but a way through the internal listener that
//! speaks it: the endpoint's id says which address is meant, and whose certificate it must show. So who takes mutual TLS, and as whom, changes
//! by EDS alone.
//!
//! The same as metadata would take 2 to 4 kB for each endpoint: Envoy keeps what it was sent of endpoints twice, and messages of maps are large.

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use meshwright_core::endpoints::{Endpoint, EndpointHealth, Endpoints};
use meshwright_core::mesh::Peer;

use super::fixed::SENDER;
use super::parts::{internal_address, resource};
use super::service::destination;
use super::signals;
use crate::Resource;
use crate::envoy::common::socket_address;

/// Between the address and the workload in the id of an endpoint; neither can have it.
pub(super) const SEPARATOR: char = '/';
/// The workload of an endpoint that takes mutual TLS is its host name, which what is counted and written down has. Of any other endpoint it is
/// this: without a name Envoy would tell the address.
const NOBODY: &str = "-";

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
            host_identifier: Some(HostIdentifier::Endpoint(reached(endpoint, who))),
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
    resource(name, assignment)
}

fn reached(endpoint: &Endpoint, who: Option<&Peer>) -> EnvoyEndpoint {
    let at = destination(&endpoint.address, endpoint.port);
    let (address, hostname) = match at.zip(who) {
        Some((at, who)) => {
            let workload = signals::workload(&who.identity, &who.workload);
            (internal_address(SENDER, &format!("{at}{SEPARATOR}{workload}")), workload)
        }
        None => (socket_address(&endpoint.address, endpoint.port), NOBODY.to_owned()),
    };
    EnvoyEndpoint { address: Some(address), hostname, ..EnvoyEndpoint::default() }
}
