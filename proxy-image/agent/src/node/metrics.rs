//! What Prometheus learns about a node's agent.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::identity;

/// A stage of a pod's way.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Stage {
    stage: &'static str,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Metrics {
    pods: Family<Stage, Gauge>,
    /// Epoch on which we serve the node; 0 while we do not.
    pub epoch: Gauge,
    /// Tasks in pods' namespaces that failed.
    pub failures: Counter,
    /// How long pods waited in the network plugin until they were captured.
    pub waited: Histogram,
    /// How often the node's list of network plugins was written.
    pub installed: Counter,
    /// Requests for pods' certificates that failed.
    pub certificate_failures: Counter,
}

const WAITED: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            pods: Family::default(),
            epoch: Gauge::default(),
            failures: Counter::default(),
            waited: Histogram::new(WAITED),
            installed: Counter::default(),
            certificate_failures: Counter::default(),
        }
    }
}

impl Metrics {
    /// How many pods are in each stage.
    pub fn set_stages(&self, stages: impl IntoIterator<Item = (&'static str, i64)>) {
        self.pods.clear();
        for (stage, count) in stages {
            self.pods.get_or_create(&Stage { stage }).set(count);
        }
    }

    /// A registry with these, those of our own certificate, and how often Envoy was started anew.
    pub fn registry(&self, own: &identity::Metrics, restarts: &Counter) -> Registry {
        let mut registry = Registry::with_prefix("meshwright_agent");
        registry.register("pods", "Pods by how far they are on their way in or out.", self.pods.clone());
        registry.register(
            "serving_epoch",
            "Epoch on which this agent serves the node, 0 while it does not.",
            self.epoch.clone(),
        );
        registry.register("task_failures", "Failed tasks in pods' namespaces.", self.failures.clone());
        registry.register(
            "plugin_wait_seconds",
            "How long pods waited until they were captured.",
            self.waited.clone(),
        );
        registry.register(
            "plugin_installations",
            "How often the node's list of network plugins was written.",
            self.installed.clone(),
        );
        registry.register(
            "pod_certificate_failures",
            "Failed requests for pods' certificates.",
            self.certificate_failures.clone(),
        );
        registry.register("envoy_restarts", "How often Envoy was started anew.", restarts.clone());
        registry.register(
            "certificate_expiry_seconds",
            "End of the agent's certificate, Unix time.",
            own.expiry.clone(),
        );
        registry.register(
            "certificate_failures",
            "Failed requests for the agent's certificate.",
            own.failures.clone(),
        );
        registry
    }
}
