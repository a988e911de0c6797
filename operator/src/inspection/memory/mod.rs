//! What control planes have told so far, put together: a proxy may report to one replica and then to another, and each
//! replica is asked only for what is new. No I/O.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use meshwright_decisions::{analysis::SLOT_SECONDS, health::ReplicaHealth};
use meshwright_proto::{
    inspection::{Health, ObserveResponse, ObservedProxy},
    reports::Proxy,
};

use super::{replica::Replica, traffic::Traffic};

#[cfg(test)]
mod tests;

/// Control planes forget reports after an hour.
const LONGEST: i64 = 3600;
/// Asked for again each time: reports come late, and clocks of nodes differ.
const OVERLAP: i64 = 15;
/// A proxy that reports nothing for so long is not waited for. What it has to tell when it comes back is asked for then.
const SILENT: i64 = 60;
/// What Envoy did before is another story.
const LATELY: i64 = 600;
/// Slots of all proxies together, about 10 MB. With more of them, less of the past is kept.
const SLOTS: usize = 40_000;
/// A slot from further in the future is of a clock that nothing can be compared with.
const AHEAD: i64 = 60;
/// Samples of the health of a replica; with more of them, every second one goes.
const SAMPLES: usize = 360;
/// Replicas whose health is kept. Pods that crash and are made anew must not fill the memory.
const REPLICAS: usize = 64;

/// One run of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyKey {
    /// Its revision.
    pub revision: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Of the agent's process.
    pub instance: String,
}

/// What is known of a proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenProxy {
    /// As it was at its newest report.
    pub proxy: Proxy,
    /// When that was; Unix seconds.
    pub last_report: i64,
    /// It was told to end at about this time; Unix seconds. What comes later is not like the traffic of other pods.
    pub drains_since: Option<i64>,
    /// How often Envoy had ended by itself at that moment, in Unix seconds, some minutes ago at most.
    pub ended_before: (u64, i64),
    /// What happened, by the start of the slot.
    pub slots: BTreeMap<i64, Traffic>,
}

/// What became of the requests for certificates of a process, or of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Certificates that were signed.
    pub signed: u64,
    /// Requests that were refused, or failed.
    pub refused: u64,
}

/// Everything that was told since an upgrade began.
#[derive(Debug, Default)]
pub(super) struct Memory {
    upgrade: String,
    since: i64,
    // Raised when there is too much to keep.
    floor: i64,
    proxies: BTreeMap<ProxyKey, Arc<SeenProxy>>,
    replicas: HashMap<String, Told>,
}

/// What a replica has told.
#[derive(Debug, Default)]
struct Told {
    revision: String,
    pod: String,
    // Up to where each proxy's slots are here, and when it reported last.
    known: HashMap<ProxyKey, Known>,
    certificates: Certificates,
    samples: Arc<Vec<ReplicaHealth>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    until: i64,
    last_report: i64,
}

impl Memory {
    /// Forgets everything if another upgrade has begun, and what was before `since`.
    pub fn begin(&mut self, upgrade: &str, since: i64, now: i64) {
        if self.upgrade != upgrade {
            *self = Self { upgrade: upgrade.to_owned(), ..Self::default() };
        }
        let since = since.max(now - LONGEST).max(self.floor);
        if since < self.since {
            // Back to what was forgotten here; the replicas still have it.
            for told in self.replicas.values_mut() {
                told.known.clear();
            }
        }
        self.since = since;
        self.trim();
    }

    /// Whether this is (still) about that upgrade.
    pub fn is_about(&self, upgrade: &str) -> bool {
        self.upgrade == upgrade
    }

    /// From when on slots are kept.
    pub fn since(&self) -> i64 {
        self.since
    }

    /// From when on to ask this replica.
    pub fn ask_since(&self, uid: &str) -> i64 {
        let known = || self.replicas.get(uid).into_iter().flat_map(|told| told.known.values());
        let newest = known().map(|k| k.last_report).max().unwrap_or_default();
        let talking = known().filter(|k| k.last_report + SILENT >= newest);
        let until = talking.map(|k| k.until).min().unwrap_or(self.since);
        (until - OVERLAP).max(self.since)
    }

    /// Adds what a replica told of the time from `since` on.
    pub fn learn(&mut self, replica: &Replica, since: i64, response: ObserveResponse, now: i64) {
        let mut told = self.replicas.remove(&replica.uid).unwrap_or_else(|| Told {
            revision: replica.revision.clone(),
            pod: replica.pod.clone(),
            ..Told::default()
        });
        if let Some(health) = response.health {
            told.certificates =
                Certificates { signed: health.certificates_signed, refused: health.certificates_refused };
            told.sample(sample(&replica.pod, now, &health));
        }
        let mut known = HashMap::new();
        for observed in response.proxies {
            let Some(key) = key(&observed, &replica.revision) else { continue };
            let before = told.known.get(&key).copied();
            known.insert(key.clone(), told.known(before, since, self.since, &observed));
            self.merge(key, observed, now);
        }
        told.known = known;
        self.replicas.insert(replica.uid.clone(), told);
        self.bound();
    }

    /// What is known of the proxies of a revision.
    pub fn proxies(&self, revision: &str) -> BTreeMap<ProxyKey, Arc<SeenProxy>> {
        let of_revision = self.proxies.iter().filter(|(key, _)| key.revision == revision);
        of_revision.map(|(key, seen)| (key.clone(), seen.clone())).collect()
    }

