//! The operator's metrics. Labels come from closed sets or from objects that the operator itself keeps.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// One controller and how a reconcile ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// Which controller.
    pub controller: &'static str,
    /// `ok` or the class of the error.
    pub outcome: &'static str,
}

/// A write.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteLabels {
    /// Kind of the object.
    pub kind: String,
    /// apply, create, delete, status.
    pub verb: &'static str,
}

/// A certificate of the ledger.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CertificateLabels {
    /// root or issuing.
    pub kind: &'static str,
    /// Where it is.
    pub name: String,
}

/// An upgrade that is over.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpgradeLabels {
    /// Succeeded, RolledBack or Superseded.
    pub result: String,
}

/// All metrics; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Reconciles by outcome.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// Seconds that a reconcile took.
    pub duration: Histogram,
    /// Writes by kind and verb.
    pub writes: Family<WriteLabels, Counter>,
    /// Writes not made because another manager keeps changing the field back.
    pub contested: Counter,
    /// End of each certificate's life, Unix time.
    pub certificate_expiry: Family<CertificateLabels, Gauge<f64, AtomicU64>>,
    /// Upgrades that are over, by result.
    pub upgrades: Family<UpgradeLabels, Counter>,
    /// Seconds that an upgrade took.
    pub upgrade_duration: Histogram,
    /// Share of the new revision in percent of the connections; 0 without an upgrade.
    pub canary_share: Gauge,
    /// 1 on the replica that acts.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            duration: Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0]),
            writes: Family::default(),
            contested: Counter::default(),
            certificate_expiry: Family::default(),
            upgrades: Family::default(),
            upgrade_duration: Histogram::new([30.0, 120.0, 600.0, 1800.0, 7200.0, 86_400.0]),
            canary_share: Gauge::default(),
            leader: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("meshwright");
        r.register("operator_reconciles", "Reconciles by controller and outcome", self.reconciles.clone());
        r.register("operator_reconcile_seconds", "Seconds a reconcile took", self.duration.clone());
        r.register("operator_writes", "Writes to the API server", self.writes.clone());
        r.register(
            "operator_contested_writes",
            "Writes held back because another manager keeps changing the field",
            self.contested.clone(),
        );
        r.register("upgrades", "Upgrades that are over, by result", self.upgrades.clone());
        r.register("upgrade_seconds", "Seconds an upgrade took", self.upgrade_duration.clone());
        r.register(
            "upgrade_canary_share",
            "Share of the new revision in percent of the connections",
            self.canary_share.clone(),
        );
        r.register("operator_leader", "1 on the replica that acts", self.leader.clone());
        r.register(
            "certificate_expiry_seconds",
            "End of each certificate's life, in Unix time",
            self.certificate_expiry.clone(),
        );
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind: kind.to_owned(), verb }).inc();
    }
}
