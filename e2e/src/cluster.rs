//! The handle that tests hold. Here, and nowhere else, is decided which cluster is used.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt};

use crate::layout::Layout;
use crate::{addons, command, network, node, outside, programs, up};

/// The cluster of this checkout, or one outside that was asked for.
#[derive(Clone, Debug)]
pub struct Cluster {
    layout: Layout,
    context: Option<String>,
}

impl Cluster {
    /// The one that `CLUSTER`, `CONTEXT` and `KUBECONFIG` ask for; the checkout's own need not be up.
    ///
    /// # Errors
    /// When they do not say clearly which one is meant.
    pub fn chosen() -> Result<Self> {
        let value = |name| std::env::var(name).unwrap_or_default();
        let contexts = || {
            outside::absolute(&std::env::var_os("KUBECONFIG").unwrap_or_default())?;
            Ok(kubeconfig_of_user()?.contexts.into_iter().map(|context| context.name).collect())
        };
        let context = outside::chosen(&value("CLUSTER"), &value("CONTEXT"), contexts)?;
        Ok(Self { layout: Layout::find()?, context })
    }

    /// The chosen one, as it is there now.
    ///
    /// # Errors
    /// When it is the checkout's own and not up.
    pub fn current() -> Result<Self> {
        let chosen = Self::chosen()?;
        let layout = &chosen.layout;
        let up = layout.up_marker().exists() && layout.kubeconfig().exists();
        ensure!(
            up || chosen.context.is_some(),
            "no cluster of {} is up: run `make cluster` as root",
            layout.root.display()
        );
        Ok(chosen)
    }

    /// Whatever drains, kills or deletes asks this first. The checkout's own cluster may be broken, up or not.
    ///
    /// # Errors
    /// When a cluster outside cannot be reached, or is not marked as one that may be broken.
    pub async fn disposable(self) -> Result<Self> {
        if let Some(context) = &self.context {
            outside::disposable(context, self.kube_system().await?.metadata.labels.as_ref())?;
        }
        Ok(self)
    }

    /// The Namespace kube-system, which every cluster has: who gets it has reached the cluster.
    ///
    /// # Errors
    /// When the cluster does not answer, or does not let us.
    pub async fn kube_system(&self) -> Result<Namespace> {
        let namespaces = Api::all(self.client().await?);
        let place = self.context().map_or("the local cluster".to_owned(), |c| format!("context {c}"));
        namespaces
            .get("kube-system")
            .await
            .with_context(|| format!("reading the Namespace kube-system of {place}"))
    }

    /// The context of a cluster outside; none for the checkout's own.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// What only a cluster on this machine has.
    fn own(&self, what: &str) -> Result<&Layout> {
        match &self.context {
            None => Ok(&self.layout),
            Some(context) => bail!("{what}: only the checkout's own cluster lets us, not context {context}"),
        }
    }

