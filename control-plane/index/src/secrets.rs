//! Watches of single Secrets: one for each that a permitted reference names, and none besides.
//!
//! `get` and `watch` on the one name are all that is asked of the API server; a list of a namespace's Secrets is neither needed nor wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use meshwright_core::ObjectKey;
use meshwright_core::model::SecretState;
use meshwright_runtime::CancellationToken;
use tokio::sync::mpsc;

use crate::convert;
use crate::event::Event;

/// The operator's RoleBinding follows the reference; it is worth asking again soon, and less so later.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(10);

pub(crate) struct SecretWatches {
    client: kube::Client,
    events: mpsc::Sender<Event>,
    drain: CancellationToken,
    running: BTreeMap<ObjectKey, CancellationToken>,
}

impl SecretWatches {
    pub(crate) fn new(client: kube::Client, events: mpsc::Sender<Event>, drain: CancellationToken) -> Self {
        Self { client, events, drain, running: BTreeMap::new() }
    }

    /// Watches these Secrets and no others.
    pub(crate) fn set(&mut self, wanted: &BTreeSet<ObjectKey>) {
        self.running.retain(|key, stop| {
            let keep = wanted.contains(key);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for key in wanted {
            if !self.running.contains_key(key) {
                let stop = self.drain.child_token();
                let watch = SecretWatch {
                    api: Api::namespaced(self.client.clone(), &key.namespace),
                    key: key.clone(),
                    events: self.events.clone(),
                };
                tokio::spawn(stop.clone().run_until_cancelled_owned(watch.run()));
                self.running.insert(key.clone(), stop);
            }
        }
    }
}

struct SecretWatch {
    api: Api<Secret>,
    key: ObjectKey,
    events: mpsc::Sender<Event>,
}

impl SecretWatch {
    async fn run(self) {
        let mut retry = FIRST_RETRY;
        loop {
            match self.once().await {
                // The API server ends watches now and then.
                Ok(()) => retry = FIRST_RETRY,
                Err(error) => {
                    tracing::warn!(secret = %self.key, %error, "could not watch secret, trying again");
                    if let kube::Error::Api(status) = &error
                        && (status.is_forbidden() || status.code == 401)
                    {
                        self.send(SecretState::Unreadable(status.message.clone())).await;
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn once(&self) -> kube::Result<()> {
        let state = self.api.get_opt(&self.key.name).await?.map_or(SecretState::Missing, convert::secret);
        self.send(state).await;
        let only = WatchParams::default().fields(&format!("metadata.name={}", self.key.name)).timeout(290);
        // Without a version the watch begins with the present object, so nothing falls between the two requests.
        let mut changes = self.api.watch(&only, "").await?.boxed();
        while let Some(change) = changes.try_next().await? {
            match change {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                    self.send(convert::secret(secret)).await
                }
                WatchEvent::Deleted(_) => self.send(SecretState::Missing).await,
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(())
    }

    async fn send(&self, state: SecretState) {
        // Fails only when the index has ended.
        let _ = self.events.send(Event::Secret(self.key.clone(), state)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Refuses two requests, then has a Secret that is deleted as soon as it is watched.
    async fn answer(asked: usize, request: Request<Body>) -> Response<Body> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "shop"},
            "type": "Opaque"});
        let watched = request.uri().query().unwrap_or_default().contains("watch=true");
        let (code, body) = match (asked, watched) {
            (0 | 1, _) => (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "no rolebinding"}),
            ),
            (_, false) => (200, secret),
            (3, true) => (200, json!({"type": "DELETED", "object": secret})),
            _ => std::future::pending().await,
        };
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_may_not_be_read_yet_is_asked_for_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |request: Request<Body>| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, std::convert::Infallible>(answer(number, request).await) }
        });
        let (events, mut receiver) = mpsc::channel(8);
        let drain = CancellationToken::new();
        let _stop = drain.clone().drop_guard();
        let mut watches = SecretWatches::new(kube::Client::new(service, "ns"), events, drain);
        let start = tokio::time::Instant::now();
        watches.set(&BTreeSet::from([ObjectKey::new("shop", "cert")]));
        let mut states = Vec::new();
        for _ in 0..4 {
            let Some(Event::Secret(_, state)) = receiver.recv().await else { panic!() };
            states.push(state);
        }
        assert!(matches!(&states[0], SecretState::Unreadable(why) if why.contains("no rolebinding")));
        assert!(matches!(states[1], SecretState::Unreadable(_)));
        assert!(matches!(states[2], SecretState::Malformed(_)), "it is there, but of another type");
        assert_eq!(states[3], SecretState::Missing);
        assert_eq!(start.elapsed(), FIRST_RETRY + FIRST_RETRY * 2);
    }
}
