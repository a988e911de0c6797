//! The committed YAML is what the types say. CEL rules run on the real API server: `e2e/tests/api.rs`.

use std::path::Path;

use serde_json::{Value, json};

use crate::{Certificates, MeshControlPlane, MeshControlPlaneSpec, definitions, definitions_yaml};

fn mesh(name: &str, spec: Value) -> MeshControlPlane {
    let spec: MeshControlPlaneSpec = serde_json::from_value(spec).unwrap();
    MeshControlPlane::new(name, spec)
}

#[test]
fn an_empty_spec_is_complete() {
    let mesh = mesh("mesh", json!({}));
    assert_eq!(mesh.spec.trust_domain, "cluster.local");
    assert_eq!(mesh.spec.certificates, Certificates::default());
    assert_eq!(mesh.spec.version, None);
}

#[test]
fn committed_yaml_is_what_the_types_say() {
    // At run time: a test that another checkout compiled would know that one's place.
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("yaml");
    for (file, yaml) in definitions_yaml().unwrap() {
        let committed = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(committed == yaml, "{file} is out of date: run `make gen`");
        assert!(yaml.len() < 200_000, "{file} is too large for client-side apply");
    }
}

#[test]
fn every_field_of_our_own_has_a_description() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            if let Some(items) = schema.get("items") {
                walk(&format!("{path}[]"), items, missing);
            }
            return;
        };
        for (name, field) in properties {
            let path = format!("{path}.{name}");
            if field.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                missing.push(path.clone());
            }
            walk(&path, field, missing);
        }
    }
    let mut missing = Vec::new();
    for crd in definitions() {
        for version in &crd.spec.versions {
            let schema = serde_json::to_value(&version.schema).unwrap();
            walk(&crd.spec.names.kind, &schema["openAPIV3Schema"], &mut missing);
        }
    }
    missing.retain(|path| !path.ends_with(".metadata"));
    assert!(missing.is_empty(), "fields without a description: {missing:?}");
}

#[test]
fn every_kind_is_in_the_category_mesh_and_has_a_short_name() {
    for crd in definitions() {
        assert_eq!(crd.spec.names.categories.unwrap_or_default(), ["mesh"]);
        assert!(!crd.spec.names.short_names.unwrap_or_default().is_empty());
    }
}

#[test]
fn a_release_went_back_until_that_very_upgrade_is_to_be_tried_again() {
    let record = |result: &str, started: &str| {
        json!({"from": "mesh-1", "fromVersion": "0.1.0", "to": "mesh-2", "toVersion": "0.2.0", "strategy": "Canary",
            "result": result, "reason": "", "started": started, "ended": "2026-01-01T01:00:00Z"})
    };
    let with = |history: Value, retry: &str| {
        let mut mesh = mesh("mesh", json!({}));
        mesh.status = Some(serde_json::from_value(json!({"history": history})).unwrap());
        mesh.metadata.annotations = Some([(crate::labels::RETRY.to_owned(), retry.to_owned())].into());
        mesh.went_back("0.2.0")
    };
    let bad = record("RolledBack", "2026-01-01T00:00:00Z");
    assert!(with(json!([bad]), ""));
    assert!(with(json!([bad]), "mesh-2"), "every attempt has its own name");
    assert!(!with(json!([bad]), "mesh-2/2026-01-01T00:00:00Z"));
    assert!(with(json!([record("RolledBack", "2026-01-02T00:00:00Z"), bad]), "mesh-2/2026-01-01T00:00:00Z"));
    assert!(
        with(json!([record("Superseded", "2026-01-02T00:00:00Z"), bad]), ""),
        "it was taken back, not good"
    );
    assert!(!with(json!([record("Succeeded", "2026-01-02T00:00:00Z"), bad]), ""));
}
