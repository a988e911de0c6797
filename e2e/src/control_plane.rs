//! etcd, API server, controller manager and scheduler, in the host's namespaces.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde_json::json;

use crate::layout::Layout;
use crate::process::{Daemon, Record};
use crate::programs;

pub const DAEMONS: [&str; 5] = ["lb", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"];

fn start(layout: &Layout, program: &str, args: Vec<String>) -> Result<Record> {
    let daemon = Daemon {
        name: program.to_owned(),
        program: programs::path(&layout.root, program)?,
        args,
        node: None,
        env: Vec::new(),
    };
    daemon.start(layout)
}

/// Starts etcd and the API server. The others end when they come before its first bootstrap: [`start_controllers`].
pub fn start_api(layout: &Layout) -> Result<()> {
    let (loopback, pki) = (layout.loopback_ip(), layout.pki());
    let (client, peer) = (format!("http://{loopback}:2379"), format!("http://{loopback}:2380"));
    start(
        layout,
        "etcd",
        vec![
            "--name=e2e".into(),
            format!("--data-dir={}/etcd", layout.state().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=e2e={peer}"),
            // The data need not survive the machine.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ],
    )?;
    let policy = layout.state().join("audit-policy.json");
    fs::write(&policy, audit_policy()).with_context(|| format!("writing {}", policy.display()))?;
    let file = |name: &str| pki.join(name).display().to_string();
    let host = layout.host_ip();
    start(
        layout,
        "kube-apiserver",
        vec![
            format!("--etcd-servers={client}"),
            format!("--bind-address={host}"),
            format!("--advertise-address={host}"),
            "--secure-port=6443".into(),
            format!("--service-cluster-ip-range={}", layout.service_cidr()),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--kubelet-certificate-authority={}", file("ca.crt")),
            format!("--kubelet-client-certificate={}", file("apiserver-kubelet-client.crt")),
            format!("--kubelet-client-key={}", file("apiserver-kubelet-client.key")),
            // Names of nodes are known to no name server.
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            // The host has routes to pods, not to everything behind a ClusterIP that has no proxy here.
            "--enable-aggregator-routing=true".into(),
            format!("--requestheader-client-ca-file={}", file("front-proxy-ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            format!("--proxy-client-cert-file={}", file("front-proxy-client.crt")),
            format!("--proxy-client-key-file={}", file("front-proxy-client.key")),
            format!("--audit-policy-file={}", policy.display()),
            format!("--audit-log-path={}", layout.audit_log().display()),
            "--audit-log-maxsize=2000".into(),
            "--profiling=false".into(),
        ],
    )?;
    Ok(())
}

/// Who did what to which object; never what was in it. Renewals of node leases would drown the rest.
fn audit_policy() -> String {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/version", "/openapi*", "/api*"]},
            {"level": "None", "namespaces": ["kube-node-lease"],
             "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {"level": "Metadata"},
        ],
    })
    .to_string()
}

/// Waits for the API server, then starts what depends on its bootstrap.
pub async fn start_controllers(layout: &Layout, client: &Client) -> Result<()> {
    wait_ready(layout, client, Duration::from_secs(90)).await?;
    let (loopback, pki) = (layout.loopback_ip(), layout.pki());
    let file = |name: &str| pki.join(name).display().to_string();
    let common = |name: &str, port: u16| {
        let config = file(&format!("{name}.kubeconfig"));
        vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            format!("--bind-address={loopback}"),
            format!("--secure-port={port}"),
            "--leader-elect=false".into(),
        ]
    };
    let mut manager = common("controller-manager", 10257);
    manager.extend([
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        "--use-service-account-credentials=true".into(),
        // By default it makes a folder in /usr.
        format!("--flex-volume-plugin-dir={}/flex-volumes", layout.state().display()),
        // Nodes come with their ranges: routes are made before there is a controller.
        "--allocate-node-cidrs=false".into(),
        // Quicker than by default, because tests wait for them.
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s".into(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=20s".into(),
        "--node-monitor-period=2s".into(),
        "--node-monitor-grace-period=20s".into(),
    ]);
    start(layout, "kube-controller-manager", manager)?;
    start(layout, "kube-scheduler", common("scheduler", 10259))?;
    Ok(())
}

pub async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    let answer = tokio::time::timeout(Duration::from_secs(1), client.request_text(request)).await;
    matches!(answer, Ok(Ok(text)) if text == "ok")
}

async fn wait_ready(layout: &Layout, client: &Client, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while !is_ready(client).await {
        for name in ["etcd", "kube-apiserver"] {
            if !Record::load(layout, name).is_some_and(|r| r.alive()) {
                bail!("{name} ended: see {}/{name}.log", layout.logs().display());
            }
        }
        if start.elapsed() > limit {
            bail!("the API server was not ready after {limit:?}: see {}", layout.logs().display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
