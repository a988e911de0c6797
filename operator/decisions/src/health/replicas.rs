//! Counters of several replicas, some of which may have started again, as one change.

use std::collections::BTreeMap;

use super::ReplicaHealth;

/// What a control plane's replicas did between their first and their last sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Change {
    pub restarts: u64,
    pub configurations_refused: u64,
    /// When the first of them was seen, Unix seconds.
    pub refused_since: Option<i64>,
    pub translations: u64,
    translation_seconds: f64,
    streams_opened: u64,
    /// Streams that are open now beyond those that were at first.
    more_streams: f64,
    /// Mean number of open streams.
    open_streams: f64,
}

impl Change {
    /// Streams opened that do not just make up for a greater number of open ones.
    pub fn reopened(&self) -> f64 {
        (self.streams_opened as f64 - self.more_streams.max(0.0)).max(0.0)
    }

    pub fn reopened_per_stream(&self) -> f64 {
        self.reopened() / self.open_streams.max(1.0)
    }

    pub fn translation_mean(&self) -> f64 {
        self.translation_seconds / self.translations.max(1) as f64
    }
}

/// Samples of each process, a restarted one being another, in the order of time.
pub(super) fn processes(samples: &[ReplicaHealth]) -> BTreeMap<(&str, i64), Vec<&ReplicaHealth>> {
    let mut processes: BTreeMap<(&str, i64), Vec<&ReplicaHealth>> = BTreeMap::new();
    for sample in samples {
        processes.entry((&sample.pod, sample.started)).or_default().push(sample);
    }
    processes.values_mut().for_each(|samples| samples.sort_by_key(|sample| sample.at));
    processes
}

/// Puts the replicas together.
pub(super) fn change(samples: &[ReplicaHealth]) -> Change {
    let mut change = Change::default();
    let begin = samples.iter().map(|sample| sample.at).min().unwrap_or(0);
    let mut pod_before = None;
    for ((pod, started), samples) in processes(samples) {
        change.restarts += u64::from(pod_before == Some(pod));
        pod_before = Some(pod);
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
        // A process that started in this time counted from nothing in it.
        let before = |count: fn(&ReplicaHealth) -> u64| if started >= begin { 0 } else { count(first) };
        let since = |count: fn(&ReplicaHealth) -> u64| count(last).saturating_sub(before(count));
        let refused: fn(&ReplicaHealth) -> u64 = |sample| sample.configurations_refused;
        change.configurations_refused += since(refused);
        let seen = samples.iter().find(|sample| refused(sample) > before(refused)).map(|sample| sample.at);
        change.refused_since = [change.refused_since, seen].into_iter().flatten().min();
        change.translations += since(|sample| sample.translations);
        change.streams_opened += since(|sample| sample.streams_opened);
        let seconds = if started >= begin { 0.0 } else { first.translation_seconds };
        change.translation_seconds += last.translation_seconds - seconds;
        let open = if started >= begin { 0.0 } else { first.open_streams as f64 };
        change.more_streams += last.open_streams as f64 - open;
        let sum: f64 = samples.iter().map(|sample| sample.open_streams as f64).sum();
        change.open_streams += sum / samples.len() as f64;
    }
    change
}
