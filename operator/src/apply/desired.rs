//! One object as we want it, whatever its kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, api::DynamicObject, core::ApiResource};
use meshwright_api::labels;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Annotation with the hash of what was applied last. It tells "we want something new" from "somebody changed it",
/// also after a restart, and makes fields that we no longer set disappear.
pub const APPLIED: &str = "meshwright.io/applied";
/// Labels by which we know an object that has no owner as ours.
const IDENTITY: [&str; 3] = [labels::MANAGED_BY, labels::MESH_NAME, labels::MESH_NAMESPACE];

/// One object as we want it.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// All that we set, with the hash in its annotations.
    pub body: Value,
    /// The hash in the annotations.
    pub hash: String,
    /// For workloads: the fewest replicas. The number itself belongs to the autoscaler.
    pub floor: Option<i32>,
}

impl Desired {
    /// From a typed object.
    pub fn new<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<Self, serde_json::Error> {
        Self::from_value(ApiResource::erase::<K>(&()), object.meta(), serde_json::to_value(object)?)
    }

    /// From an object of a kind that is not known here.
    pub fn from_value(
        resource: ApiResource,
        meta: &ObjectMeta,
        mut body: Value,
    ) -> Result<Self, serde_json::Error> {
        // A status is never ours to apply, and generated types write an empty one.
        if let Some(map) = body.as_object_mut() {
            map.remove("status");
        }
        let digest = Sha256::digest(serde_json::to_vec(&body)?);
        let hash: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
        if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = meta.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
            if let Some(map) = annotations.as_object_mut() {
                map.insert(APPLIED.to_owned(), Value::String(hash.clone()));
            }
        }
        Ok(Self {
            resource,
            namespace: meta.namespace.clone(),
            name: meta.name.clone().unwrap_or_default(),
            body,
            hash,
            floor: None,
        })
    }

    /// Names the fewest replicas of a workload.
    pub fn with_floor(self, floor: i32) -> Self {
        Self { floor: Some(floor), ..self }
    }

    /// Kind, namespace and name for messages.
    pub fn describe(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.resource.kind, self.name),
            None => format!("{} {}", self.resource.kind, self.name),
        }
    }

    /// Where the object is read and written.
    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// Whether a live object of that name is ours to change.
    pub fn ownership(&self, live: &DynamicObject) -> Ownership {
        let wanted = self.body.pointer("/metadata/ownerReferences/0/uid").and_then(Value::as_str);
        let actual = live.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let labelled = IDENTITY.iter().all(|label| {
            let wanted =
                self.body.pointer("/metadata/labels").and_then(|l| l.get(label)).and_then(Value::as_str);
            let actual = live.metadata.labels.as_ref().and_then(|l| l.get(*label)).map(String::as_str);
            wanted.is_none() || wanted == actual
        });
        match (wanted, actual) {
            (Some(wanted), Some(actual)) if actual.uid == wanted => Ownership::Ours,
            // Its owner was deleted and made again under the same name; the garbage collector is on its way.
            (Some(_), Some(actual)) if labelled && actual.kind == self.owner_kind() => Ownership::Leaving,
            (_, Some(actual)) => Ownership::Foreign(format!("{} {}", actual.kind, actual.name)),
            (None, None) if labelled => Ownership::Ours,
            (_, None) => Ownership::Foreign(manager_of(live)),
        }
    }

    fn owner_kind(&self) -> &str {
        self.body.pointer("/metadata/ownerReferences/0/kind").and_then(Value::as_str).unwrap_or_default()
    }
}

fn manager_of(live: &DynamicObject) -> String {
    let entries = live.metadata.managed_fields.iter().flatten();
    let name = entries.filter_map(|m| m.manager.clone()).next();
    name.map_or_else(|| "somebody else".to_owned(), |manager| format!("field manager {manager}"))
}

/// Whose a live object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Ours.
    Ours,
    /// Ours from an earlier life, about to be collected.
    Leaving,
    /// Somebody else's.
    Foreign(String),
}
