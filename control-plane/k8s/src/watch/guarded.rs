//! The watch itself.

use std::fmt::Debug;

use futures::{StreamExt, TryStreamExt};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event as KubeEvent, EventType};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use meshwright_runtime::CancellationToken;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::discovery::{Discovery, LOOK_AGAIN, api_served};
use super::{Key, Source, Update, object_key};

/// Watches until `drain` is cancelled or nobody receives any more. `convert` sees each object once and keeps what matters of it; `wrap` makes
/// the receiver's event of an update.
pub async fn run<K, T, E>(
    source: Source<K>,
    convert: impl Fn(K) -> T + Send,
    wrap: impl Fn(Update<T>) -> E + Send,
    events: mpsc::Sender<E>,
    drain: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    T: Send,
    E: Send,
{
    let mut batch = Batch { source, convert, wrap, objects: Vec::new(), undecodable: Vec::new() };
    loop {
        let go_on = tokio::select! {
            () = drain.cancelled() => return,
            go_on = batch.one_watch(&events) => go_on,
        };
        if !go_on {
            return;
        }
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// A watch and the initial list under way.
struct Batch<K, T, C, W> {
    source: Source<K>,
    convert: C,
    wrap: W,
    objects: Vec<(Key, T)>,
    undecodable: Vec<Key>,
}

impl<K, T, E, C, W> Batch<K, T, C, W>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    C: Fn(K) -> T,
    W: Fn(Update<T>) -> E,
{
    /// False when nobody receives any more; true when the API is not served (any more).
    async fn one_watch(&mut self, events: &mpsc::Sender<E>) -> bool {
        let what = self.source.what;
        if is_absent(&self.source).await {
            tracing::info!(what, "the API server does not serve this kind, looking again later");
            let nothing = Update::Replaced { objects: Vec::new(), undecodable: Vec::new() };
            return events.send((self.wrap)(nothing)).await.is_ok();
        }
        let (api, config) = (self.source.api.clone(), self.source.config.clone());
        let mut stream = watch(api, config).default_backoff().boxed();
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return true,
                Err(error) if is_gone(&self.source, &error).await => return true,
                Err(error) => {
                    tracing::warn!(what, %error, "watch failed, trying again");
                    continue;
                }
            };
            if let Some(update) = self.on_event(event)
                && events.send((self.wrap)(update)).await.is_err()
            {
                return false;
            }
        }
    }

    fn on_event(&mut self, event: Event<DeserializeGuard<K>>) -> Option<Update<T>> {
        match event {
            Event::Init => {
                self.objects.clear();
                self.undecodable.clear();
                None
            }
            Event::InitApply(object) => {
                match self.decoded(object) {
                    Ok(object) => self.objects.push(object),
                    Err(key) => self.undecodable.push(key),
                }
                None
            }
            Event::InitDone => Some(Update::Replaced {
                objects: std::mem::take(&mut self.objects),
                undecodable: std::mem::take(&mut self.undecodable),
            }),
            Event::Apply(object) => {
                let (key, object) = self.decoded(object).ok()?;
                Some(Update::Applied(key, object))
            }
            Event::Delete(object) => Some(Update::Deleted(object_key(&object))),
        }
    }

    fn decoded(&self, object: DeserializeGuard<K>) -> Result<(Key, T), Key> {
        let key = object_key(&object);
        match object.0 {
            Ok(object) => Ok((key, (self.convert)(object))),
            Err(invalid) => {
                tracing::warn!(
                    what = self.source.what,
                    namespace = key.0,
                    name = key.1,
                    error = invalid.error,
                    "object does not decode, keeping what was known of it"
                );
                self.report(&key, &invalid);
                Err(key)
            }
        }
    }

    /// Tells the object's owner, without holding up the watch.
    fn report(&self, (namespace, name): &Key, invalid: &kube::core::error_boundary::InvalidObject) {
        let Some(recorder) = self.source.recorder.clone() else { return };
        let reference = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: Some(name.clone()),
            namespace: (!namespace.is_empty()).then(|| namespace.clone()),
            uid: invalid.metadata.uid.clone(),
            ..Default::default()
        };
        let note: String = invalid.error.chars().take(900).collect();
        let event = KubeEvent {
            type_: EventType::Warning,
            reason: "Undecodable".to_owned(),
            note: Some(format!("ignored, because it does not decode: {note}")),
            action: "Watch".to_owned(),
            secondary: None,
        };
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::debug!(%error, "could not publish event");
            }
        });
    }
}

async fn is_absent<K: Resource<DynamicType = ()>>(source: &Source<K>) -> bool {
    if !source.optional {
        return false;
    }
    let (group, version, kind) = (K::group(&()), K::version(&()), K::kind(&()));
    // When it cannot be found out, the watch itself will say what is wrong.
    matches!(api_served(&source.client, &group, &version, &kind).await, Ok(Discovery::Absent))
}

/// Whether a failed watch means that the CustomResourceDefinition was removed.
async fn is_gone<K: Resource<DynamicType = ()>>(source: &Source<K>, error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(cause) | WatchStartFailed(cause) | WatchFailed(cause)) = error else {
        return false;
    };
    matches!(cause, kube::Error::Api(status) if status.is_not_found()) && is_absent(source).await
}
