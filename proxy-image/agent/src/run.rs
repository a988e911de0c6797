//! Puts the parts together.

use anyhow::Context;
use meshwright_runtime::{CancellationToken, Shutdown, admin::serve, install_crypto, telemetry};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    Args,
    args::memory_limit,
    bootstrap::bootstrap,
    downstream,
    drain::{Phase, drain},
    envoy, http,
    identity::{self, Credentials},
    relay::Relay,
    report::{self, Subject},
    stats::{self, Observed},
    upstream,
};

/// Runs until SIGTERM and the drain after it; any part that fails ends the process, and the kubelet starts it again.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Before anything else: the kernel drops signals that PID 1 has no handler for, the kubelet sends SIGTERM once, and a pod that is
    // deleted while it starts would stay until its grace period ends.
    let shutdown = Shutdown::on_signals()?;
    install_crypto();
    let _telemetry = telemetry::init("agent", &args.telemetry)?;
    serve_until(args, shutdown).await
}

/// [`run`] without process-wide effects.
pub async fn serve_until(args: Args, shutdown: Shutdown) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let phase = watch::Sender::new(Phase::Serving);
    let mut parts = start(&args, &phase, &stop)?;
    tokio::select! {
        // No part ends before it is told to.
        Some(ended) = parts.join_next() => {
            ended.context("run a part of the agent")??;
            anyhow::bail!("a part of the agent ended");
        }
        () = shutdown.drain().cancelled_owned() => {}
    }
    tokio::select! {
        () = drain(&args, &phase) => {}
        () = shutdown.force().cancelled_owned() => {}
    }
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        ended.context("end a part of the agent")??;
    }
    Ok(())
}

fn start(
    args: &Args,
    phase: &watch::Sender<Phase>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let relay = Relay::default();
    let subject = Subject::new(args, phase.subscribe(), relay.clone());
    let (restarts, metrics) = (subject.restarts.clone(), identity::Metrics::default());
    let registry = register(&restarts, &metrics);
    let credentials = Credentials::new(&args.workload, metrics)?;

    let mut parts = JoinSet::new();
    let health = http::Health {
        admin_socket: args.proxy.admin_socket(),
        configured: relay.configured(),
        phase: phase.subscribe(),
        served: subject.served.clone(),
    };
    let metrics = http::metrics(http::Scraped::all(registry, args.proxy.admin_socket()));
    for (router, addr) in [(http::health(health), args.health_addr), (metrics, args.metrics_addr)] {
        let stop = stop.clone();
        parts.spawn(async move { Ok(serve(router, addr, stop).await?) });
    }
    let (socket, from, token) = (args.proxy.xds_socket(), relay.clone(), stop.clone());
    parts.spawn(async move { downstream::serve(&socket, from, token).await });
    let (workload, own, to, token) =
        (args.workload.clone(), credentials.clone(), relay.clone(), stop.clone());
    parts.spawn(async move { identity::run(&workload, &own, &to, token).await });
    let connection = watch::Sender::new(None);
    start_reports(args, subject, connection.subscribe(), stop, &mut parts);
    let (workload, node) = (args.workload.clone(), upstream::gateway(args));
    let (to, token) = (relay.clone(), stop.clone());
    parts.spawn(async move {
        upstream::run(&workload, &node, &credentials, &to, &connection, token).await;
        Ok(())
    });
    let (settings, token) = (args.clone(), stop.clone());
    let written = move || bootstrap(&settings, memory_limit());
    let proxy = args.proxy.clone();
    let restarted = move || {
        restarts.inc();
        relay.envoy_restarted();
    };
    parts.spawn(async move { envoy::supervise(&proxy, written, token, restarted).await });
    Ok(parts)
}

fn register(restarts: &Counter, metrics: &identity::Metrics) -> Registry {
    let mut registry = Registry::with_prefix("meshwright_agent");
    registry.register("envoy_restarts", "How often Envoy ended by itself.", restarts.clone());
    registry.register(
        "certificate_expiry_seconds",
        "End of the certificate, Unix time.",
        metrics.expiry.clone(),
    );
    registry.register("certificate_failures", "Failed requests for a certificate.", metrics.failures.clone());
    registry
}

fn start_reports(
    args: &Args,
    subject: Subject,
    connection: watch::Receiver<Option<Channel>>,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) {
    let sender = watch::Sender::new(Observed::default());
    let observed = sender.subscribe();
    let (socket, restarts, token) = (args.proxy.admin_socket(), subject.restarts.clone(), stop.clone());
    parts.spawn(async move {
        stats::observe(&socket, &restarts, &sender, token).await;
        Ok(())
    });
    let token = stop.clone();
    parts.spawn(async move {
        report::run(subject, observed, connection, token).await;
        Ok(())
    });
}
