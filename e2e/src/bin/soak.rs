//! `make soak`: what must never happen, tried many times.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use meshwright_e2e::soak::{self, Options, parse_time};

/// Runs the rows whose result is missing or older than a file that it depends on.
#[derive(Parser)]
struct Args {
    /// This row only, also when its result still counts
    #[arg(env = "ROW", hide_env_values = true)]
    row: Option<String>,
    /// No repetition begins after this time, such as 30m; the next session goes on there
    #[arg(long, env = "TIME", value_parser = parse_time)]
    time: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { row, time } = Args::parse();
    match soak::run(Options { row: row.filter(|name| !name.is_empty()), time }).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
