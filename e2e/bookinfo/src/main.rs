//! Bookinfo: four small services in one binary, for showing what a mesh does with real requests.
//!
//! `productpage` asks `details` and `reviews`; `reviews` v2 and v3 ask `ratings`. A fifth, `streams`, is for connections that last, and a
//! sixth, `caller`, calls others.

mod args;
mod caller;
mod catalog;
mod client;
mod details;
mod model;
mod page;
mod productpage;
mod propagate;
mod ratings;
mod reviews;
mod serve;
mod session;
mod streams;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Service};
use crate::client::Client;
use crate::model::Pod;

/// How long productpage waits for a backend.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Shorter than productpage's patience, so that reviews can still say that ratings is the one at fault.
const RATINGS_TIMEOUT: Duration = Duration::from_secs(1);

// One thread: the services only wait for each other, and a pod asks for 5m of CPU.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args { listen, pod_name, service } = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stdout().is_terminal()).init();

    let me = Pod { service: service.name().into(), version: service.version().into(), podname: pod_name };
    // Before the socket opens, so that an early SIGTERM is not lost between the two.
    let stop = serve::termination().context("failed to listen for signals")?;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("failed to listen on {listen}"))?;
    // The bound address, because the one asked for may leave the port to the kernel.
    let address = listener.local_addr().context("failed to read the bound address")?;
    tracing::info!(service = me.service, version = me.version, pod = me.podname, %address, "serving");

    let routes = match service {
        Service::Productpage(urls) => productpage::routes(me.clone(), urls, Client::new(PAGE_TIMEOUT)),
        Service::Details => details::routes(me.clone()),
        Service::Reviews { version, ratings_url } => {
            reviews::routes(me.clone(), version, ratings_url, Client::new(RATINGS_TIMEOUT))
        }
        Service::Ratings => ratings::routes(me.clone()),
        Service::Streams => streams::routes(),
        Service::Caller(targets) => caller::routes(targets),
    };
    serve::run(listener, me, routes, stop, serve::Patience::default()).await.context("failed to serve")
}
