//! What a Lease says and what to write into it. No clock and no client here.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::{LeaseConfig, REVISION_ANNOTATION};

/// What a candidate may conclude from a Lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The annotation names another revision, or none.
    OtherRevision(Option<String>),
    /// It is ours, or nobody's.
    Open,
    /// Somebody else's, for as long as the renewal is this young.
    Held { by: String, duration: Duration },
}

pub(super) fn claim(lease: &Lease, config: &LeaseConfig) -> Claim {
    if let Some(revision) = &config.revision {
        let allowed = lease.metadata.annotations.as_ref().and_then(|all| all.get(REVISION_ANNOTATION));
        if allowed != Some(revision) {
            return Claim::OtherRevision(allowed.cloned());
        }
    }
    let spec = lease.spec.as_ref();
    match spec.and_then(|spec| spec.holder_identity.as_deref()) {
        None | Some("") => Claim::Open,
        Some(holder) if holder == config.identity => Claim::Open,
        Some(holder) => {
            let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
            let duration =
                seconds.and_then(|s| u64::try_from(s).ok()).map_or(config.duration, Duration::from_secs);
            Claim::Held { by: holder.to_owned(), duration }
        }
    }
}

/// Whether two readings show the same renewal.
pub(super) fn same_renewal(a: &Lease, b: &Lease) -> bool {
    let (Some(a), Some(b)) = (&a.spec, &b.spec) else { return a.spec == b.spec };
    a.holder_identity == b.holder_identity
        && a.renew_time == b.renew_time
        && a.lease_transitions == b.lease_transitions
}

pub(super) fn held_by(lease: &Lease, identity: &str) -> bool {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(identity)
}

/// The Lease with us as holder; keeps everything else, the resourceVersion above all.
pub(super) fn taken(mut lease: Lease, config: &LeaseConfig, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if spec.holder_identity.as_deref() != Some(&config.identity) {
        spec.holder_identity = Some(config.identity.clone());
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    spec.renew_time = Some(MicroTime(now));
    spec.lease_duration_seconds = Some(seconds(config.duration));
    lease
}

/// The Lease with no holder, so that the next candidate need not wait.
pub(super) fn released(mut lease: Lease) -> Lease {
    if let Some(spec) = &mut lease.spec {
        spec.holder_identity = None;
        spec.acquire_time = None;
        spec.renew_time = None;
    }
    lease
}

pub(super) fn absent(config: &LeaseConfig) -> Lease {
    Lease {
        metadata: ObjectMeta {
            namespace: Some(config.namespace.clone()),
            name: Some(config.name.clone()),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}
