//! `make bench`: speed and size on the running cluster.

use std::process::ExitCode;

use clap::Parser;
use meshwright_e2e::bench::{self, Part};

/// Measures speed and size on the running cluster
#[derive(Parser)]
struct Args {
    /// This part only
    #[arg(env = "PART", hide_env_values = true)]
    part: Option<Part>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(Args::parse().part).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
