//! What every reconcile is given.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use meshwright_k8s::lease::Leadership;
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;

use crate::{
    apply::Contests,
    catalogue::Catalogue,
    inspection::{Inspector, probe::Prober},
    metrics::Metrics,
};

/// Name under which the operator reports events.
const REPORTER: &str = "meshwright.io/operator";

/// A warning that is still true is not told again before this.
const REMIND: Duration = Duration::from_secs(600);

/// Longest time for one of the last writes.
const LAST: Duration = Duration::from_secs(10);

/// Longest time to write an event.
const EVENT: Duration = Duration::from_secs(10);

/// What was warned of lately, by object and reason. What is looked at every few seconds must not write an event each time.
#[derive(Debug, Default)]
struct Told(HashMap<(String, String), (String, Timestamp)>);

impl Told {
    fn is_news(&mut self, object: &str, reason: &str, note: &str, now: Timestamp) -> bool {
        let age = |then: Timestamp| Duration::try_from(now.duration_since(then)).unwrap_or_default();
        self.0.retain(|_, (_, then)| age(*then) < REMIND);
        let key = (object.to_owned(), reason.to_owned());
        if self.0.get(&key).is_some_and(|(before, _)| before == note) {
            return false;
        }
        self.0.insert(key, (note.to_owned(), now));
        true
    }
}

/// Only the holder of the Lease may write.
#[derive(Debug, thiserror::Error)]
#[error("this replica does not hold the lease")]
struct NotLeader;

/// What is let go of at the end stays so.
#[derive(Debug, thiserror::Error)]
#[error("the operator itself is being removed: nothing new is begun")]
struct Leaving;

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the operator.
    pub namespace: String,
    /// ServiceAccount of the operator.
    pub service_account: String,
    /// Deployment of the operator.
    pub deployment: String,
    /// Releases that can be installed.
    pub catalogue: Catalogue,
    /// Pull secrets of new revisions.
    pub pull_secrets: Vec<String>,
    /// Where the Gateway API's CRDs are.
    pub gateway_api_dir: PathBuf,
}

/// Shared by all controllers.
pub struct Context {
    /// Talks to the API server.
    pub client: Client,
    /// Settings of the process.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// Which objects somebody keeps changing back.
    pub contests: Contests,
    /// Whether the Gateway API's kinds are served; the Gateway controllers start on it.
    pub gateway_api_served: watch::Sender<bool>,
    /// Asks control planes.
    pub inspector: Inspector,
    /// Sends requests through the proxies that are measured.
    pub prober: Prober,
    /// Cancelled when the operator itself is being removed: nothing new is begun.
    pub leaving: CancellationToken,
    leadership: Leadership,
    recorder: Recorder,
    failures: Mutex<HashMap<String, u32>>,
    told: Mutex<Told>,
}

impl Context {
    /// A context for this process.
    pub fn new(
        client: Client,
        settings: Settings,
        metrics: Metrics,
        leadership: Leadership,
        instance: &str,
    ) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance: Some(instance.to_owned()) };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            leadership,
            settings,
            metrics,
            contests: Contests::default(),
            inspector: Inspector::default(),
            prober: Prober::default(),
            gateway_api_served: watch::Sender::new(false),
            leaving: CancellationToken::new(),
            failures: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The time, from one place.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Makes a write, if this replica leads, and gives up before another replica can believe that it does. When the
    /// operator itself is being removed nobody comes after us.
    pub async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        let last = self.leaving.is_cancelled().then_some(LAST);
        let Some(left) = self.leadership.remaining().or(last) else {
            return Err(kube::Error::Service(Box::new(NotLeader)));
        };
        match tokio::time::timeout(left, request).await {
            Ok(result) => result,
            Err(late) => Err(kube::Error::Service(Box::new(late))),
        }
    }

    /// As [`Self::write`], of what holds on to something. A reconcile that was under way when the operator began to let
    /// go read the object before or after that: before, its write conflicts; after, it is refused here.
    pub async fn begin<T>(&self, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        if self.leaving.is_cancelled() {
            return Err(kube::Error::Service(Box::new(Leaving)));
        }
        self.write(request).await
    }

    /// Tells a person about a decision. An event that cannot be written is only logged: it must not fail the work.
    pub async fn event(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        // The API refuses notes past 1 kB.
        let note: String = note.chars().take(1000).collect();
        let object = about.uid.clone().or_else(|| about.name.clone()).unwrap_or_default();
        if matches!(type_, EventType::Warning) {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if !told.is_news(&object, reason, &note, self.now()) {
                return;
            }
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(EVENT, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "event could not be written"),
            Err(_) => tracing::warn!(reason, "event could not be written: the API server does not answer"),
        }
    }

    /// Counts a failure of this object; returns how many there were in a row.
    pub fn failed(&self, object: &str) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Failures of this object in a row until now.
    pub fn failures(&self, object: &str) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(object).copied().unwrap_or_default()
    }

    /// Forgets the failures of this object.
    pub fn succeeded(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_repeated_when_it_changes_or_after_a_while() {
        let mut told = Told::default();
        let at = |s: i64| Timestamp::UNIX_EPOCH + k8s_openapi::jiff::SignedDuration::from_secs(s);
        assert!(told.is_news("uid", "NotOurs", "a", at(0)));
        assert!(!told.is_news("uid", "NotOurs", "a", at(15)));
        assert!(told.is_news("uid", "NotOurs", "b", at(30)));
        assert!(told.is_news("other", "NotOurs", "b", at(30)));
        assert!(told.is_news("uid", "NotOurs", "b", at(631)));
    }
}
