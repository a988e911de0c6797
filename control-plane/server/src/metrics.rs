//! Counts of the server.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How something ended, in a word.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
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
    pub translation_seconds: Histogram,
    /// Status writes, by outcome.
    pub status_writes: Family<Outcome, Counter>,
    /// 1 while this replica writes the statuses.
    pub status_leader: Gauge,
    /// When the issuing CA ends, seconds since 1970.
    pub issuing_ca_expiry: Gauge,
    /// When our own certificate ends.
    pub serving_expiry: Gauge,
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
            status_writes: Family::default(),
            status_leader: Gauge::default(),
            issuing_ca_expiry: Gauge::default(),
            serving_expiry: Gauge::default(),
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
        metrics
    }
}

/// Counts one more with this outcome.
pub fn count(family: &Family<Outcome, Counter>, outcome: &'static str) {
    family.get_or_create(&Outcome { outcome }).inc();
}