    /// kubectl for this cluster: of its own version, or for one outside the user's.
    ///
    /// # Errors
    /// When there is none.
    pub fn kubectl(&self) -> Result<Command> {
        let Some(context) = &self.context else {
            let mut kubectl = Command::new(programs::path(&self.layout.root, "kubectl")?);
            kubectl.arg("--kubeconfig").arg(self.layout.kubeconfig());
            return Ok(kubectl);
        };
        ensure!(command::exists("kubectl"), "CLUSTER=external needs kubectl: install it on the PATH");
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["--context", context]);
        Ok(kubectl)
    }

    /// `KUBECONFIG` for programs that know no `--context`. For a cluster outside, a file in `folder` comes before the user's and
    /// names the context only: the first file that does counts, and no credentials are copied.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub fn kubeconfig(&self, folder: &Path) -> Result<OsString> {
        let Some(context) = &self.context else { return Ok(self.layout.kubeconfig().into()) };
        let path = folder.join("context.yaml");
        let text = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": context});
        std::fs::write(&path, text.to_string()).with_context(|| format!("write {}", path.display()))?;
        let users = match std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
            Some(list) => list,
            None => std::env::home_dir().context("a home folder")?.join(".kube/config").into(),
        };
        let list = [path].into_iter().chain(std::env::split_paths(&users));
        std::env::join_paths(list).context("a list of kubeconfigs")
    }

    /// Every request of the cluster, one JSON object per line, without bodies.
    ///
    /// # Errors
    /// Outside: it is not ours to read.
    pub fn audit_log_path(&self) -> Result<PathBuf> {
        Ok(self.own("reading the audit log")?.audit_log())
    }

    /// A client with all rights. In the local cluster's audit log its user is `meshwright-e2e-admin`.
    ///
    /// # Errors
    /// When the kubeconfig does not give one.
    pub async fn client(&self) -> Result<Client> {
        let Some(context) = &self.context else { return Self::client_from(&self.layout.kubeconfig()).await };
        let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
        client(kubeconfig_of_user()?, options).await.with_context(|| format!("using context {context}"))
    }

    pub async fn client_from(kubeconfig: &Path) -> Result<Client> {
        let read =
            Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        let using = client(read, KubeConfigOptions::default()).await;
        using.with_context(|| format!("using {}", kubeconfig.display()))
    }

    /// Files that the nodes' network namespaces can be entered by, in the order of [`Self::node_names`].
    ///
    /// # Errors
    /// Outside: they are on other machines.
    pub fn networks(&self) -> Result<Vec<PathBuf>> {
        let nodes = self.own("looking at packets")?.nodes();
        Ok(nodes.into_iter().map(|node| Path::new("/run/netns").join(node.netns)).collect())
    }

    /// A program in a node's network and among its files.
    ///
    /// # Errors
    /// Outside, or when there is no such node.
    pub fn in_node(&self, name: &str, program: &str) -> Result<Command> {
        let nodes = self.own("looking at a node")?.nodes();
        let node = nodes.into_iter().find(|node| node.name == name);
        let node = node.with_context(|| format!("there is no node {name}"))?;
        let mut command = command::in_node(&node.netns, &node.mntns, program);
        command.env("PATH", command::search_path());
        Ok(command)
    }

    /// Names of the nodes that run pods, in order.
    ///
    /// # Errors
    /// When a cluster outside does not list them.
    pub async fn node_names(&self) -> Result<Vec<String>> {
        if self.context.is_none() {
            return Ok(self.layout.nodes().into_iter().map(|n| n.name).collect());
        }
        let nodes: Api<Node> = Api::all(self.client().await?);
        let workers = ListParams::default().labels("!node-role.kubernetes.io/control-plane");
        let nodes = nodes.list(&workers).await.context("listing nodes")?;
        Ok(nodes.iter().map(ResourceExt::name_any).collect())
    }

    /// Brings the images of an OCI archive to all nodes. They can be named by tag and by `name@sha256:...`.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let layout = self.own("loading images")?;
        up::on_all_nodes(layout, |n| node::load(layout, n, archive))
    }

    /// Cuts a node's power (1 to 3): its link and every process of it. The API learns of it after 20 s.
    pub fn stop_node(&self, n: u8) -> Result<()> {
        let layout = self.own("cutting a node's power")?;
        node::lose(layout, &layout.node(n)?)
    }

    /// Ends what the other nodes remember of connections to the pods of a stopped node, once nobody is led there any more.
    pub fn forget_pods_of(&self, n: u8) -> Result<()> {
        let layout = self.own("clearing connection tracking")?;
        network::forget_pods_of(layout, &layout.node(n)?)
    }

    /// Brings a stopped node back, and waits until it is Ready.
    pub async fn start_node(&self, n: u8) -> Result<()> {
        let layout = self.own("starting a node")?;
        let node = layout.node(n)?;
        if node::records(layout, &node).iter().any(|r| r.alive()) {
            bail!("{} is running: stop it first", node.name);
        }
        let since = Timestamp::now();
        node::bring_back(layout, &node)?;
        let client = self.client().await?;
        addons::wait_nodes_ready(layout, &client, &[node.name], since, Duration::from_secs(90)).await
    }
}

fn kubeconfig_of_user() -> Result<Kubeconfig> {
    Kubeconfig::read()
        .context("CLUSTER=external reads the kubeconfig that KUBECONFIG names, or ~/.kube/config")
}

async fn client(kubeconfig: Kubeconfig, options: KubeConfigOptions) -> Result<Client> {
    // kube takes whichever provider is the process's; an earlier choice of the caller stands.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
}
