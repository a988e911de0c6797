//! The handle that tests hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::layout::Layout;
use crate::{addons, node, up};

/// The running cluster of this checkout.
#[derive(Clone, Debug)]
pub struct Cluster {
    layout: Layout,
}

impl Cluster {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not up: `cargo run -p meshwright-e2e -- up` brings it up.
    pub fn current() -> Result<Self> {
        let layout = Layout::find()?;
        if !layout.up_marker().exists() || !layout.kubeconfig().exists() {
            bail!(
                "no cluster of {} is up: run `cargo run -p meshwright-e2e -- up` as root",
                layout.root.display()
            );
        }
        Ok(Self { layout })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The kubectl of the cluster's own version.
    pub fn kubectl(&self) -> Result<PathBuf> {
        crate::programs::path(&self.layout.root, "kubectl")
    }

    /// Every request of the cluster, one JSON object per line, without bodies.
    pub fn audit_log_path(&self) -> PathBuf {
        self.layout.audit_log()
    }

    /// A client with all rights. In the audit log its user is `meshwright-e2e-admin`.
    pub async fn client(&self) -> Result<Client> {
        Self::client_from(&self.kubeconfig()).await
    }

    pub async fn client_from(kubeconfig: &Path) -> Result<Client> {
        // kube takes whichever provider is the process's; an earlier choice of the caller stands.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let read =
            Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("using {}", kubeconfig.display()))?;
        Client::try_from(config).with_context(|| format!("a client from {}", kubeconfig.display()))
    }

    pub fn node_names(&self) -> Vec<String> {
        self.layout.nodes().into_iter().map(|n| n.name).collect()
    }

    /// Brings the images of an OCI archive to all nodes. They can be named by tag and by `name@sha256:...`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        up::on_all_nodes(&self.layout, |n| node::load(&self.layout, n, archive))
    }

    /// Cuts a node's power (1 to 3): its link and every process of it. The API learns of it after 20 s.
    pub fn stop_node(&self, n: u8) -> Result<()> {
        node::lose(&self.layout, &self.layout.node(n)?)
    }

    /// Brings a stopped node back, and waits until it is Ready.
    pub async fn start_node(&self, n: u8) -> Result<()> {
        let node = self.layout.node(n)?;
        if node::records(&self.layout, &node).iter().any(|r| r.alive()) {
            bail!("{} is running: stop it first", node.name);
        }
        let since = Timestamp::now();
        node::bring_back(&self.layout, &node)?;
        let client = self.client().await?;
        addons::wait_nodes_ready(&self.layout, &client, &[node.name], since, Duration::from_secs(90)).await
    }
}
