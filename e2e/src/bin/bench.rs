//! `make bench`: speed and size on the running cluster.

use std::process::ExitCode;

use meshwright_e2e::bench;

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
