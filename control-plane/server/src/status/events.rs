//! Events on the objects that a decision is about.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};
use meshwright_api::gateway as api;
use meshwright_core::ObjectKey;
use meshwright_core::conditions::reason;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_index::LiveObjects;

use super::kinds::Kind;

/// An Event's note may have 1,024 bytes.
const NOTE_MAX: usize = 900;

/// Publishes Events; never waits, and repeats are counted instead of repeated.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    live: LiveObjects,
}

impl Events {
    /// With the process's one recorder.
    pub fn new(recorder: Recorder, live: LiveObjects) -> Self {
        Self { recorder, live }
    }

    /// Says which conditions of a status that was just written came to another result.
    pub fn decided<K: Kind>(
        &self,
        key: &ObjectKey,
        uid: &str,
        before: Option<&K::Status>,
        after: &K::Status,
    ) {
        let before: Vec<&Condition> = before.map(K::conditions).unwrap_or_default();
        for condition in K::conditions(after) {
            let was = before.iter().find(|known| known.type_ == condition.type_);
            let changed =
                was.is_none_or(|was| was.status != condition.status || was.reason != condition.reason);
            // What never was otherwise and is well needs no mention.
            let worth = condition.status == "False" || was.is_some_and(|was| was.status == "False");
            if changed && worth {
                // Everything is pending at first; that alone is no reason to warn anybody.
                let ok = condition.status != "False" || condition.reason == reason::PENDING;
                let note = if condition.message.is_empty() {
                    format!("{} is {}", condition.type_, condition.status)
                } else {
                    format!("{} is {}: {}", condition.type_, condition.status, condition.message)
                };
                self.publish(reference::<K::Object>(key, uid), ok, &condition.reason, &note);
            }
        }
    }

    /// A proxy refused what was made from this object.
    pub fn rejected(&self, object: &ObjectId, message: &str) {
        let key = &object.key;
        let reference = match object.kind {
            ObjectKind::Gateway => {
                let uid = self.live.gateway(key).map(|live| live.uid.clone());
                reference::<api::Gateway>(key, &uid.unwrap_or_default())
            }
            ObjectKind::HttpRoute => {
                let uid = self.live.http_route(key).map(|live| live.uid.clone());
                reference::<api::HttpRoute>(key, &uid.unwrap_or_default())
            }
            ObjectKind::GrpcRoute => {
                let uid = self.live.grpc_route(key).map(|live| live.uid.clone());
                reference::<api::GrpcRoute>(key, &uid.unwrap_or_default())
            }
            ObjectKind::TcpRoute => {
                let uid = self.live.tcp_route(key).map(|live| live.uid.clone());
                reference::<api::TcpRoute>(key, &uid.unwrap_or_default())
            }
            // A condition of the policies says it.
            ObjectKind::Pod | ObjectKind::Node => return,
        };
        self.publish(
            reference,
            false,
            "RejectedByProxy",
            &format!("a proxy refused the configuration: {message}"),
        );
    }

    fn publish(&self, reference: ObjectReference, ok: bool, reason: &str, note: &str) {
        let event = Event {
            type_: if ok { EventType::Normal } else { EventType::Warning },
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE_MAX).collect()),
            action: "Program".to_owned(),
            secondary: None,
        };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::debug!(%error, object = ?reference.name, "could not publish event");
            }
        });
    }
}

fn reference<O: Resource<DynamicType = ()>>(key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(O::api_version(&()).into_owned()),
        kind: Some(O::kind(&()).into_owned()),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}
