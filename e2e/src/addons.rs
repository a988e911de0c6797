//! What every cluster has from its start: node objects, CoreDNS, metrics-server, and their images.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::command::run_with_input;
use crate::images::{ImageFile, ImageSpec, write_oci_archive};
use crate::layout::{Layout, cache};
use crate::node::PAUSE_IMAGE;
use crate::programs;

const COREDNS_IMAGE: &str = "e2e.meshwright.io/coredns:1.15.0";
const METRICS_SERVER_IMAGE: &str = "e2e.meshwright.io/metrics-server:0.9.0";

/// What manifests of the Gateway API's conformance suite ask for; it is the same program.
const ECHO_IMAGES: [&str; 2] = [
    "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0",
    "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
];

/// What its mesh tests ask for: our own program that answers and asks as theirs does.
const ECHO_ADVANCED_IMAGE: &str = "registry.k8s.io/gateway-api/conformance/echo-advanced:v0.1.0";

/// Archives of the images that `up` loads, written once for each build of their programs.
pub fn image_archives(layout: &Layout) -> Result<Vec<PathBuf>> {
    [("pause", PAUSE_IMAGE), ("coredns", COREDNS_IMAGE), ("metrics-server", METRICS_SERVER_IMAGE)]
        .into_iter()
        .map(|(program, reference)| program_archive(layout, program, reference))
        .collect()
}

/// Archives of the conformance suite's echo servers; built if need be.
pub fn echo_archives(layout: &Layout) -> Result<Vec<PathBuf>> {
    programs::ensure(&layout.root, "echo-basic")?;
    programs::ensure(&layout.root, "echo-advanced")?;
    let basic = ECHO_IMAGES.into_iter().map(|reference| program_archive(layout, "echo-basic", reference));
    // The suite executes `client` in the pods.
    let advanced = ["/usr/local/bin/server", "/usr/local/bin/client"];
    let advanced = archive(layout, "echo-advanced", ECHO_ADVANCED_IMAGE, &advanced);
    basic.chain([advanced]).collect()
}

/// An image that holds one of the table's programs and nothing else.
pub fn program_archive(layout: &Layout, program: &str, reference: &str) -> Result<PathBuf> {
    archive(layout, program, reference, &[&format!("/{program}")])
}

/// The same with the program under several names, of which the first is the entrypoint.
fn archive(layout: &Layout, program: &str, reference: &str, inside: &[&str]) -> Result<PathBuf> {
    let binary = programs::path(&layout.root, program)?;
    let key = binary.parent().and_then(|p| p.file_name()).context("a program's path has a folder")?;
    let dir = cache()?.join("images");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let name = reference.replace(['/', ':'], "_");
    let archive = dir.join(format!("{}-{name}.tar", key.to_string_lossy()));
    if !archive.exists() {
        let files = inside.iter().map(|path| ImageFile::read(&binary, path, 0o755));
        let spec = ImageSpec {
            reference: reference.to_owned(),
            files: files.collect::<Result<_>>()?,
            entrypoint: inside.first().map(|path| (*path).to_owned()).into_iter().collect(),
            user: "65532:65532".into(),
            ..ImageSpec::default()
        };
        write_oci_archive(&spec, &archive)?;
    }
    Ok(archive)
}

/// Makes the node objects before kubelets do, with the pod ranges that the routes already have.
pub async fn register_nodes(layout: &Layout, client: &Client) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for node in layout.nodes() {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name, "labels": {
                "topology.kubernetes.io/zone": node.zone,
                "topology.kubernetes.io/region": "local",
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            }},
            "spec": {"podCIDR": node.pod_cidr, "podCIDRs": [node.pod_cidr]},
        });
        api.patch(&node.name, &PatchParams::apply("meshwright-e2e"), &Patch::Apply(&object))
            .await
            .with_context(|| format!("registering {}", node.name))?;
    }
    Ok(())
}

/// Applies CoreDNS, metrics-server and what kube-proxy may read.
pub fn apply(layout: &Layout) -> Result<()> {
    let coredns = include_str!("../cluster/addons/coredns.yaml")
        .replace("COREDNS_IMAGE", COREDNS_IMAGE)
        .replace("DNS_IP", &layout.service_ip(10).to_string());
    let metrics = include_str!("../cluster/addons/metrics-server.yaml")
        .replace("METRICS_SERVER_IMAGE", METRICS_SERVER_IMAGE);
    let mut kubectl = Command::new(programs::path(&layout.root, "kubectl")?);
    kubectl.arg("--kubeconfig").arg(layout.pki().join("admin.kubeconfig"));
    kubectl.args(["apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-"]);
    run_with_input(&mut kubectl, format!("{coredns}\n---\n{metrics}").as_bytes())
        .context("applying CoreDNS and metrics-server")
        .map(drop)
}

/// Waits until nodes are Ready, by word of a kubelet that spoke after `since`: what the API says of a node that
/// lost its power stays true for 20 s.
pub async fn wait_nodes_ready(
    layout: &Layout,
    client: &Client,
    names: &[String],
    since: Timestamp,
    limit: Duration,
) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let start = Instant::now();
    loop {
        let nodes = api.list(&Default::default()).await.context("listing nodes")?;
        let ready: Vec<_> = nodes
            .items
            .iter()
            .filter(|n| ready_since(n).is_some_and(|t| t >= since))
            .filter_map(|n| n.metadata.name.clone())
            .collect();
        let waiting: Vec<_> = names.iter().filter(|n| !ready.contains(n)).cloned().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!(
                "{} not Ready after {limit:?}: see kubelet's logs in {}",
                waiting.join(", "),
                layout.logs().display()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn is_ready(node: &Node) -> bool {
    ready_since(node).is_some()
}

/// When its kubelet last said that it is Ready, if it did.
fn ready_since(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_heartbeat_time.as_ref().map_or(Timestamp::MIN, |t| t.0))
}

/// Waits for CoreDNS: the first pod of a test may already need names.
pub async fn wait_dns(client: &Client, limit: Duration) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let start = Instant::now();
    loop {
        let dns = api.get("coredns").await.context("reading the Deployment coredns")?;
        if dns.status.and_then(|s| s.ready_replicas).unwrap_or_default() > 0 {
            return Ok(());
        }
        if start.elapsed() > limit {
            bail!("CoreDNS is not ready after {limit:?}: `kubectl -n kube-system describe pods` tells why");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
