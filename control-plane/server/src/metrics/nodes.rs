//! Counts of what is done for the proxies of nodes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::Outcome;

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct NodeMetrics {
    /// Streams of agents that were opened or refused.
    pub streams: Family<Outcome, Counter>,
    /// Those at the moment.
    pub open_streams: Gauge,
    /// Reports of agents, by outcome.
    pub reports: Family<Outcome, Counter>,
    /// Proxies of nodes whose reports of traffic are kept.
    pub reporting: Gauge,
    /// What Envoys of nodes have refused, as their agents report it.
    pub refused: Counter,
    /// Writes of MeshNode status, by outcome.
    pub status_writes: Family<Outcome, Counter>,
    /// Time to make what all nodes have in common.
    pub translation_seconds: Histogram,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self {
            streams: Family::default(),
            open_streams: Gauge::default(),
            reports: Family::default(),
            reporting: Gauge::default(),
            refused: Counter::default(),
            status_writes: Family::default(),
            translation_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
        }
    }
}

impl NodeMetrics {
    /// Registers everything.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("node_streams", "Streams of nodes' agents opened or refused", self.streams.clone());
        registry.register(
            "node_open_streams",
            "Streams of nodes' agents at the moment",
            self.open_streams.clone(),
        );
        registry.register("node_reports", "Reports of nodes' agents", self.reports.clone());
        registry.register(
            "reporting_nodes",
            "Proxies of nodes that reported traffic within the last hour",
            self.reporting.clone(),
        );
        registry.register(
            "node_refusals",
            "Responses that Envoys of nodes refused, as their agents report them",
            self.refused.clone(),
        );
        registry.register("node_status_writes", "Writes of MeshNode status", self.status_writes.clone());
        registry.register(
            "node_translation_seconds",
            "Time to make the resources that all nodes have",
            self.translation_seconds.clone(),
        );
    }
}
