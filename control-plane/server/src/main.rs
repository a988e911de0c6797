//! The control plane of one revision of a mesh: xDS, certificates and Gateway API status.

mod ads;
mod args;
mod certificates;
#[cfg(feature = "faults")]
mod faults;
mod inspection;
mod metrics;
mod nacks;
mod nodes;
mod reports;
mod run;
mod server;
mod serving;
mod snapshots;
mod status;
#[cfg(test)]
mod tests;

use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    meshwright_runtime::install_crypto();
    args::Args::parse().run().await
}
