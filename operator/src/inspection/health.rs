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

/// So many ends of Envoy within minutes, more than the other revision's proxies had meanwhile, are no accident. Its agent starts it again within
/// a second, so that neither the kubelet nor readiness may notice.
const ENDS: u64 = 3;

/// How often Envoy ended by itself in the canary's proxies, and in the baseline's, where that is too often.
pub fn envoy_ends(observation: &Observation, canary: &str, baseline: &str) -> Option<String> {
    let of = |revision| {
        let proxies = observation.revisions.get(revision).into_iter().flat_map(|o| &o.proxies);
        proxies.map(|(key, seen)| (key, seen.proxy.restarts.saturating_sub(seen.ended_before.0)))
    };
    let ends: u64 = of(canary).map(|(_, ends)| ends).sum();
    let before: u64 = of(baseline).map(|(_, ends)| ends).sum();
    let (most, _) = of(canary).max_by_key(|(_, ends)| *ends)?;
    (ends >= ENDS + before).then(|| {
        format!(
            "Envoy ended by itself {ends} times in the new proxies, most often in {}/{}, and {before} times in the old ones",
            most.namespace, most.pod
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use k8s_openapi::jiff::Timestamp;
    use meshwright_proto::reports::Proxy;

    use super::*;
    use crate::inspection::{ProxyKey, SeenProxy, observe::Observed};

    fn observed(pod: &str, at: &[i64]) -> Observed {
        let sample = |at: &i64| ReplicaHealth { pod: pod.to_owned(), at: *at, ..ReplicaHealth::default() };
        let key = (pod.to_owned(), "uid".to_owned());
        Observed { health: [(key, Arc::new(at.iter().map(sample).collect()))].into(), ..Observed::default() }
    }

    #[test]
    fn an_envoy_that_ends_again_and_again_is_noticed() {
        let proxies = |revision: &str, ended_before, restarts| {
            let key = ProxyKey {
                revision: revision.to_owned(),
                namespace: "shop".to_owned(),
                pod: format!("{revision}-0"),
                instance: "1".to_owned(),
            };
            let (proxy, slots) = (Proxy { restarts, ..Proxy::default() }, BTreeMap::new());
            let ended_before = (ended_before, 0);
            let seen = SeenProxy { proxy, last_report: 0, drains_since: None, ended_before, slots };
            (revision.to_owned(), Observed { proxies: [(key, Arc::new(seen))].into(), ..Observed::default() })
        };
        let at = Timestamp::UNIX_EPOCH;
        let told = |new: (u64, u64), old: (u64, u64)| {
            let revisions = [proxies("new", new.0, new.1), proxies("old", old.0, old.1)].into();
            envoy_ends(&Observation { at, since: at, revisions }, "new", "old")
        };
        let reason = told((0, 3), (7, 7)).unwrap();
        assert!(reason.contains("3 times in the new proxies, most often in shop/new-0"), "{reason}");
        assert_eq!(told((0, 2), (7, 7)), None);
        assert_eq!(told((0, 3), (7, 8)), None, "what ends the old ones too is not its doing");
        assert_eq!(told((5, 7), (0, 0)), None, "what was before is not known of both");
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
