//! Counts of the server.

mod nodes;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use nodes::NodeMetrics;

/// How something ended, in a word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
}

/// How often a Gateway's resources were made, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Translations {
    /// All times together.
    pub seconds: f64,
    /// How many.
    pub count: u64,
}

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Certificates asked for, by outcome.
    pub certificates: Family<Outcome, Counter>,
    /// ADS streams that were opened or refused.
    pub streams: Family<Outcome, Counter>,
    /// ADS streams at the moment.
    pub open_streams: Gauge,
    /// Resources that proxies took or refused.
    pub answers: Family<Outcome, Counter>,
    /// Time to make a Gateway's resources.
    translation_seconds: Histogram,
    /// The same, where it can be read: a histogram can only be shown.
    translations: Arc<Mutex<Translations>>,
    /// Proxies that reported within the last hour.
    pub reporting_proxies: Gauge,
    /// Reports of proxies, by outcome.
    pub reports: Family<Outcome, Counter>,
    /// Status writes, by outcome.
    pub status_writes: Family<Outcome, Counter>,
    /// 1 while this replica writes the statuses.
    pub status_leader: Gauge,
    /// When the issuing CA ends, seconds since 1970.
    pub issuing_ca_expiry: Gauge,
    /// When our own certificate ends.
    pub serving_expiry: Gauge,
    /// What concerns nodes.
    pub nodes: NodeMetrics,
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            certificates: Family::default(),
            streams: Family::default(),
            open_streams: Gauge::default(),
            answers: Family::default(),
            translation_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 14)),
            translations: Arc::default(),
            reporting_proxies: Gauge::default(),
            reports: Family::default(),
            status_writes: Family::default(),
            status_leader: Gauge::default(),
            issuing_ca_expiry: Gauge::default(),
            serving_expiry: Gauge::default(),
            nodes: NodeMetrics::default(),
        };
        let registry = registry.sub_registry_with_prefix("meshwright_control_plane");
        registry.register("certificates", "Certificates asked for", metrics.certificates.clone());
        registry.register("xds_streams", "ADS streams opened or refused", metrics.streams.clone());
        registry.register("xds_open_streams", "ADS streams at the moment", metrics.open_streams.clone());
        registry.register("xds_answers", "Resources that proxies took or refused", metrics.answers.clone());
        registry.register(
            "translation_seconds",
            "Time to make a Gateway's resources",
            metrics.translation_seconds.clone(),
        );
        registry.register(
            "reporting_proxies",
            "Proxies that reported within the last hour",
            metrics.reporting_proxies.clone(),
        );
        registry.register("reports", "Reports of proxies, taken or refused", metrics.reports.clone());
        registry.register("status_writes", "Status writes", metrics.status_writes.clone());
        registry.register(
            "status_leader",
            "1 while this replica writes statuses",
            metrics.status_leader.clone(),
        );
        registry.register(
            "issuing_ca_expiry_seconds",
            "End of the issuing CA, Unix time",
            metrics.issuing_ca_expiry.clone(),
        );
        registry.register(
            "serving_expiry_seconds",
            "End of our own certificate, Unix time",
            metrics.serving_expiry.clone(),
        );
        metrics.nodes.register(registry);
        metrics
    }

    /// A Gateway's resources were made in this time.
    pub fn translated(&self, time: Duration) {
        self.translation_seconds.observe(time.as_secs_f64());
        let mut all = self.translations.lock().unwrap_or_else(PoisonError::into_inner);
        all.seconds += time.as_secs_f64();
        all.count += 1;
    }

    /// All translations since the start.
    pub fn translations(&self) -> Translations {
        *self.translations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often with this outcome.
pub fn counted(family: &Family<Outcome, Counter>, outcome: &'static str) -> u64 {
    family.get(&Outcome { outcome }).map_or(0, |counter| counter.get())
}

/// Counts one more with this outcome.
pub fn count(family: &Family<Outcome, Counter>, outcome: &'static str) {
    family.get_or_create(&Outcome { outcome }).inc();
}
