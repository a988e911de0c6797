//! What shapes a route apart from itself.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use envoy_types::pb::google::protobuf::Any;
use meshwright_core::config::{ClusterRef, PortConfig, PortProtocol};

use crate::envoy::cluster;

/// Where routes are served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The port that clients connect to.
    pub port: u16,
    /// What they speak there.
    pub protocol: PortProtocol,
    /// Name of the cluster of a backend.
    pub cluster: fn(&ClusterRef) -> String,
    /// How copies get to a cluster; the second says whether they are HTTP/2.
    pub mirror: fn(String, bool) -> RequestMirrorPolicy,
    /// What filters are told, by their names, of a share of requests that is for no cluster at all.
    pub unresolved: fn() -> HashMap<String, Any>,
    /// Whether what no backend can have seen is tried again, where the user says nothing of retries.
    pub retries_unseen: bool,
}

impl From<&PortConfig> for Place {
    fn from(port: &PortConfig) -> Self {
        Self {
            port: port.port,
            protocol: port.protocol,
            cluster: cluster::name,
            mirror: |cluster, _| RequestMirrorPolicy { cluster, ..RequestMirrorPolicy::default() },
            unresolved: HashMap::new,
            retries_unseen: true,
        }
    }
}
