//! What the proxies of nodes tell: from the spec to the control plane, which tells them.

use serde_json::{Value, json};

use super::{at, build, mesh, seen, take};
use crate::{catalogue::tests::catalogue, mesh_control_plane::validate::validate};

fn tracing() -> Value {
    json!({"tracing": {"endpoint": "otel.obs:4317", "sampling": "0.5%"}, "accessLog": "All"})
}

/// Variables of the control plane's container that are about the proxies, of the revision that a spec makes.
fn told(version: &str, telemetry: Value) -> Vec<(String, String)> {
    let mut seen = seen(mesh(json!({"version": version, "telemetry": telemetry})));
    let mesh = validate(&seen, &catalogue(&["0.2.0", "0.3.0"]), &[], at(0)).unwrap();
    take(&mut seen, &mesh, at(0));
    let around = build::Around { operator: "meshwright-system", anchors: None };
    let objects = build::revision(&seen.revisions[0], "s", &mesh.control_plane, around).unwrap();
    let containers = objects.deployment.spec.template.spec.unwrap().containers;
    let env = containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    let of_proxies = env.filter(|env| env.name.starts_with("PROXY_"));
    of_proxies.map(|env| (env.name, env.value.unwrap_or_default())).collect()
}

#[test]
fn the_control_plane_knows_what_proxies_tell() {
    let expected = [
        ("PROXY_TRACING_ENDPOINT", "otel.obs:4317"),
        ("PROXY_TRACING_SAMPLING", "0.5%"),
        ("PROXY_ACCESS_LOG", "true"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(told("0.3.0", tracing()), expected);
    assert_eq!(told("0.3.0", json!({})), []);
    let sampled = told("0.3.0", json!({"tracing": {"endpoint": "otel.obs:4317"}}));
    assert_eq!(sampled[1].1, "1%");
}

#[test]
fn a_change_of_it_is_an_upgrade_where_there_are_node_proxies_and_nothing_elsewhere() {
    let snapshot = |version: &str, telemetry: Value| {
        let seen = seen(mesh(json!({"version": version, "telemetry": telemetry})));
        validate(&seen, &catalogue(&["0.2.0", "0.3.0"]), &[], at(0)).unwrap().snapshot
    };
    assert_ne!(snapshot("0.3.0", tracing()), snapshot("0.3.0", json!({})));
    assert_eq!(snapshot("0.2.0", tracing()), snapshot("0.2.0", json!({})));
    let text = serde_json::to_string(&snapshot("0.3.0", json!({}))).unwrap();
    assert!(!text.contains("telemetry"), "revisions of before are what they were");
}

#[test]
fn what_is_no_endpoint_and_no_share_is_refused() {
    let refused = |endpoint: &str, sampling: &str| {
        let telemetry = json!({"tracing": {"endpoint": endpoint, "sampling": sampling}});
        let seen = seen(mesh(json!({"version": "0.3.0", "telemetry": telemetry})));
        validate(&seen, &catalogue(&["0.3.0"]), &[], at(0)).unwrap_err().to_string()
    };
    assert!(refused("otel.obs", "1%").contains("spec.telemetry.tracing.endpoint"));
    assert!(refused("otel.obs:4317", "200%").contains("spec.telemetry.tracing.sampling"));
}
