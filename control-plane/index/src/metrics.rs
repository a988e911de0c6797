//! Counts of the index.

use std::time::Duration;

use meshwright_core::mesh::Mesh;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) events: Counter,
    pub(crate) resolutions: Counter,
    pub(crate) endpoint_updates: Counter,
    pub(crate) resolution_seconds: Histogram,
    pub(crate) gateways: Gauge,
    pub(crate) http_routes: Gauge,
    pub(crate) grpc_routes: Gauge,
    pub(crate) tcp_routes: Gauge,
    mesh_resolution_seconds: Histogram,
    mesh_members: Gauge,
    mesh_peers: Gauge,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("meshwright_index");
        let metrics = Self {
            events: Counter::default(),
            resolutions: Counter::default(),
            endpoint_updates: Counter::default(),
            resolution_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
            gateways: Gauge::default(),
            http_routes: Gauge::default(),
            grpc_routes: Gauge::default(),
            tcp_routes: Gauge::default(),
            mesh_resolution_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
            mesh_members: Gauge::default(),
            mesh_peers: Gauge::default(),
        };
        registry.register("events", "Updates from watches", metrics.events.clone());
        registry.register("resolutions", "Resolutions of the whole model", metrics.resolutions.clone());
        registry.register("endpoint_updates", "Updates of endpoints alone", metrics.endpoint_updates.clone());
        registry.register("resolution_seconds", "Time of a resolution", metrics.resolution_seconds.clone());
        registry.register("gateways", "Gateways of ours", metrics.gateways.clone());
        registry.register("http_routes", "HTTPRoutes with a parent of ours", metrics.http_routes.clone());
        registry.register("grpc_routes", "GRPCRoutes with a parent of ours", metrics.grpc_routes.clone());
        registry.register("tcp_routes", "TCPRoutes with a parent of ours", metrics.tcp_routes.clone());
        let seconds = metrics.mesh_resolution_seconds.clone();
        registry.register("mesh_resolution_seconds", "Time to find out what changed in the mesh", seconds);
        registry.register("mesh_members", "Pods that are to be in the mesh", metrics.mesh_members.clone());
        let peers = metrics.mesh_peers.clone();
        registry.register("mesh_peers", "Addresses of pods that take mutual TLS", peers);
        metrics
    }

    /// Counts a resolution of the mesh.
    pub(crate) fn mesh(&self, mesh: &Mesh, took: Duration) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.mesh_resolution_seconds.observe(took.as_secs_f64());
        self.mesh_members.set(count(mesh.nodes.values().map(|node| node.members.len()).sum()));
        self.mesh_peers.set(count(mesh.peers.len()));
    }
}
