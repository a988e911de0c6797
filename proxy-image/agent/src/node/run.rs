//! Puts the parts of a node's agent together.

use anyhow::Context;
use meshwright_proto::nodes::NodeReport;
use meshwright_runtime::{CancellationToken, Shutdown, admin::serve, install_crypto, telemetry};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use super::{
    args::Args,
    certificates,
    driver::{self, Driver},
    follow::{self, Heard},
    health,
    metrics::Metrics,
    netns,
    traffic::{self, Traffic},
    wallet::Wallet,
};
use crate::{
    args::{admin_socket, xds_socket},
    downstream, http,
    identity::{self, Credentials},
    relay::{Relay, pods::Pods},
    upstream,
};

/// Runs until SIGTERM, and then until nothing is left to do on the node; any part that fails ends the process, and the kubelet starts it again.
///
/// # Errors
/// When a part cannot be started, or ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    install_crypto();
    let _telemetry = telemetry::init("node-agent", &args.telemetry)?;
    serve_until(args, shutdown).await
}

/// [`run`] without process-wide effects.
///
/// # Errors
/// As there.
pub async fn serve_until(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut parts, driver) = start(&args, &stop, shutdown.drain())?;
    let ended = tokio::select! {
        ended = driver.run(shutdown.drain()) => ended.context("keep the pods of this node"),
        // No other part ends before it is told to.
        Some(ended) = parts.join_next() => {
            ended.context("run a part of the agent").and_then(|ended| ended).and_then(|()| anyhow::bail!("a part of the agent ended"))
        }
        () = shutdown.force().cancelled_owned() => Ok(()),
    };
    stop.cancel();
    ended?;
    while let Some(ended) = parts.join_next().await {
        ended.context("end a part of the agent")??;
    }
    Ok(())
}

type Parts = JoinSet<anyhow::Result<()>>;

fn start(
    args: &Args,
    stop: &CancellationToken,
    ending: CancellationToken,
) -> anyhow::Result<(Parts, Driver)> {
    let ipv4_only = netns::lacks_ipv6();
    if ipv4_only {
        tracing::info!("this kernel has no IPv6, the proxy listens and connects over IPv4 only");
    }
    let relay = Relay::of_node(Pods::default().for_ipv4_only(ipv4_only));
    let (metrics, own) = (Metrics::default(), identity::Metrics::default());
    let registry = metrics.registry(&own, &relay.restarts());
    let credentials = Credentials::own(&args.workload, args.id()?, own)?;
    let (heard, listed) = (watch::Sender::new(Heard::default()), watch::Sender::default());
    let (certified, wanted) = (watch::Sender::default(), watch::Sender::default());
    let (node, revision) = (args.place.node_name.clone(), args.workload.revision.clone());
    let report = watch::Sender::new(NodeReport { node, revision, ..NodeReport::default() });
    let (connection, wallet) = (watch::Sender::new(None), Wallet::default());

    let mut parts = Parts::new();
    let health = health::Health {
        admin_socket: admin_socket(&args.run_dir),
        configured: relay.configured(),
        heard: heard.subscribe(),
    };
    let traffic = watch::Sender::new(Traffic::default());
    let scrape = http::metrics(http::Scraped {
        registry,
        more: table(&traffic),
        admin_socket: admin_socket(&args.run_dir),
        path: traffic::scrape_path(),
    });
    for (router, addr) in [(health::router(health), args.health_addr), (scrape, args.metrics_addr)] {
        let stop = stop.clone();
        parts.spawn(async move { Ok(serve(router, addr, stop).await?) });
    }
    observe(args, &relay, traffic, connection.subscribe(), stop, &mut parts);
    let certificates = certificates::Outlets {
        wanted: wanted.subscribe(),
        certified: certified.clone(),
        connection: connection.subscribe(),
        failures: metrics.certificate_failures.clone(),
        wallet: wallet.clone(),
    };
    let follow = follow::Outlets { report: report.subscribe(), heard: heard.clone(), listed: listed.clone() };
    let outlets = driver::Outlets {
        heard: heard.subscribe(),
        listed: listed.subscribe(),
        certified: certified.subscribe(),
        wanted,
        report,
        wallet,
    };
    // First of all: what it knows of the process before keeps Envoy's listeners where they are.
    let driver = Driver::new(args, &relay, outlets, metrics)?;

    let (to, connected, token) = (relay.clone(), connection.subscribe(), stop.clone());
    parts.spawn(async move {
        tokio::join!(
            certificates::run(certificates, &to, token.clone()),
            follow::run(follow, connected, ending, token)
        );
        Ok(())
    });
    let (socket, from, token) = (xds_socket(&args.run_dir), relay.clone(), stop.clone());
    parts.spawn(async move { downstream::serve(&socket, from, token).await });
    let (workload, own, to, token) =
        (args.workload.clone(), credentials.clone(), relay.clone(), stop.clone());
    parts.spawn(async move { identity::run(&workload, &own, &to, token).await });
    let (workload, node, token) = (args.workload.clone(), args.node(), stop.clone());
    parts.spawn(async move {
        upstream::run(&workload, &node, &credentials, &relay, &connection, token).await;
        Ok(())
    });
    Ok((parts, driver))
}

/// What Prometheus gets of the traffic.
fn table(traffic: &watch::Sender<Traffic>) -> Box<dyn Fn() -> String + Send + Sync> {
    let traffic = traffic.subscribe();
    Box::new(move || traffic.borrow().table.text())
}

/// Looks at the traffic, and tells the control plane.
fn observe(
    args: &Args,
    relay: &Relay,
    traffic: watch::Sender<Traffic>,
    connection: watch::Receiver<Option<Channel>>,
    stop: &CancellationToken,
    parts: &mut Parts,
) {
    let (subject, observed) = (traffic::report::Subject::new(args, relay), traffic.subscribe());
    let token = stop.clone();
    parts.spawn(async move {
        traffic::report::run(subject, observed, connection, token).await;
        Ok(())
    });
    let (socket, restarts, token) = (admin_socket(&args.run_dir), relay.restarts(), stop.clone());
    parts.spawn(async move {
        traffic::observe(&socket, &restarts, &traffic, token).await;
        Ok(())
    });
}
