//! The official Gateway API conformance suite against the running cluster.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::product::{Tally, workspace};
use crate::testing::apply_yaml;
use crate::{Cluster, addons, programs};

/// Small, because the suite makes some ten Gateways and three nodes share one machine.
const MESH: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { pod-security.kubernetes.io/enforce: restricted } }
---
apiVersion: meshwright.io/v1alpha1
kind: MeshControlPlane
metadata: { name: mesh, namespace: mesh }
spec:
  profile: Production
  controlPlane: { resources: { requests: { cpu: 20m, memory: 64Mi } } }
  gateways:
    resources: { requests: { cpu: 10m, memory: 32Mi } }
    autoscaling: { minReplicas: 2, maxReplicas: 3 }
";

/// Runs profile GATEWAY-HTTP; log and report go to `target/conformance`.
///
/// # Errors
/// When the suite cannot be built, prepared or started; a failed test is counted, not an error.
pub async fn run(cluster: &Cluster) -> Result<Tally> {
    let root = workspace();
    let folder = root.join("target/conformance");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for archive in addons::echo_archives(cluster.layout())? {
        cluster.load_image(&archive)?;
    }
    apply_yaml(&cluster.client().await?, MESH, "mesh").await?;
    let suite = programs::ensure(&root, "gateway-conformance")?;
    let mut command = Command::new(suite);
    command
        .current_dir(&folder)
        .env("KUBECONFIG", cluster.kubeconfig())
        .args(["-test.v", "-test.timeout=40m", "-test.run=TestConformance", "--gateway-class=meshwright"])
        .args(["--conformance-profiles=GATEWAY-HTTP", "--organization=meshwright", "--project=meshwright"])
        .args(["--url=https://meshwright.io", "--contact=https://meshwright.io/contact"])
        .arg(format!("--version={}", crate::product::VERSION))
        .arg(format!("--report-output={}", folder.join("report.yaml").display()));
    if let Ok(test) = std::env::var("RUN_TEST") {
        command.arg(format!("--run-test={test}"));
    }
    counted(&mut command, &folder.join("log.txt"))
}

/// One result per test of the suite: lines `    --- PASS: TestConformance/Name`, not their subtests.
fn counted(command: &mut Command, log: &Path) -> Result<Tally> {
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("start the conformance suite")?;
    let mut tally = Tally::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.context("read the suite's output")?;
            writeln!(file, "{line}").with_context(|| format!("write {}", log.display()))?;
            if let Some((outcome, name)) = result_of(&line) {
                println!("conformance: {outcome} {name}");
                match outcome {
                    "PASS" => tally.passed += 1,
                    "FAIL" => tally.failed += 1,
                    _ => {}
                }
            }
        }
    }
    let status = child.wait().context("wait for the suite")?;
    if !status.success() && tally.failed == 0 {
        eprintln!("the conformance suite ended with {status}; its log: {}", log.display());
        tally.failed += 1;
    }
    Ok(tally)
}

fn result_of(line: &str) -> Option<(&str, &str)> {
    let (outcome, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": TestConformance/")?;
    let name = rest.split(' ').next()?;
    (!name.contains('/')).then_some((outcome, name))
}

#[cfg(test)]
mod tests {
    use super::result_of;

    #[test]
    fn only_whole_tests_count() {
        assert_eq!(
            result_of("    --- PASS: TestConformance/HTTPRouteWeight (2.1s)"),
            Some(("PASS", "HTTPRouteWeight"))
        );
        assert_eq!(result_of("        --- PASS: TestConformance/HTTPRouteWeight/Case (0.1s)"), None);
        assert_eq!(result_of("--- FAIL: TestConformance (2.1s)"), None);
    }
}
