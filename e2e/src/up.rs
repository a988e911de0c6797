//! Bringing a cluster up: every step once, timed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;

use crate::command::run;
use crate::layout::{Layout, NodeLayout};
use crate::process::{Daemon, Record};
use crate::programs::FAMILIES;
use crate::{Cluster, addons, cgroup, control_plane, down, network, node, pki, prereq, programs};

/// Brings the cluster up, or says that it is up. What a crash left is removed first.
pub async fn up(layout: &Layout) -> Result<()> {
    let whole = Instant::now();
    prereq::require_root()?;
    if is_up(layout).await {
        link_kubectl(layout)?;
        println!("already up: {}", layout.environment());
        return Ok(());
    }
    step("prerequisites", || prereq::check(&layout.root))?;
    step("programs", || FAMILIES.iter().filter(|f| f.cluster).try_for_each(|f| f.build(&layout.root)))?;
    if layout.state().exists() {
        step("removing what an earlier run left", || down::down(layout))?;
    }
    let archives = step("images", || addons::image_archives(layout))?;
    step("certificates", || {
        prepare(layout)?;
        pki::make(layout)
    })?;
    step("etcd and API server started", || {
        network::make_bridge(layout)?;
        control_plane::start_api(layout)
    })?;
    step("containerd on all nodes, images loaded", || {
        on_all_nodes(layout, |n| start_node(layout, n, &archives))
    })?;

    let start = Instant::now();
    let client = Cluster::client_from(&layout.pki().join("admin.kubeconfig")).await?;
    control_plane::start_controllers(layout, &client).await?;
    addons::register_nodes(layout, &client).await?;
    done("API server ready", start);
    step("kubelets and kube-proxies started", || {
        on_all_nodes(layout, |n| node::start_kubernetes(layout, n))
    })?;
    step("CoreDNS and metrics-server applied", || addons::apply(layout))?;
    start_lb(layout)?;

    let start = Instant::now();
    let names: Vec<String> = layout.nodes().into_iter().map(|n| n.name).collect();
    addons::wait_nodes_ready(layout, &client, &names, Timestamp::MIN, Duration::from_secs(90)).await?;
    done("nodes ready", start);
    let start = Instant::now();
    addons::wait_dns(&client, Duration::from_secs(90)).await?;
    done("CoreDNS ready", start);

    fs::copy(layout.pki().join("admin.kubeconfig"), layout.kubeconfig()).context("writing the kubeconfig")?;
    link_kubectl(layout)?;
    fs::write(layout.up_marker(), b"").context("marking the cluster as up")?;
    println!("up in {:.1} s: {}", whole.elapsed().as_secs_f64(), layout.environment());
    Ok(())
}

/// Users get the cluster's own kubectl: the machine need not have one, or one of that version.
fn link_kubectl(layout: &Layout) -> Result<()> {
    let link = layout.kubectl();
    let dir = link.parent().context("kubectl's path has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    // It may be there, of another version.
    let _ = fs::remove_file(&link);
    symlink(programs::path(&layout.root, "kubectl")?, &link)
        .with_context(|| format!("linking {}", link.display()))
}

/// Whether `up` ended well and the control plane still runs. Nodes may be stopped: tests do that.
pub async fn is_up(layout: &Layout) -> bool {
    let alive = |name: &&str| Record::load(layout, name).is_some_and(|r| r.alive());
    if !layout.up_marker().exists()
        || !layout.kubeconfig().exists()
        || !control_plane::DAEMONS.iter().all(alive)
    {
        return false;
    }
    match Cluster::client_from(&layout.kubeconfig()).await {
        Ok(client) => control_plane::is_ready(&client).await,
        Err(_) => false,
    }
}

fn prepare(layout: &Layout) -> Result<()> {
    layout.claim()?;
    for dir in [layout.namespaces(), layout.logs()] {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    // Old logs and audit entries would be taken for those of this cluster.
    for entry in fs::read_dir(layout.logs()).context("reading the folder of logs")?.flatten() {
        let _ = fs::remove_file(entry.path());
    }
    for entry in fs::read_dir(layout.output()).context("reading the output folder")?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("audit") {
            let _ = fs::remove_file(entry.path());
        }
    }
    // A file can hold a mount namespace only on a mount that is private.
    let ns = layout.namespaces();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=0700", "tmpfs"]).arg(&ns))?;
    run(Command::new("mount").arg("--make-private").arg(&ns))?;
    cgroup::make_tracking(&layout.host_cgroup())
}

fn start_node(layout: &Layout, node: &NodeLayout, archives: &[PathBuf]) -> Result<()> {
    node::make(layout, node)?;
    node::start_containerd(layout, node)?;
    archives.iter().try_for_each(|archive| node::load(layout, node, archive))
}

/// The allocator is this program again.
fn start_lb(layout: &Layout) -> Result<()> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let env = vec![("MESHWRIGHT_E2E_ROOT".to_owned(), layout.root.display().to_string())];
    Daemon { name: "lb".into(), program, args: vec!["lb".into()], node: None, env }.start(layout).map(drop)
}

/// Runs a step for all nodes at once and reports every failure.
pub fn on_all_nodes(layout: &Layout, step: impl Fn(&NodeLayout) -> Result<()> + Sync) -> Result<()> {
    let nodes = layout.nodes();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(|| step(node))).collect();
        let results = threads.into_iter().zip(&nodes).map(|(thread, node)| match thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{}: {error:#}", node.name)),
            Err(_) => Some(format!("{}: the step panicked", node.name)),
        });
        results.flatten().collect()
    });
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}

fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let value = run().with_context(|| format!("step `{what}`"))?;
    done(what, start);
    Ok(value)
}

fn done(what: &str, start: Instant) {
    println!("{:6.1} s  {what}", start.elapsed().as_secs_f64());
}
