//! How both control planes were, in the same time, as the judge takes it. Pure.

use meshwright_decisions::health::ReplicaHealth;

use super::observe::Observation;

/// Samples of both sides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// The new revision.
    pub canary: Vec<ReplicaHealth>,
    /// The old revision.
    pub baseline: Vec<ReplicaHealth>,
}

/// From the first answer of the canary on: what the baseline did before that has nothing beside it.
pub fn samples(observation: &Observation, canary: &str, baseline: &str) -> Samples {
    let of = |revision| {
        let replicas = observation.revisions.get(revision).into_iter().flat_map(|o| o.health.values());
        replicas.flat_map(|samples| samples.iter().cloned()).collect::<Vec<_>>()
    };
    let (canary, mut baseline) = (of(canary), of(baseline));
    let since = canary.iter().map(|sample| sample.at).min().unwrap_or(i64::MAX);
    baseline.retain(|sample| sample.at >= since);
    Samples { canary, baseline }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::inspection::observe::Observed;

    fn observed(pod: &str, at: &[i64]) -> Observed {
        let sample = |at: &i64| ReplicaHealth { pod: pod.to_owned(), at: *at, ..ReplicaHealth::default() };
        let key = (pod.to_owned(), "uid".to_owned());
        Observed { health: [(key, Arc::new(at.iter().map(sample).collect()))].into(), ..Observed::default() }
    }

    #[test]
    fn both_sides_begin_where_the_canary_did() {
        let revisions = [
            ("new".to_owned(), observed("new-0", &[20, 25])),
            ("old".to_owned(), observed("old-0", &[10, 15, 20, 25])),
        ];
        let at = Timestamp::UNIX_EPOCH;
        let observation = Observation { at, since: at, revisions: revisions.into() };
        let samples = samples(&observation, "new", "old");
        let times = |samples: &[ReplicaHealth]| samples.iter().map(|s| s.at).collect::<Vec<_>>();
        assert_eq!((times(&samples.canary), times(&samples.baseline)), (vec![20, 25], vec![20, 25]));
        assert_eq!(super::samples(&observation, "gone", "old"), Samples::default());
    }
}
