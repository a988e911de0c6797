//! `make soak`: what must never happen, tried many times.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use meshwright_e2e::soak::{self, Options, parse_time};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

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
    let run = soak::run(Options { row: row.filter(|name| !name.is_empty()), time });
    // Dropped, it takes its loads with it; they would go on for an hour, under whatever is measured next.
    let outcome = tokio::select! {
        outcome = run => outcome,
        told = told_to_end() => told,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Never anything but an error.
async fn told_to_end() -> Result<bool> {
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = ctrl_c() => interrupted.context("listen for SIGINT")?,
    }
    bail!("told to end; repetitions that ended before are recorded")
}
