//! Endpoints of a cluster.

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::util::pack_any;
use meshwright_core::config::ClusterRef;
use meshwright_core::endpoints::{Endpoint, EndpointHealth};

use super::{Backends, cluster, common::socket_address, mtls};
use crate::Resource;
use crate::mesh;

/// The name of the resource.
pub fn name(cluster: &ClusterRef, backends: &Backends) -> String {
    backends.name(cluster::name(cluster))
}

/// The endpoints of one cluster. A pod that terminates but still serves stays listed as DRAINING, so that
/// what runs on it ends in peace; if nobody else is left it gets new requests too, as from kube-proxy.
pub fn resource(cluster: &ClusterRef, backends: &Backends) -> Resource {
    let (name, endpoints) = (name(cluster, backends), backends.endpoints());
    let last_resort = !endpoints.has_ready();
    let localities = endpoints.zones.iter().filter(|(_, endpoints)| !endpoints.is_empty());
    let proto = ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: localities
            .map(|(zone, endpoints)| LocalityLbEndpoints {
                locality: Some(Locality { zone: zone.clone(), ..Locality::default() }),
                lb_endpoints: endpoints
                    .iter()
                    .map(|endpoint| lb_endpoint(endpoint, backends.identity(endpoint), last_resort))
                    .collect(),
                ..LocalityLbEndpoints::default()
            })
            .collect(),
        ..ClusterLoadAssignment::default()
    };
    Resource::new(name, pack_any(proto))
}

fn lb_endpoint(endpoint: &Endpoint, identity: Option<&str>, last_resort: bool) -> LbEndpoint {
    let status = match endpoint.health {
        EndpointHealth::Draining if !last_resort => HealthStatus::Draining,
        EndpointHealth::Ready | EndpointHealth::Draining => HealthStatus::Healthy,
    };
    LbEndpoint {
        health_status: status as i32,
        metadata: identity.map(mtls::metadata),
        host_identifier: Some(HostIdentifier::Endpoint(address(endpoint, identity.is_some()))),
        ..LbEndpoint::default()
    }
}

/// By the mesh's wire format the host name of who takes mutual TLS, which becomes the server name, is the port of its application.
fn address(endpoint: &Endpoint, takes_mtls: bool) -> EnvoyEndpoint {
    let Endpoint { address, port, .. } = endpoint;
    match takes_mtls {
        true => EnvoyEndpoint {
            address: Some(socket_address(address, mesh::PORT)),
            hostname: port.to_string(),
            ..EnvoyEndpoint::default()
        },
        false => EnvoyEndpoint { address: Some(socket_address(address, *port)), ..EnvoyEndpoint::default() },
    }
}
