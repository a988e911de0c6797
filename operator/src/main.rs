//! The operator: owns the life of the mesh that a MeshControlPlane describes.

use clap::Parser;
use meshwright_operator::args::{Cli, Command};

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => meshwright_operator::run::start(cli.run),
        Command::Manifests { what } => {
            print!("{}", meshwright_operator::install::manifests(&what)?);
            Ok(())
        }
    }
}
