//! One write of one object's status.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::{Status, TypeMeta};
use meshwright_core::ObjectKey;
use meshwright_core::status::Statuses;
use meshwright_index::{Live, LiveObjects};
use meshwright_k8s::lease::Leadership;

use super::events::Events;
use super::kinds::Kind;

const ATTEMPTS: usize = 5;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// What a write needs.
#[derive(Clone)]
pub struct Context {
    pub client: kube::Client,
    pub leadership: Leadership,
    pub live: LiveObjects,
    pub events: Events,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It said already what it should.
    Unchanged,
    /// It does now.
    Done,
    /// The object is gone, or we may not write any more.
    NotOurs,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("request failed")]
    Api(#[from] kube::Error),
    #[error("no answer within the life of the lease")]
    Timeout,
    #[error("somebody else kept changing the object")]
    Contested,
    #[error("answer or status is not of the expected shape")]
    Shape(#[from] serde_json::Error),
}

/// Makes the object say what it should, unless it does.
pub async fn write<K: Kind>(
    context: &Context,
    key: &ObjectKey,
    statuses: &Statuses,
) -> Result<Written, Error> {
    let resource = ApiResource::erase::<K::Object>(&());
    let api: Api<DynamicObject> = if key.namespace.is_empty() {
        Api::all_with(context.client.clone(), &resource)
    } else {
        Api::namespaced_with(context.client.clone(), &key.namespace, &resource)
    };
    for attempt in 0..ATTEMPTS {
        let Some(live) = K::live(&context.live, key) else { return Ok(Written::NotOurs) };
        let Some(wanted) = K::wanted(statuses, key, live.status.as_ref(), now()) else {
            return Ok(Written::Unchanged);
        };
        if live.status.as_ref() == Some(&wanted) {
            return Ok(Written::Unchanged);
        }
        let object = body(&resource, key, &live, &wanted)?;
        let Some(left) = context.leadership.remaining() else { return Ok(Written::NotOurs) };
        let answer = tokio::time::timeout(
            left.min(REQUEST_TIMEOUT),
            api.replace_status(&key.name, &PostParams::default(), &object),
        )
        .await
        .map_err(|_| Error::Timeout)?;
        match answer {
            Ok(object) => {
                K::record(&context.live, key, seen::<K>(object)?);
                context.events.decided::<K>(key, &live.uid, live.status.as_ref(), &wanted);
                return Ok(Written::Done);
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                if is_about(&status, &key.name) {
                    K::forget(&context.live, key, &live.uid);
                }
                return Ok(Written::NotOurs);
            }
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                tracing::debug!(object = %key, attempt, "status was changed by somebody else, reading it again");
                let fresh = tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(&key.name)).await;
                let Some(fresh) = fresh.map_err(|_| Error::Timeout)?? else { return Ok(Written::NotOurs) };
                let fresh = seen::<K>(fresh)?;
                if fresh.uid != live.uid {
                    // Another object has the name now; the watch tells, and then it is its turn.
                    return Ok(Written::NotOurs);
                }
                K::record(&context.live, key, fresh);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Contested)
}

/// Whether this object is not found. Without a name in the answer it is the path that nobody serves: a CRD that is being installed.
fn is_about(status: &Status, name: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.name == name)
}

/// The status strategy of the API server takes nothing but the status from this, and refuses it unless uid and resourceVersion still fit.
fn body<S: serde::Serialize>(
    resource: &ApiResource,
    key: &ObjectKey,
    live: &Live<S>,
    status: &S,
) -> Result<DynamicObject, serde_json::Error> {
    let mut object = DynamicObject::new(&key.name, resource)
        .data(serde_json::json!({ "status": serde_json::to_value(status)? }));
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    object.metadata.namespace = (!key.namespace.is_empty()).then(|| key.namespace.clone());
    object.metadata.resource_version = Some(live.resource_version.clone());
    object.metadata.uid = Some(live.uid.clone()).filter(|uid| !uid.is_empty());
    Ok(object)
}

fn seen<K: Kind>(mut object: DynamicObject) -> Result<Live<K::Status>, serde_json::Error> {
    let status =
        object.data.get_mut("status").map(serde_json::Value::take).filter(|status| !status.is_null());
    Ok(Live {
        uid: object.metadata.uid.unwrap_or_default(),
        resource_version: object.metadata.resource_version.unwrap_or_default(),
        status: status.map(serde_json::from_value).transpose()?,
    })
}

/// Conditions have whole seconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
