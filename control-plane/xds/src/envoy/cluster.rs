//! Clusters: one for each Service port that a route names.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, RoutingPriority,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttpOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::util::pack_any;
use meshwright_core::config::{BackendProtocol, ClusterRef};

use super::Backends;
use super::common::{ads, duration, keepalive, uint32};
use crate::Resource;

/// A node that vanished does not answer; another pod is tried after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections to a pod are closed before most servers and conntrack tables forget them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// At this age a connection gets no further request. A node's proxy that is to be replaced waits for the end of its connections, and cannot ask
/// for it, because it hands on bytes.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60);

/// A name that is never a cluster: requests for it get the `cluster_not_found_response_code`.
pub(super) const UNRESOLVED: &str = "unresolved";

/// `outbound|<port>|<service>.<namespace>`.
pub fn name(cluster: &ClusterRef) -> String {
    format!("outbound|{}|{}.{}", cluster.port, cluster.service.name, cluster.service.namespace)
}

/// The cluster that has these endpoints; none is what names none.
pub(super) fn of_endpoints(name: &str) -> &str {
    name.split_once('?').map_or(name, |(cluster, _)| cluster)
}

/// The cluster resource. Of its backends only the identities matter that they have in the mesh.
pub fn resource(cluster: &ClusterRef, backends: &Backends) -> Resource {
    let name = name(cluster);
    // Empty where it is the cluster's own.
    let service_name = Some(backends.name(name.clone())).filter(|found| *found != name).unwrap_or_default();
    let proto = Cluster {
        name: name.clone(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name }),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        lb_policy: LbPolicy::LeastRequest as i32,
        common_lb_config: Some(CommonLbConfig {
            // Panic mode would send requests to draining pods as soon as they are the majority, as in every
            // rolling update.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        transport_socket_matches: backends.sockets(cluster.protocol),
        circuit_breakers: Some(unlimited()),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive()),
            ..UpstreamConnectionOptions::default()
        }),
        typed_extension_protocol_options: HashMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(protocol_options(cluster.protocol)),
        )]),
        ..Cluster::default()
    };
    Resource::new(name, pack_any(proto))
}

/// Envoy's own limits (1024 connections, 3 retries) are for other uses: nobody asked for a limit here.
fn unlimited() -> CircuitBreakers {
    let thresholds = |priority: RoutingPriority| Thresholds {
        priority: priority as i32,
        max_connections: uint32(u32::MAX),
        max_pending_requests: uint32(u32::MAX),
        max_requests: uint32(u32::MAX),
        max_retries: uint32(u32::MAX),
        ..Thresholds::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds(RoutingPriority::Default)],
        per_host_thresholds: Vec::new(),
    }
}

fn protocol_options(protocol: BackendProtocol) -> UpstreamHttpOptions {
    let protocol_config = match protocol {
        BackendProtocol::Http1 => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        BackendProtocol::H2c => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()),
    };
    UpstreamHttpOptions {
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(IDLE_TIMEOUT)),
            max_connection_duration: Some(duration(MAX_AGE)),
            ..HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol_config),
        })),
        ..UpstreamHttpOptions::default()
    }
}
