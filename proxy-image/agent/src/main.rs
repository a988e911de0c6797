//! PID 1 of a proxy's containers: a gateway's agent with its Envoy, or one half of a node's proxy.

use std::ffi::OsString;

use clap::Parser;
use meshwright_agent::{Args, node, run};

/// Which part of the mesh this container is.
#[derive(Parser)]
#[command(name = "agent", about = "Runs and configures the Envoys of Meshwright")]
enum Part {
    /// A gateway: agent and Envoy
    Gateway(Args),
    /// A node's proxy: its agent
    Node(node::args::Args),
    /// A node's proxy: its Envoy
    Envoy(node::args::EnvoyArgs),
}

// It mostly waits, also where a node has a hundred cores.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Part::parse_from(named(std::env::args_os().collect())) {
        Part::Gateway(args) => run(args).await,
        Part::Node(args) => node::run(args).await,
        Part::Envoy(args) => node::envoy::run(args).await,
    }
}

/// Without a part it is a gateway, as it was when there was nothing else: pods of that time are still made from their templates.
fn named(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let first = arguments.get(1).map(|first| first.to_string_lossy().into_owned());
    let asks = |first: &str| ["-h", "--help", "-V", "--version"].contains(&first);
    if first.is_none_or(|first| first.starts_with('-') && !asks(&first)) {
        arguments.insert(1.min(arguments.len()), "gateway".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(arguments: &[&str]) -> Vec<OsString> {
        named(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn a_container_that_names_no_part_is_a_gateway() {
        assert_eq!(part(&["agent"]), ["agent", "gateway"]);
        assert_eq!(part(&["agent", "--pod-name", "x"]), ["agent", "gateway", "--pod-name", "x"]);
        for kept in [
            &["agent", "node"][..],
            &["agent", "envoy", "--slot", "A"],
            &["agent", "gateway"],
            &["agent", "--help"],
        ] {
            assert_eq!(part(kept), kept);
        }
    }
}
