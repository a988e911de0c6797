//! What differs between the revision that serves and the one that would.

use meshwright_api::{ComponentSettings, MeshControlPlaneSpec, MeshRevisionSpec, Profile, WorkloadSettings};
use serde::Serialize;
use serde_json::Value;

/// A field that differs between two revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub(super) field: String,
    pub(super) from: String,
    pub(super) to: String,
}

/// The revision that the spec would make.
pub fn candidate(from: &MeshRevisionSpec, spec: &MeshControlPlaneSpec, version: &str) -> MeshRevisionSpec {
    let settings = |said: &ComponentSettings| WorkloadSettings {
        resources: spec.profile.resources(said.resources.as_ref()),
        scheduling: said.scheduling.clone().unwrap_or_default(),
        spread_zones: spec.profile == Profile::Production,
    };
    let mut to = MeshRevisionSpec {
        version: version.to_owned(),
        trust_domain: spec.trust_domain.clone(),
        workload_ttl: spec.certificates.workload_ttl.clone(),
        control_plane: settings(&spec.control_plane),
        gateways: settings(&spec.gateways),
        telemetry: if from.node_slot.is_some() { spec.telemetry.clone() } else { from.telemetry.clone() },
        ..from.clone()
    };
    if from.version != version {
        to.images.control_plane = format!("that of release {version}");
        to.images.proxy = to.images.control_plane.clone();
    }
    to
}

/// Field by field.
pub fn differences(from: &MeshRevisionSpec, to: &MeshRevisionSpec) -> Vec<Change> {
    let json = |spec| serde_json::to_value(spec).unwrap_or_default();
    let mut changes = Vec::new();
    compare("", &json(from), &json(to), &mut changes);
    changes
}

fn compare(path: &str, from: &Value, to: &Value, changes: &mut Vec<Change>) {
    if let (Value::Object(old), Value::Object(new)) = (from, to) {
        let gained = new.keys().filter(|key| !old.contains_key(*key));
        for key in old.keys().chain(gained) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |side: &serde_json::Map<String, Value>| side.get(key).cloned().unwrap_or_default();
            compare(&path, &of(old), &of(new), changes);
        }
    } else if from != to {
        let show = |value: &Value| match value {
            Value::Null => "unset".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        changes.push(Change { field: path.to_owned(), from: show(from), to: show(to) });
    }
}
