//! The official Gateway API conformance suite against the running cluster.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use kube::Api;
use meshwright_api::{GATEWAY_CLASS, gateway::GatewayClass, labels};
use serde_json::Value;

use crate::product::{Tally, workspace};
use crate::testing::{DEADLINE, Env, eventually};
use crate::{Cluster, Layout, addons, programs};

/// Where log and report go.
fn folder() -> PathBuf {
    workspace().join("target/conformance")
}

/// What the names of the suite's namespaces begin with.
pub const NAMESPACES: &str = "gateway-conformance-";

/// Features of the mesh beyond its core, and those of HTTPRoutes that tests of the mesh ask for. A Gateway's are in the status of its class,
/// where the suite finds them; a mesh has no object in the standard channel that could say so.
const MESH_FEATURES: [&str; 17] = [
    "GRPCRoute",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteParentRefPort",
    "HTTPRouteResponseHeaderModification",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// A run of the suite.
pub struct Run {
    /// Of its log and its report.
    name: &'static str,
    command: Command,
}

/// The suite for Gateways and for the mesh, one after the other, and a mesh for it.
///
/// # Errors
/// When the suite cannot be built, or the mesh does not become ready.
pub async fn ready(cluster: &Cluster) -> Result<Vec<Run>> {
    let folder = folder();
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    if cluster.context().is_none() {
        for archive in addons::echo_archives(&Layout::find()?)? {
            cluster.load_image(&archive)?;
        }
    }
    let env = Env::with_mesh().await?;
    // The suite looks once, and a mesh is Ready before its class is.
    let classes: Api<GatewayClass> = Api::all(env.client.clone());
    eventually("what the GatewayClass supports", DEADLINE, || async {
        let status = classes.get(GATEWAY_CLASS).await.map_err(|e| e.to_string())?.status;
        match status.as_ref().and_then(|status| status.supported_features.as_ref()) {
            Some(features) if !features.is_empty() => Ok(()),
            _ => Err(format!("{status:?}")),
        }
    })
    .await?;
    let mut gateway = command(cluster, "gateway", "GATEWAY-HTTP")?;
    // Deleting a namespace takes as long as the pods of its gateways may take to end: 330 s.
    gateway.command.arg("--timeout-config-overrides=DeleteTimeout:600");
    let mut mesh = command(cluster, "mesh", "MESH-HTTP,MESH-GRPC")?;
    mesh.command.arg(format!("--supported-features={}", MESH_FEATURES.join(","))).arg(format!(
        "--namespace-labels={}={}",
        labels::MESH,
        labels::MESH_ENABLED
    ));
    let only = std::env::var("RUN_TEST").ok();
    let mut runs = vec![gateway, mesh];
    if let Some(test) = only {
        runs.retain(|run| (run.name == "mesh") == test.starts_with("Mesh"));
        for run in &mut runs {
            run.command.arg(format!("--run-test={test}"));
        }
    }
    Ok(runs)
}

fn command(cluster: &Cluster, name: &'static str, profiles: &str) -> Result<Run> {
    let folder = folder();
    let suite = programs::ensure(&workspace(), "gateway-conformance")?;
    let mut command = Command::new(suite);
    command
        .current_dir(&folder)
        .env("KUBECONFIG", cluster.kubeconfig(&folder)?)
        .args(["-test.v", "-test.timeout=40m", "-test.run=^TestConformance$", "--gateway-class=meshwright"])
        .arg(format!("--conformance-profiles={profiles}"))
        .args(["--organization=meshwright", "--project=meshwright"])
        .args(["--url=https://meshwright.io", "--contact=https://meshwright.io/contact"])
        .arg(format!("--version={}", crate::product::VERSION))
        .arg(format!("--report-output={}", folder.join(format!("{name}.yaml")).display()));
    Ok(Run { name, command })
}

/// Runs it; logs and reports go to `target/conformance`. Its own report is what counts: a core test that was skipped is as good as
/// failed.
///
/// # Errors
/// When it cannot be started; a failed test is counted, not an error.
pub fn run(runs: Vec<Run>) -> Result<Tally> {
    let mut tally = Tally::default();
    for run in runs {
        tally.add(one(run)?);
    }
    Ok(tally)
}

fn one(Run { name, mut command }: Run) -> Result<Tally> {
    let folder = folder();
    let (log, report) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.yaml")));
    if report.exists() {
        std::fs::remove_file(&report).with_context(|| format!("remove the old {}", report.display()))?;
    }
    let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let status = command
        .stderr(file.try_clone().context("share the log")?)
        .stdout(file)
        .status()
        .context("start the conformance suite")?;
    let Ok(text) = std::fs::read_to_string(&report) else {
        eprintln!("the conformance suite ended with {status} and no report; its log: {}", log.display());
        return Ok(Tally { failed: 1, ..Tally::default() });
    };
    let mut tally =
        tally_of(&serde_yaml_ng::from_str(&text).with_context(|| format!("read {}", report.display()))?);
    // Tests that belong to no profile are in no report.
    if !status.success() && tally.failed == 0 {
        eprintln!("the conformance suite ended with {status}; its log: {}", log.display());
        tally.failed += 1;
    }
    Ok(tally)
}

fn tally_of(report: &Value) -> Tally {
    let mut tally = Tally::default();
    for profile in report["profiles"].as_array().into_iter().flatten() {
        for part in ["core", "extended"] {
            let count = |what: &str| profile[part]["statistics"][what].as_u64().unwrap_or(0);
            let skipped = if part == "core" { count("Skipped") } else { 0 };
            tally.add(Tally {
                passed: count("Passed"),
                failed: count("Failed") + skipped,
                ..Tally::default()
            });
            println!(
                "conformance {} {part}: {} passed, {} failed, {} skipped",
                profile["name"],
                count("Passed"),
                count("Failed"),
                count("Skipped")
            );
            for test in profile[part]["failedTests"].as_array().into_iter().flatten() {
                tally.reasons.push(format!("conformance: {test}"));
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MESH_FEATURES, tally_of};

    #[test]
    fn features_are_sorted_and_unique() {
        assert!(MESH_FEATURES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_skipped_core_test_is_a_failure() {
        let core = json!({ "statistics": { "Passed": 40, "Failed": 0, "Skipped": 1 } });
        let extended = json!({ "statistics": { "Passed": 33, "Failed": 2, "Skipped": 5 } });
        let report = json!({ "profiles": [{ "name": "GATEWAY-HTTP", "core": core, "extended": extended }] });
        let tally = tally_of(&report);
        assert_eq!((tally.passed, tally.failed), (73, 3));
    }
}
