//! What every controller has around its reconcile: objects that do not decode are reported and skipped, errors are
//! counted, logged and turned into a requeue by their class.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::DeserializeGuard,
    runtime::{Controller, controller::Action, events::EventType, reflector::ObjectRef},
};
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::{
    context::Context,
    error::{self, Class},
    metrics::ReconcileLabels,
};

/// No reconcile takes longer. Writes have their own limit; a read whose answer is lost would otherwise keep its object
/// from ever being reconciled again, while this replica goes on to lead.
const LONGEST: Duration = Duration::from_secs(120);

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure<E: Classified> {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] E),
    /// It was still waiting for an answer.
    #[error("given up after {LONGEST:?}: the API server does not answer")]
    Late,
}

impl<E: Classified> Classified for Failure<E> {
    fn class(&self) -> Class {
        match self {
            Self::Failed(error) => error.class(),
            Self::Late => Class::Transient,
        }
    }
}

/// An error that says what to do about it.
pub trait Classified: std::error::Error + Send + Sync + 'static {
    /// What to do about it.
    fn class(&self) -> Class;
}

/// The objects of a list that decode; the others are logged. One malformed object must not hide all the others.
pub async fn list<K>(api: Api<DeserializeGuard<K>>, params: &ListParams) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    Ok(list_known(api, params).await?.0)
}

/// The same, and whether these were all: for who removes what is not in the list.
pub async fn list_known<K>(api: Api<DeserializeGuard<K>>, params: &ListParams) -> kube::Result<(Vec<K>, bool)>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let list = api.list(params).await?;
    let total = list.items.len();
    let decoded = list.items.into_iter().filter_map(|guard| match guard.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let kind = K::kind(&());
            tracing::warn!(%kind, name = ?invalid.metadata.name, error = %invalid.error, "object skipped");
            None
        }
    });
    let decoded: Vec<K> = decoded.collect();
    let all = decoded.len() == total;
    Ok((decoded, all))
}

/// Runs a controller until its shutdown trigger.
pub async fn run<K, E, F, Fut>(
    name: &'static str,
    controller: Controller<DeserializeGuard<K>>,
    reconcile: F,
    ctx: Arc<Context>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    E: Classified,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
{
    let work = move |guard: Arc<DeserializeGuard<K>>, ctx: Arc<Context>| {
        let span = tracing::info_span!("reconcile", controller = name, object = %describe(&*guard));
        one(name, guard, ctx, reconcile.clone()).instrument(span)
    };
    let policy = move |guard: Arc<DeserializeGuard<K>>, error: &Failure<E>, ctx: Arc<Context>| {
        let failures = ctx.failed(&key(name, &*guard));
        error::requeue(error.class(), failures)
    };
    controller
        .run(work, policy, ctx)
        .for_each(|result| async move {
            // Reconcile errors are logged where they happen; what is left comes from watches.
            if let Err(error) = result
                && !matches!(error, kube::runtime::controller::Error::ReconcilerFailed(..))
            {
                tracing::debug!(controller = name, %error, "watch");
            }
        })
        .await;
}

async fn one<K, E, F, Fut>(
    name: &'static str,
    guard: Arc<DeserializeGuard<K>>,
    ctx: Arc<Context>,
    reconcile: F,
) -> Result<Action, Failure<E>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    E: Classified,
    F: Fn(Arc<K>, Arc<Context>) -> Fut,
    Fut: Future<Output = Result<Action, E>>,
{
    let started = Instant::now();
    let object = match &guard.0 {
        Ok(object) => Arc::new(object.clone()),
        Err(invalid) => {
            tracing::warn!(error = %invalid.error, "object skipped: it does not decode");
            let note = format!("skipped until it is corrected: {}", invalid.error);
            ctx.event(&guard.object_ref(&()), EventType::Warning, "Undecodable", "Reconcile", note).await;
            return Ok(Action::await_change());
        }
    };
    let result = match tokio::time::timeout(LONGEST, reconcile(object, ctx.clone())).await {
        Ok(result) => result.map_err(Failure::Failed),
        Err(_) => Err(Failure::Late),
    };
    ctx.metrics.duration.observe(started.elapsed().as_secs_f64());
    let outcome = match &result {
        Ok(_) => {
            ctx.succeeded(&key(name, &*guard));
            "ok"
        }
        Err(error) => {
            log(error);
            error.class().label()
        }
    };
    ctx.metrics.reconciles.get_or_create(&ReconcileLabels { controller: name, outcome }).inc();
    result
}

fn log<E: Classified>(error: &E) {
    match error.class() {
        Class::Conflict | Class::Waiting(_) => tracing::debug!(error = %error::chain(error), "trying again"),
        _ => tracing::warn!(error = %error::chain(error), "reconcile failed"),
    }
}

fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

/// Under which name the failures of an object are counted.
pub fn key<K: Resource<DynamicType = ()>>(controller: &str, object: &K) -> String {
    format!("{controller} {}", describe(object))
}

/// Every object of a store, for events that concern them all.
pub fn all<K>(
    store: &kube::runtime::reflector::Store<DeserializeGuard<K>>,
) -> Vec<ObjectRef<DeserializeGuard<K>>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
    DeserializeGuard<K>: Resource<DynamicType = ()> + Clone,
    K::DynamicType: Eq + Hash + Clone,
{
    store.state().iter().map(|o| ObjectRef::from_obj(&**o)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{apply::tests::refusing, gateway};

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_ends_the_reconcile_and_it_is_tried_again() {
        let mesh = serde_json::json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane",
            "metadata": {"name": "mesh", "namespace": "prod"}, "spec": {}});
        let guard: DeserializeGuard<meshwright_api::MeshControlPlane> = serde_json::from_value(mesh).unwrap();
        let never = |_, _| std::future::pending::<Result<Action, gateway::Error>>();
        let ended = one("test", Arc::new(guard), Arc::new(refusing().0), never).await;
        assert_eq!(ended.unwrap_err().class(), Class::Transient);
    }
}
