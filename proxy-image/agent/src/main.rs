//! PID 1 of a proxy pod: Envoy's bootstrap, identity, configuration, health and drain.

use clap::Parser;
use meshwright_agent::{Args, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse()).await
}
