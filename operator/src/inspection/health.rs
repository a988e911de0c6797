//! How both control planes were, in the same time, as the judge takes it. Pure.

use meshwright_decisions::health::ReplicaHealth;

use super::observe::{Observation, Observed};

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
    let of = |revision| observation.revisions.get(revision).map(of_revision).unwrap_or_default();
    let (canary, mut baseline) = (of(canary), of(baseline));
    let since = canary.iter().map(|sample| sample.at).min().unwrap_or(i64::MAX);
    baseline.retain(|sample| sample.at >= since);
    Samples { canary, baseline }
}

fn of_revision(observed: &Observed) -> Vec<ReplicaHealth> {
    let replicas = observed.health.iter();
    let samples = replicas.flat_map(|((pod, _), samples)| samples.iter().map(move |sample| (pod, sample)));
    let samples = samples.map(|(pod, sample)| ReplicaHealth {
        pod: pod.clone(),
        at: sample.at,
        started: sample.health.started,
        resident_bytes: sample.health.resident_bytes,
        configurations_refused: sample.health.configurations_refused,
        certificates_refused: sample.health.certificates_refused,
        certificates_signed: sample.health.certificates_signed,
        streams_opened: sample.health.streams_opened,
        open_streams: sample.open_streams,
        translations: sample.health.translations,
        translation_seconds: sample.health.translation_seconds,
    });
    samples.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::jiff::Timestamp;
    use meshwright_proto::inspection::Health;

    use super::*;
    use crate::inspection::memory::Sample;

    fn observed(pod: &str, at: &[i64]) -> Observed {
        let health = |at: i64| Health {
            started: 1,
            streams: Vec::new(),
            streams_opened: 2,
            configurations_refused: 3,
            certificates_signed: 4,
            certificates_refused: 5,
            resident_bytes: at as u64,
            translation_seconds: 7.5,
            translations: 8,
        };
        let sample = |at: &i64| Sample { at: *at, open_streams: 9, health: health(*at) };
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
        let expected = ReplicaHealth {
            pod: "new-0".to_owned(),
            at: 20,
            started: 1,
            resident_bytes: 20,
            configurations_refused: 3,
            certificates_refused: 5,
            certificates_signed: 4,
            streams_opened: 2,
            open_streams: 9,
            translations: 8,
            translation_seconds: 7.5,
        };
        assert_eq!(samples.canary[0], expected);
        assert_eq!(samples.baseline.iter().map(|s| s.at).collect::<Vec<_>>(), [20, 25]);
        assert_eq!(super::samples(&observation, "gone", "old"), Samples::default());
    }
}
