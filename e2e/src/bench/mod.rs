//! `make bench`: the figures of the design's bars, as lines `name: value unit`, printed and written to `target/bench.txt`.
//! Nothing here fails because something is slow.

mod crowd;
mod memory;
mod paths;
mod percentile;
mod probe;
mod report;
mod routes;
mod shot;
mod static_envoys;
mod upgrade;

use std::time::Instant;

use anyhow::Result;

pub use percentile::percentile;
use report::Report;

use crate::product::{self, Dist, RELEASES, workspace};
use crate::testing::{Backend, DEADLINE, Env, MESH, condition};
use crate::{Cluster, soak};

/// Namespace of the Gateway and the routes; it goes with the benchmark.
const NAMESPACE: &str = "bench";
/// Routes that are added one at a time.
const ONE_BY_ONE: usize = 300;
/// Routes that are applied together.
const TOGETHER: usize = 1000;

/// Measures all of it, or this part only. The mesh is installed anew.
///
/// # Errors
/// Names what could not be measured; what was measured before is written all the same.
pub async fn run(part: Option<Part>) -> Result<()> {
    let cluster = Cluster::chosen()?.disposable().await?;
    let dist = product::installed(&cluster).await?;
    let env = Env::connect().await?;
    let mut report = Report::default();
    let outcome = measure(&env, &dist, part, &mut report).await;
    report.write(&workspace().join("target/bench.txt"))?;
    outcome?;
    for namespace in [NAMESPACE, paths::INSIDE, paths::OUTSIDE, crowd::NAMESPACE] {
        if soak::namespaces(&env).get_opt(namespace).await?.is_some() {
            env.delete_namespace(namespace).await?;
        }
    }
    Ok(())
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Upgrades, the install, and routes of a Gateway.
    Gateways,
    /// What the mesh adds to requests.
    Paths,
    /// Memory of a node's proxy.
    Memory,
}

async fn measure(env: &Env, dist: &Dist, part: Option<Part>, report: &mut Report) -> Result<()> {
    let is_wanted = |one: Part| part.is_none_or(|part| part == one);
    if is_wanted(Part::Gateways) {
        gateways(env, dist, report).await?;
    } else {
        soak::at(env, RELEASES[1]).await?;
    }
    if is_wanted(Part::Paths) {
        paths::measure(env, dist, report).await?;
    }
    if is_wanted(Part::Memory) {
        crowd::measure(env, report).await?;
    }
    Ok(())
}

async fn gateways(env: &Env, dist: &Dist, report: &mut Report) -> Result<()> {
    for image in dist.images() {
        report.add(&format!("image {} {}", image.name, image.tag), image.bytes as f64 / 1e6, "MB");
    }
    upgrade::measure(env, report).await?;
    install(env, report).await?;
    let backend = Backend::installed(env, NAMESPACE).await?;
    memory::measure(env, "before the routes", report).await?;
    routes::one_by_one(env, &backend, ONE_BY_ONE, report).await?;
    routes::together(env, &backend, TOGETHER, report).await?;
    memory::measure(env, "after the routes", report).await?;
    // What comes next is not about a Gateway with a thousand routes.
    env.delete_namespace(NAMESPACE).await
}

/// From `kubectl apply` of a MeshControlPlane to Ready, with the images on the nodes and no mesh before.
async fn install(env: &Env, report: &mut Report) -> Result<()> {
    soak::absent(env).await?;
    let start = Instant::now();
    soak::apply(env).await?;
    condition(&soak::meshes(env), MESH, "Ready", "True", DEADLINE * 2).await?;
    report.add("MeshControlPlane applied to Ready", start.elapsed().as_secs_f64(), "s");
    Ok(())
}
