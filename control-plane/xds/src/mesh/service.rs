//! What Services become: names, clusters, endpoints.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use meshwright_core::config::{ClusterRef, PortRoutes};
use meshwright_core::mesh::Protocol;
use meshwright_core::model::ObjectKey;

use super::parts::resource;
use super::upstream;
use crate::Resource;
use crate::envoy::common::ads;

/// As for gateways: a node that vanished does not answer; another pod is tried after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A port of a Service, as far as its endpoints do not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// `outbound|<port>|<service>|<namespace>`: its endpoints, and the prefix of its statistics.
    pub name: Arc<str>,
    /// Where it is called, `address:port`.
    pub destinations: Vec<String>,
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
    /// What becomes of requests and connections, if routes say so.
    pub routes: Option<Arc<PortRoutes>>,
    /// Whether routes, of whatever Service, lead here.
    pub is_backend: bool,
    /// Whether a client stays with one endpoint.
    pub by_client: bool,
}

impl Port {
    pub fn new(service: &ObjectKey, port: u16, addresses: &[String], protocol: Protocol) -> Self {
        Self {
            name: name(service, port),
            destinations: addresses.iter().filter_map(|address| destination(address, port)).collect(),
            protocol,
            number: port,
            routes: None,
            is_backend: false,
            by_client: false,
        }
    }

    /// One that is nothing but a backend.
    pub fn backend(service: &ObjectKey, port: u16) -> Self {
        Self { is_backend: true, ..Self::new(service, port, &[], Protocol::Http) }
    }

    /// The cluster that requests to `destination` go to. What may be TCP goes to the cluster named by the destination, because that is all
    /// that is known of a connection.
    pub fn cluster<'a>(&'a self, destination: &'a str) -> &'a str {
        match self.protocol {
            Protocol::Http => &self.name,
            Protocol::Tcp | Protocol::Detect => destination,
        }
    }

    pub fn clusters(&self) -> Vec<Resource> {
        let mut clusters: Vec<_> = match self.protocol {
            Protocol::Http => Vec::new(),
            Protocol::Tcp | Protocol::Detect => {
                self.destinations.iter().map(|name| self.named(name)).collect()
            }
        };
        if self.is_backend || self.protocol == Protocol::Http {
            clusters.push(self.named(&self.name));
        }
        clusters
    }

    fn named(&self, name: &str) -> Resource {
        // What is hashed is the network that the client calls from: each pod has its own.
        let policy = if self.by_client { LbPolicy::RingHash } else { LbPolicy::LeastRequest };
        cluster(name, &self.name, policy)
    }
}

/// `outbound|<port>|<service>|<namespace>`.
pub(super) fn name(service: &ObjectKey, port: u16) -> Arc<str> {
    format!("outbound|{port}|{}|{}", service.name, service.namespace).into()
}

/// The cluster that routes call a backend by.
pub(super) fn cluster_name(cluster: &ClusterRef) -> String {
    name(&cluster.service, cluster.port).to_string()
}

/// As Envoy writes an address with a port; none for what is no address.
pub(super) fn destination(address: &str, port: u16) -> Option<String> {
    address.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port).to_string())
}

/// Nothing of it depends on who the endpoints are: they say themselves who they are, and whether they take mutual TLS. Nor on the
/// protocol: while that changes, HTTP comes to the cluster of what is TCP.
fn cluster(name: &str, endpoints: &str, policy: LbPolicy) -> Resource {
    let cluster = Cluster {
        alt_stat_name: if name == endpoints { String::new() } else { endpoints.to_owned() },
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: if name == endpoints { String::new() } else { endpoints.to_owned() },
        }),
        lb_policy: policy as i32,
        common_lb_config: Some(CommonLbConfig {
            // As for gateways: pods that drain get nothing new, however many they are.
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..CommonLbConfig::default()
        }),
        transport_socket: Some(upstream::handing_on()),
        typed_extension_protocol_options: upstream::http_options(),
        ..upstream::cluster(name, CONNECT_TIMEOUT)
    };
    resource(name, cluster)
}
