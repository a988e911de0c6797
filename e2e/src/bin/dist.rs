//! `make dist`: writes `target/dist`.

use anyhow::Result;
use clap::Parser;
use meshwright_e2e::product;

/// Builds images and install files.
#[derive(Parser)]
struct Args {
    /// Prefix of every image reference, such as registry.example.com/mesh
    #[arg(long)]
    registry: String,
    /// Name of a pull secret for every pod; may be repeated
    #[arg(long)]
    pull_secret: Vec<String>,
}

fn main() -> Result<()> {
    let Args { registry, pull_secret } = Args::parse();
    let dist = product::build(&registry, &pull_secret)?;
    println!("{}: crds.yaml install.yaml bookinfo.yaml push.sh", dist.folder.display());
    for image in dist.images() {
        println!("  {} ({:.1} MB)", image.reference, image.bytes as f64 / 1e6);
    }
    Ok(())
}
