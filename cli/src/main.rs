//! `kubectl mesh`: shows a mesh, finds what is wrong with it and steers its upgrades.
//!
//! Everything shown comes from the public API; everything changed is `spec.upgrade.paused` or an annotation of the
//! MeshControlPlane. `client` and `gather` talk to the API server; all else is pure.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod check;
mod client;
mod completion;
mod describe;
#[cfg(test)]
mod fixtures;
mod gather;
mod members;
mod output;
mod run;
mod status;
mod steer;
mod upgrade;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run::run(args::Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // What could not be seen or done is not what went wrong with the mesh.
            ExitCode::from(2)
        }
    }
}