    /// How the replicas of a revision were over time, by pod and UID.
    pub fn health(&self, revision: &str) -> BTreeMap<(String, String), Arc<Vec<ReplicaHealth>>> {
        let of_revision = self.replicas.iter().filter(|(_, told)| told.revision == revision);
        of_revision.map(|(uid, told)| ((told.pod.clone(), uid.clone()), told.samples.clone())).collect()
    }

    /// What became of requests for certificates at the replicas of a revision, those that are gone included.
    pub fn certificates(&self, revision: &str) -> Certificates {
        let of_revision = self.replicas.values().filter(|told| told.revision == revision);
        of_revision.fold(Certificates::default(), |all, told| Certificates {
            signed: all.signed + told.certificates.signed,
            refused: all.refused + told.certificates.refused,
        })
    }

    fn merge(&mut self, key: ProxyKey, observed: ObservedProxy, now: i64) {
        let ObservedProxy { proxy: Some(proxy), last_report, slots } = observed else { return };
        let seen = self.proxies.entry(key).or_insert_with(|| {
            // Already draining when it was seen for the first time: since when, nobody knows.
            let drains_since = proxy.draining.then_some(i64::MIN);
            let (proxy, slots) = (proxy.clone(), BTreeMap::new());
            let ended_before = (proxy.restarts, last_report);
            Arc::new(SeenProxy { ended_before, proxy, last_report, drains_since, slots })
        });
        let seen = Arc::make_mut(seen);
        if last_report >= seen.last_report {
            if last_report >= seen.ended_before.1 + LATELY {
                seen.ended_before = (seen.proxy.restarts, seen.last_report);
            }
            if proxy.draining && seen.drains_since.is_none() {
                // Between the last two reports.
                seen.drains_since = Some(seen.last_report);
            }
            (seen.proxy, seen.last_report) = (proxy, last_report);
        }
        let window = self.since..now + AHEAD;
        for slot in slots.iter().filter(|s| s.start % SLOT_SECONDS == 0 && window.contains(&s.start)) {
            let told = Traffic::new(slot, last_report);
            // A replica that was left in the middle of a slot knows a part of it.
            let kept = seen.slots.entry(slot.start).or_insert_with(|| told.clone());
            if (told.requests(), told.reported) >= (kept.requests(), kept.reported) {
                *kept = told;
            }
        }
    }

    fn trim(&mut self) {
        let since = self.since;
        self.proxies.retain(|_, seen| {
            if seen.slots.first_key_value().is_some_and(|(start, _)| *start < since) {
                let seen = Arc::make_mut(seen);
                seen.slots = seen.slots.split_off(&since);
            }
            !seen.slots.is_empty() || seen.last_report + SILENT >= since
        });
    }

    fn bound(&mut self) {
        while self.proxies.values().map(|seen| seen.slots.len()).sum::<usize>() > SLOTS {
            self.floor = self.since + SILENT;
            self.since = self.floor;
            self.trim();
        }
        while self.replicas.len() > REPLICAS {
            let asked = |told: &Told| told.samples.last().map_or(0, |s| s.at);
            let oldest = self.replicas.iter().min_by_key(|(_, told)| asked(told)).map(|(uid, _)| uid.clone());
            let Some(oldest) = oldest else { return };
            self.replicas.remove(&oldest);
        }
    }
}

impl Told {
    fn sample(&mut self, sample: ReplicaHealth) {
        let samples = Arc::make_mut(&mut self.samples);
        samples.push(sample);
        if samples.len() > SAMPLES {
            // The first and the newest stay.
            let mut is_kept = false;
            samples.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    // A proxy that was silent, or is new here, may have more to tell than was asked for: what is known of it stays where
    // it was, so that the next question begins there.
    fn known(&self, before: Option<Known>, asked: i64, kept: i64, observed: &ObservedProxy) -> Known {
        let last_report = observed.last_report;
        let until = before.map_or(kept, |known| known.until);
        if asked > until {
            return Known { until, last_report };
        }
        let newest = observed.slots.iter().map(|slot| slot.start).max().unwrap_or(until);
        // Its clock may be behind, so a slot says more than the report; but one without traffic may have no slots.
        Known { until: newest.min(last_report).max(last_report - SILENT).max(until), last_report }
    }
}

fn sample(pod: &str, at: i64, health: &Health) -> ReplicaHealth {
    ReplicaHealth {
        pod: pod.to_owned(),
        at,
        started: health.started,
        resident_bytes: health.resident_bytes,
        configurations_refused: health.configurations_refused,
        streams_opened: health.streams_opened,
        open_streams: health.streams.len() as u64,
        translations: health.translations,
        translation_seconds: health.translation_seconds,
    }
}

// A proxy of another revision is not this control plane's to tell of.
fn key(observed: &ObservedProxy, revision: &str) -> Option<ProxyKey> {
    let proxy = observed.proxy.as_ref().filter(|proxy| proxy.revision == revision)?;
    Some(ProxyKey {
        revision: proxy.revision.clone(),
        namespace: proxy.pod_namespace.clone(),
        pod: proxy.pod_name.clone(),
        instance: proxy.instance.clone(),
    })
}
