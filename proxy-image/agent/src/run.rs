//! Puts the parts together.

use std::sync::Arc;

use anyhow::Context;
use meshwright_runtime::{CancellationToken, Shutdown, admin::serve, install_crypto, telemetry};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Args, downstream,
    drain::{Phase, drain},
    envoy, http,
    identity::{self, Credentials},
    relay::Relay,
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
    let mut registry = Registry::with_prefix("meshwright_agent");
    let restarts = Counter::<u64>::default();
    registry.register("envoy_restarts", "How often Envoy ended by itself.", restarts.clone());
    let metrics = identity::Metrics::default();
    registry.register(
        "certificate_expiry_seconds",
        "End of the certificate, Unix time.",
        metrics.expiry.clone(),
    );
    registry.register("certificate_failures", "Failed requests for a certificate.", metrics.failures.clone());
    let credentials = Credentials::new(args, metrics)?;

    let mut parts = JoinSet::new();
    let health = http::Health {
        admin_socket: args.admin_socket(),
        configured: relay.configured(),
        phase: phase.subscribe(),
        served: Arc::default(),
    };
    let metrics = http::metrics(registry, args.admin_socket());
    for (router, addr) in [(http::health(health), args.health_addr), (metrics, args.metrics_addr)] {
        let stop = stop.clone();
        parts.spawn(async move { Ok(serve(router, addr, stop).await?) });
    }
    let (socket, from, token) = (args.xds_socket(), relay.clone(), stop.clone());
    parts.spawn(async move { downstream::serve(&socket, from, token).await });
    let (settings, own, to, token) = (args.clone(), credentials.clone(), relay.clone(), stop.clone());
    parts.spawn(async move {
        identity::run(&settings, &own, &to, token).await;
        Ok(())
    });
    let (settings, to, token) = (args.clone(), relay.clone(), stop.clone());
    parts.spawn(async move {
        upstream::run(&settings, &credentials, &to, token).await;
        Ok(())
    });
    let (settings, token) = (args.clone(), stop.clone());
    let restarted = move || {
        restarts.inc();
        relay.envoy_restarted();
    };
    parts.spawn(async move { envoy::supervise(&settings, token, restarted).await });
    Ok(parts)
}
