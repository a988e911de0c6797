//! Counts of the index.

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
        };
        registry.register("events", "Updates from watches", metrics.events.clone());
        registry.register("resolutions", "Resolutions of the whole model", metrics.resolutions.clone());
        registry.register("endpoint_updates", "Updates of endpoints alone", metrics.endpoint_updates.clone());
        registry.register("resolution_seconds", "Time of a resolution", metrics.resolution_seconds.clone());
        registry.register("gateways", "Gateways of ours", metrics.gateways.clone());
        registry.register("http_routes", "HTTPRoutes with a parent of ours", metrics.http_routes.clone());
        metrics
    }
}
