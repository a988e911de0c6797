//! `cluster`: the local Kubernetes cluster of this checkout.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use meshwright_e2e::process::Record;
use meshwright_e2e::programs::{FAMILIES, Family};
use meshwright_e2e::{Cluster, Layout, addons, down, lb, prereq, up};

/// A real Kubernetes cluster of three nodes on this machine, without a container engine.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the cluster up; the kubeconfig is target/cluster/kubeconfig
    Up,
    /// Take the cluster away, and everything it left
    Down,
    /// Show processes and nodes
    Status,
    /// Bring the images of OCI archives to all nodes
    Load {
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Bring the echo server of the Gateway API's conformance suite to all nodes
    LoadEcho,
    /// Build the cluster's programs now (all families, or those named)
    BuildPrograms { families: Vec<String> },
    /// Cut the power of a node (1 to 3)
    StopNode { node: u8 },
    /// Bring a stopped node back
    StartNode { node: u8 },
    /// The allocator of load balancer addresses (started by `up`)
    #[command(hide = true)]
    Lb,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    if let Some(context) = Cluster::chosen()?.context() {
        bail!(
            "this is for the checkout's own cluster, and nothing was done: unset CLUSTER and CONTEXT. What `make demo` brought to \
             context {context} goes so, in this order:\n  kubectl --context {context} delete namespace bookinfo\n  \
             kubectl --context {context} delete namespace mesh\n  \
             kubectl --context {context} delete -f target/dist/install.yaml -f target/dist/crds.yaml"
        );
    }
    let layout = Layout::find()?;
    match command {
        Command::Up => {
            let _lock = lock(&layout)?;
            up::up(&layout).await
        }
        Command::Down => {
            prereq::require_root()?;
            let _lock = lock(&layout)?;
            down::down(&layout)
        }
        Command::Status => status(&layout).await,
        Command::Load { archives } => {
            let cluster = Cluster::current()?;
            archives.iter().try_for_each(|archive| cluster.load_image(archive))
        }
        Command::LoadEcho => {
            let cluster = Cluster::current()?;
            addons::echo_archives(&layout)?.iter().try_for_each(|archive| cluster.load_image(archive))
        }
        Command::BuildPrograms { families } if families.is_empty() => {
            prereq::to_build(&layout.root)?;
            FAMILIES.iter().try_for_each(|f| f.build(&layout.root))
        }
        Command::BuildPrograms { families } => {
            families.iter().try_for_each(|name| Family::by_name(name)?.build(&layout.root))
        }
        Command::StopNode { node } => Cluster::current()?.stop_node(node),
        Command::StartNode { node } => Cluster::current()?.start_node(node).await,
        Command::Lb => {
            tracing_subscriber::fmt().with_ansi(false).init();
            let client = Cluster::client_from(&layout.pki().join("lb.kubeconfig")).await?;
            lb::run(layout, client).await
        }
    }
}

/// Held while the cluster changes, so that two calls never meet half of it.
fn lock(layout: &Layout) -> Result<File> {
    let dir = layout.output();
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

async fn status(layout: &Layout) -> Result<()> {
    if !layout.state().exists() {
        println!("down");
        return Ok(());
    }
    for record in Record::all(layout) {
        println!("{:28} {:8} {}", record.name, record.pid, if record.alive() { "running" } else { "ended" });
    }
    if !up::is_up(layout).await {
        println!("not up: `cluster up` cleans and starts again");
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(Cluster::current()?.client().await?);
    for node in nodes.list(&Default::default()).await.context("listing nodes")? {
        let state = if addons::is_ready(&node) { "Ready" } else { "NotReady" };
        println!("{:28} {:8} {state}", node.metadata.name.unwrap_or_default(), "");
    }
    println!("{}", layout.environment());
    Ok(())
}
