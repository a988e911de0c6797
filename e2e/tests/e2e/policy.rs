//! Policies between workloads: who takes plaintext, and who may call whom.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use meshwright_e2e::testing::{
    NodeProxy, Plugin, Policies, apply_yaml, connects_from, delete_yaml, keep_all, node_addresses,
};
use rustix::process::Signal;

use crate::env::{DEADLINE, Env, MESH};

/// Whose pods, logs and configuration are kept of a failure.
const KEPT: [&str; 2] = [Policies::NAMESPACE, MESH];
/// A change is effective about a second after it was made, and for what is open after five. This machine is busy, and callers are asked.
const SOON: Duration = Duration::from_secs(20);

const STRICT: &str = "apiVersion: meshwright.io/v1alpha1
kind: MeshTLSPolicy
metadata: { name: strict }
spec: { mode: Strict, targetRefs: [ { selector: { matchLabels: { app: called } } } ] }
";

const NO_STRANGERS: &str = "apiVersion: meshwright.io/v1alpha1
kind: AuthorizationPolicy
metadata: { name: no-strangers }
spec:
  action: DENY
  targetRefs: [ { selector: { matchLabels: { app: called } } } ]
  rules: [ { sources: [ { type: ServiceAccount, serviceAccount: { name: stranger } } ] } ]
";

#[tokio::test]
async fn strict_pods_refuse_plaintext_from_everybody_also_while_envoy_is_stopped() -> Result<()> {
    with_pods("strict", async |env, pods| {
        let ways = Ways::to(env, pods).await?;
        pods.is_let_in(env, "outsider", true).await?;
        ways.are_open(true).await.context("before it is Strict")?;
        apply_yaml(&env.client, STRICT, Policies::NAMESPACE).await?;
        pods.is_let_in(env, "outsider", false).await?;
        pods.is_let_in(env, "friend", true).await?;
        ways.are_open(false).await.context("in Strict")?;
        ensure!(connects_from(&ways.network, pods.probed).await?, "a probe of the node is refused");
        let said = Plugin::of(env).await?.says("describe pod called -n policies", 0).await?;
        ensure!(said.contains("MeshTLSPolicy policies/strict (Strict)"), "{said}");

        let proxy = NodeProxy::of(env, &pods.node).await?;
        proxy.signal("envoy", Signal::STOP)?;
        let stopped = async {
            // Far longer than probes may fail.
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(15) {
                ways.are_open(false).await.context("with Envoy stopped")?;
                pods.is_let_in(env, "outsider", false).await?;
            }
            pods.is_unharmed(env).await
        };
        let stopped = stopped.await;
        let goes_on = proxy.signal("envoy", Signal::CONT);
        stopped?;
        goes_on?;
        pods.is_let_in(env, "friend", true).await?;
        delete_yaml(&env.client, STRICT, Policies::NAMESPACE).await?;
        pods.is_let_in(env, "outsider", true).await?;
        ways.are_open(true).await.context("when it is Strict no more")
    })
    .await
}

#[tokio::test]
async fn an_identity_is_refused_and_another_is_not() -> Result<()> {
    with_pods("authorization", async |env, pods| {
        for caller in ["friend", "stranger"] {
            pods.is_let_in(env, caller, true).await?;
        }
        let start = Instant::now();
        apply_yaml(&env.client, NO_STRANGERS, Policies::NAMESPACE).await?;
        // All its connections, those from before too.
        pods.is_let_in(env, "stranger", false).await?;
        let refused = start.elapsed();
        pods.is_let_in(env, "friend", true).await?;
        // It has no identity at all.
        pods.is_let_in(env, "outsider", false).await?;
        let start = Instant::now();
        delete_yaml(&env.client, NO_STRANGERS, Policies::NAMESPACE).await?;
        pods.is_let_in(env, "stranger", true).await?;
        let back = start.elapsed();
        println!("  refused after {:.1} s, let in after {:.1} s", refused.as_secs_f64(), back.as_secs_f64());
        ensure!(refused < SOON && back < SOON, "refused after {refused:?}, let in after {back:?}");
        Ok(())
    })
    .await
}

/// Ways in plaintext to the pod that is called: from its node, and through its Service's port on every node.
struct Ways {
    network: std::path::PathBuf,
    called: SocketAddr,
    node_ports: Vec<SocketAddr>,
}

impl Ways {
    async fn to(env: &Env, pods: &Policies) -> Result<Self> {
        let names = env.cluster.node_names().await?;
        let mut networks = names.into_iter().zip(env.cluster.networks()?);
        let (_, network) = networks.find(|(name, _)| *name == pods.node).context("the node's network")?;
        let node_ports =
            node_addresses(env).await?.into_iter().map(|address| (address, pods.node_port).into());
        Ok(Self { network, called: pods.called, node_ports: node_ports.collect() })
    }

    /// Whether all of them lead there, or none does.
    async fn are_open(&self, wanted: bool) -> Result<()> {
        for to in self.node_ports.iter().chain([&self.called]) {
            let is_open = connects_from(&self.network, *to).await?;
            ensure!(is_open == wanted, "from the node to {to}: connected {is_open}");
        }
        let here = std::path::Path::new("/proc/self/ns/net");
        for to in &self.node_ports {
            let is_open = connects_from(here, *to).await?;
            ensure!(is_open == wanted, "from outside to {to}: connected {is_open}");
        }
        Ok(())
    }
}

/// Does something with pods of their own, which end with it.
async fn with_pods(what: &str, acting: impl AsyncFnOnce(&Env, &Policies) -> Result<()>) -> Result<()> {
    let env = &Env::with_mesh().await?;
    let acted = async { acting(env, &Policies::installed(env).await?).await };
    let acted =
        tokio::time::timeout(DEADLINE * 4, acted).await.context("it takes too long").and_then(|acted| acted);
    if acted.is_err() {
        keep_all(&env.client, &format!("policy-{what}"), &KEPT).await;
    }
    let removed = env.delete_namespace(Policies::NAMESPACE).await;
    acted.and(removed)
}
