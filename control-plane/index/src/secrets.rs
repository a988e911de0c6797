//! Watches of single Secrets: one for each that a permitted reference names, and none besides.
//!
//! `get` and `watch` on the one name are all that is asked of the API server; a list of a namespace's Secrets is neither needed nor wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use meshwright_core::ObjectKey;
use meshwright_core::model::SecretState;
use meshwright_runtime::CancellationToken;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::convert;
use crate::event::Event;

/// The operator's RoleBinding follows the reference; it is worth asking again soon, and less so later.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(10);
/// A refusal is nothing to speak of while that binding may be on its way.
const BINDING: Duration = Duration::from_secs(3);
/// For the answer to a request; a dead connection gives none.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the API server is asked to keep a watch open.
const WATCH: u32 = 290;
/// A watch that is silent for longer is not alive any more.
const SILENCE: Duration = Duration::from_secs(300);
/// A watch that ends at once is not begun again at once.
const PAUSE: Duration = Duration::from_secs(1);

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

/// Why a watch ended before its time.
enum Failure {
    Api(kube::Error),
    Silence(&'static str),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => error.fmt(f),
            Self::Silence(what) => write!(f, "no answer from the API server: {what}"),
        }
    }
}

impl SecretWatch {
    async fn run(self) {
        let mut retry = FIRST_RETRY;
        // Since when every request was refused.
        let mut refused: Option<Instant> = None;
        loop {
            let start = Instant::now();
            let ended = self.once().await;
            if start.elapsed() > LAST_RETRY {
                (retry, refused) = (FIRST_RETRY, None);
            }
            let Err(failure) = ended else {
                // The API server ends watches now and then.
                (retry, refused) = (FIRST_RETRY, None);
                sleep(PAUSE.saturating_sub(start.elapsed())).await;
                continue;
            };
            tracing::warn!(secret = %self.key, error = %failure, "could not watch secret, trying again");
            match failure {
                Failure::Api(kube::Error::Api(status)) if status.is_forbidden() || status.code == 401 => {
                    if refused.get_or_insert(start).elapsed() >= BINDING {
                        self.send(SecretState::Unreadable(status.message.clone())).await;
                    }
                }
                _ => refused = None,
            }
            sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    async fn once(&self) -> Result<(), Failure> {
        let found = timeout(ANSWER, self.api.get_opt(&self.key.name)).await;
        let found = found.map_err(|_| Failure::Silence("get"))??;
        self.send(found.map_or(SecretState::Missing, convert::secret)).await;
        let only = WatchParams::default().fields(&format!("metadata.name={}", self.key.name)).timeout(WATCH);
        // Without a version the watch begins with the present object, so nothing falls between the two requests.
        let changes = timeout(ANSWER, self.api.watch(&only, "")).await;
        let mut changes = changes.map_err(|_| Failure::Silence("start of a watch"))??.boxed();
        loop {
            let change =
                timeout(SILENCE, changes.try_next()).await.map_err(|_| Failure::Silence("watch"))??;
            match change {
                Some(WatchEvent::Added(secret) | WatchEvent::Modified(secret)) => {
                    self.send(convert::secret(secret)).await
                }
                Some(WatchEvent::Deleted(_)) => self.send(SecretState::Missing).await,
                Some(WatchEvent::Bookmark(_)) => {}
                Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status).into()),
                None => return Ok(()),
            }
        }
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

    /// Refuses the first three requests, then has a Secret that is deleted as soon as it is watched; the watch says nothing more.
    async fn answer(asked: usize, request: Request<Body>) -> Response<Body> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "shop"},
            "type": "Opaque"});
        let watched = request.uri().query().unwrap_or_default().contains("watch=true");
        let (code, body) = match (asked, watched) {
            (0..=2, _) => (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": "no rolebinding"}),
            ),
            (_, false) => (200, secret),
            (4, true) => (200, json!({"type": "DELETED", "object": secret})),
            _ => std::future::pending().await,
        };
        Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_may_not_be_read_yet_is_asked_for_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, std::convert::Infallible>(answer(number, request).await) }
        });
        let (events, mut receiver) = mpsc::channel(8);
        let drain = CancellationToken::new();
        let _stop = drain.clone().drop_guard();
        let mut watches = SecretWatches::new(kube::Client::new(service, "ns"), events, drain);
        let start = Instant::now();
        watches.set(&BTreeSet::from([ObjectKey::new("shop", "cert")]));
        let mut states = Vec::new();
        for _ in 0..4 {
            let Some(Event::Secret(_, state)) = receiver.recv().await else { panic!() };
            states.push((state, start.elapsed().as_secs()));
        }
        assert!(matches!(&states[0], (SecretState::Unreadable(why), 3) if why.contains("no rolebinding")));
        assert!(matches!(states[1], (SecretState::Malformed(_), 7)), "it is there, but of another type");
        assert_eq!(states[2], (SecretState::Missing, 7));
        assert!(
            matches!(states[3], (SecretState::Malformed(_), 8)),
            "a watch that ends at once is not begun at once"
        );
        // The second watch is not answered at all.
        let Some(Event::Secret(..)) = receiver.recv().await else { panic!() };
        assert_eq!(start.elapsed(), Duration::from_secs(8) + ANSWER + FIRST_RETRY);
    }
}
