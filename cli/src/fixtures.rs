//! A mesh in the states that matter, for tests.

use meshwright_api::{MeshControlPlane, MeshRevision};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The moment at which the fixtures are looked at.
pub const NOW: &str = "2026-11-21T12:10:00Z";

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml_ng::from_str(yaml).unwrap()
}

/// A mesh without an upgrade: an upgrade to 0.1.1 succeeded before, 0.2.0 is known.
pub fn fresh() -> MeshControlPlane {
    read(include_str!("fixtures/mesh.yaml"))
}

/// The same mesh while an upgrade is `shift`, `blocked`, `rolled-back` or `drain`.
pub fn mesh(state: &str) -> MeshControlPlane {
    let mut states: Value = read(include_str!("fixtures/upgrades.yaml"));
    let mut mesh = fresh();
    let status = mesh.status.as_mut().unwrap();
    let mut upgrade = states["base"].take();
    let more = states[state].as_object().unwrap().clone();
    upgrade.as_object_mut().unwrap().extend(more);
    status.upgrade = Some(serde_json::from_value(upgrade).unwrap());
    mesh.spec.version = Some("0.2.0".to_owned());
    mesh
}

/// The mesh at the same place, waiting for a person's approval.
pub fn waiting(state: &str) -> MeshControlPlane {
    let mut mesh = mesh(state);
    let conditions = &mut mesh.status.as_mut().unwrap().conditions;
    let approved = conditions.iter_mut().find(|c| c.type_ == "Approved").unwrap();
    (approved.status, approved.reason) = ("False".to_owned(), "AwaitingApproval".to_owned());
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.awaits_approval = upgrade.step.map(|step| (step + 1).to_string());
    mesh
}

/// The revisions of the mesh: the one that serves and the new one.
pub fn revisions() -> Vec<MeshRevision> {
    read(include_str!("fixtures/revisions.yaml"))
}
