//! What each released version is rendered as, held by files that never change: `operator/golden/<version>/`. A release is made by
//! writing them (`make golden`), which writes only what is not there yet.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use meshwright_api::{MeshControlPlane, MeshRevision, Profile, gateway::Gateway};
use serde_json::{Value, json};

use crate::{
    apply::Desired,
    availability::{Workload, solve},
    gateway::{self, Parameters, There},
    mesh_control_plane::build,
    upgrade::routing::{Behind, Part, Routing, Size},
};

/// Versions whose files are committed.
const RELEASED: [&str; 2] = ["0.1.0", "0.2.0"];
/// Set by `make golden`.
const WRITE: &str = "MESHWRIGHT_WRITE_GOLDEN";

fn folder() -> PathBuf {
    // At run time: a test that another checkout compiled would know that one's place.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("golden")
}

fn revision(version: &str, profile: Profile) -> MeshRevision {
    let settings = json!({
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "scheduling": {"nodeSelector": {"pool": "mesh"}, "tolerations": [{"key": "mesh", "operator": "Exists"}],
            "priorityClassName": "system-cluster-critical"},
        "spreadZones": profile == Profile::Production,
    });
    let object = json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshRevision",
        "metadata": {"name": "mesh-0a1b2c3d", "namespace": "prod", "uid": "revision-uid"},
        "spec": {
            "mesh": "mesh", "version": version, "trustDomain": "cluster.local", "workloadTTL": "24h",
            "images": {"controlPlane": "registry.example/control-plane@sha256:1", "proxy": "registry.example/proxy@sha256:2",
                "pullSecrets": ["registry"]},
            "controlPlane": settings, "gateways": settings,
        },
    });
    serde_json::from_value(object).unwrap()
}

fn of_revision(version: &str, profile: Profile) -> Vec<Desired> {
    let plan = solve(Workload::ControlPlane, profile, &[]);
    let revision = revision(version, profile);
    let around = build::Around { operator: "meshwright-system", anchors: Some("PEM") };
    build::revision(&revision, "mesh-0a1b2c3d-issuing-1", &plan, around).unwrap().into_desired(&plan).unwrap()
}

fn of_gateway(version: &str, profile: Profile) -> Vec<Desired> {
    let mesh: MeshControlPlane = serde_json::from_value(json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane",
        "metadata": {"name": "mesh", "namespace": "prod"}, "spec": {"profile": profile},
    }))
    .unwrap();
    let gateway: Gateway = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "gateway-uid"},
        "spec": {"gatewayClassName": "meshwright", "infrastructure": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}, {"name": "https", "port": 443, "protocol": "HTTPS"}]},
    }))
    .unwrap();
    let lead = Part { revision: "mesh-0a1b2c3d".to_owned(), size: Size::Scaled };
    let routing = Routing { behind: Behind::Only(lead.revision.clone()), lead, other: None };
    let held = gateway::Held { mesh, routing, there: There::default() };
    let seen = gateway::Seen {
        revisions: BTreeMap::from([("mesh-0a1b2c3d".to_owned(), revision(version, profile))]),
        anchors: "PEM".to_owned(),
        of_class: Parameters::None,
        of_gateway: Parameters::None,
    };
    let valid = gateway::validate(&gateway, &held, &seen).unwrap();
    gateway::build::gateway(&valid).unwrap().into_desired().unwrap()
}

fn yaml(desired: Vec<Desired>) -> String {
    let bodies: Vec<Value> = desired.into_iter().map(|d| d.body).collect();
    bodies.iter().map(|b| format!("---\n{}", serde_yaml_ng::to_string(b).unwrap())).collect()
}

fn renders() -> Vec<(PathBuf, String)> {
    let mut renders = Vec::new();
    for version in RELEASED {
        for profile in [Profile::Demo, Profile::Default, Profile::Production] {
            let name =
                |what: &str| folder().join(version).join(format!("{what}-{profile:?}.yaml").to_lowercase());
            renders.push((name("revision"), yaml(of_revision(version, profile))));
            renders.push((name("gateway"), yaml(of_gateway(version, profile))));
        }
    }
    renders
}

#[test]
fn every_release_is_rendered_as_it_was_released_byte_for_byte() {
    for (path, now) in renders() {
        if std::env::var_os(WRITE).is_some() && !path.exists() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &now).unwrap();
        }
        let released = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            now == released,
            "{} is rendered otherwise now: what is installed would change by itself. Change the builders of a new version instead.",
            path.display()
        );
    }
}

#[test]
fn no_commit_has_changed_a_released_render() {
    let git = |args: &[&str]| Command::new("git").current_dir(folder().join("..")).args(args).output();
    let inside = git(&["rev-parse", "--is-inside-work-tree"]).is_ok_and(|o| o.status.success());
    if !inside {
        println!("no history here");
        return;
    }
    let changed = git(&["log", "--diff-filter=MD", "--format=%h %s", "--", "golden"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&changed.stdout), "", "commits that changed what was released");
}

#[test]
fn builders_of_two_releases_differ_in_what_the_newer_one_adds() {
    let of = |version: &str| {
        let desired = of_revision(version, Profile::Default);
        let deployment = desired.into_iter().find(|d| d.resource.kind == "Deployment").unwrap();
        deployment.body["spec"]["template"].clone()
    };
    let (old, new) = (of("0.1.0"), of("0.2.0"));
    let label = "/metadata/labels/app.kubernetes.io~1version";
    assert_eq!((old.pointer(label), new.pointer(label)), (None, Some(&json!("0.2.0"))));
    let policy = "/spec/containers/0/terminationMessagePolicy";
    assert_eq!((old.pointer(policy), new.pointer(policy)), (None, Some(&json!("FallbackToLogsOnError"))));
}
