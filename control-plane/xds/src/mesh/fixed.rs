//! Clusters that every node has, whatever Services there are.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, OriginalDstLbConfig,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::parts::{internal_address, resource};
use super::{PORT, authorize, connections, mirror, tls, upstream};
use crate::Resource;
use crate::envoy::common::uint32;

/// The internal listener where all that pods send arrives, and the cluster that leads there.
pub(super) const NODE: &str = "node";
/// The same for what may be HTTP or not.
pub(super) const DETECT: &str = "node/detect";
/// The internal listener that speaks mutual TLS for clusters of Services.
pub(super) const SENDER: &str = "node/mtls";
/// The cluster to pods that take mutual TLS.
pub(super) const MTLS: &str = "mtls";
/// The cluster to wherever the connection was going.
pub(super) const PASSTHROUGH: &str = "passthrough";
/// The cluster to the application of the pod that was called.
pub(super) const INBOUND: &str = "inbound";

/// The kernel's next try for a lost SYN comes after a second, then after two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Places outside may be far away; a client that is not captured would wait for two minutes.
const FAR_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// All of them.
pub(super) fn clusters(trust_domain: &str) -> Vec<Resource> {
    let mtls = Cluster {
        lb_config: Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
            upstream_port_override: uint32(PORT.into()),
            ..OriginalDstLbConfig::default()
        })),
        transport_socket: Some(tls::client(trust_domain)),
        ..original_dst(MTLS, CONNECT_TIMEOUT)
    };
    let passthrough = Cluster {
        typed_extension_protocol_options: upstream::http_options(),
        ..original_dst(PASSTHROUGH, FAR_CONNECT_TIMEOUT)
    };
    let application = Cluster {
        typed_extension_protocol_options: upstream::http_options(),
        ..original_dst(authorize::APPLICATION, CONNECT_TIMEOUT)
    };
    let nobody = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..upstream::cluster(connections::NOBODY, CONNECT_TIMEOUT)
    };
    let own = [NODE, DETECT, authorize::CHECKED, authorize::HTTP].map(internal);
    let outside = [mtls, passthrough, original_dst(INBOUND, CONNECT_TIMEOUT), application, nobody];
    let all = own.into_iter().chain(outside).chain(mirror::clusters());
    all.map(|cluster| resource(&cluster.name.clone(), cluster)).collect()
}

fn original_dst(name: &str, connect_timeout: Duration) -> Cluster {
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..upstream::cluster(name, connect_timeout)
    }
}

/// Leads to the internal listener of the same name.
fn internal(name: &str) -> Cluster {
    leading_to(name, name)
}

/// Leads to an internal listener.
pub(super) fn leading_to(listener: &str, name: &str) -> Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(internal_address(listener, "")),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        transport_socket: Some(upstream::handing_on()),
        ..upstream::cluster(name, CONNECT_TIMEOUT)
    }
}
