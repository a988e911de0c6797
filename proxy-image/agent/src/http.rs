//! Probes on 15021 and metrics on 15020.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::Method;
use jiff::Timestamp;
use meshwright_runtime::admin::encode_metrics;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{admin, drain::Phase, relay::state::Configured};

/// What the probes look at.
#[derive(Clone)]
pub struct Health {
    /// Envoy's admin socket.
    pub admin_socket: PathBuf,
    /// See [`crate::relay::Relay::configured`].
    pub configured: watch::Receiver<Configured>,
    /// How far the process is.
    pub phase: watch::Receiver<Phase>,
    /// Since when this pod has been ready, if it ever was.
    pub served: Arc<OnceLock<Timestamp>>,
}

/// `/readyz`, `/livez`, `/healthz/lb`.
pub fn health(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/healthz/lb", get(load_balancer))
        .with_state(health)
}

/// What is scraped.
pub struct Scraped {
    /// The agent's own.
    pub registry: Registry,
    /// More of its own, in the same text format.
    pub more: Box<dyn Fn() -> String + Send + Sync>,
    /// Envoy's admin socket.
    pub admin_socket: PathBuf,
    /// What to ask Envoy for.
    pub path: String,
}

impl Scraped {
    /// The agent's own, and all of Envoy's.
    pub fn all(registry: Registry, admin_socket: PathBuf) -> Self {
        Self { registry, more: Box::new(String::new), admin_socket, path: "/stats/prometheus".to_owned() }
    }
}

/// `/metrics`.
pub fn metrics(scraped: Scraped) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(Arc::new(scraped))
}

async fn readyz(State(health): State<Health>) -> Response {
    reply(unready(&health).await)
}

async fn load_balancer(State(health): State<Health>) -> Response {
    // First to fail: load balancers outside of the cluster learn nothing from endpoints.
    let draining = *health.phase.borrow() != Phase::Serving;
    reply(if draining { Some("draining") } else { unready(&health).await })
}

// The control plane's absence is no reason: what Envoy has is right until somebody says otherwise.
async fn unready(health: &Health) -> Option<&'static str> {
    let (phase, configured) = (*health.phase.borrow(), *health.configured.borrow());
    match phase {
        Phase::Ended => Some("stopped"),
        // The endpoints are taken away by the termination itself, not by us. One that never served must not begin with that now.
        Phase::Draining if health.served.get().is_some() => None,
        Phase::Draining => Some("told to end before it could serve"),
        Phase::Serving if configured == Configured::No => Some("awaiting configuration"),
        Phase::Serving if !admin::is_live(&health.admin_socket).await => Some("awaiting envoy"),
        // A new pod must not take traffic from those that can answer. One that serves already goes on: a bad route or
        // certificate reaches all pods at once, and would take the good listeners' traffic away with its own.
        Phase::Serving if configured == Configured::Partly && health.served.get().is_none() => {
            Some("awaiting routes and certificates")
        }
        Phase::Serving => {
            health.served.get_or_init(Timestamp::now);
            None
        }
    }
}

fn reply(unready: Option<&'static str>) -> Response {
    match unready {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn scrape(State(scraped): State<Arc<Scraped>>) -> Response {
    // Envoy speaks the older text format, so ours must not end with OpenMetrics' EOF mark.
    let Ok(mut text) = encode_metrics(&scraped.registry, false) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    text.push_str(&(scraped.more)());
    match admin::request(&scraped.admin_socket, Method::GET, &scraped.path).await {
        Ok((_, body)) => text.push_str(&String::from_utf8_lossy(&body)),
        Err(e) => tracing::debug!(error = %format!("{e:#}"), "scrape envoy"),
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_pod_waits_for_all_that_its_listeners_name_and_a_serving_one_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let admin_socket = dir.path().join("admin.sock");
        let listener = tokio::net::UnixListener::bind(&admin_socket).unwrap();
        let envoy = Router::new().route("/ready", get(|| async { "LIVE" }));
        tokio::spawn(async move { axum::serve(listener, envoy).await });
        let configured = watch::Sender::new(Configured::Partly);
        let phase = watch::Sender::new(Phase::Serving);
        let health = Health {
            admin_socket,
            configured: configured.subscribe(),
            phase: phase.subscribe(),
            served: Arc::default(),
        };
        assert_eq!(unready(&health).await, Some("awaiting routes and certificates"));
        configured.send_replace(Configured::Fully);
        assert_eq!(unready(&health).await, None);
        configured.send_replace(Configured::Partly);
        assert_eq!(unready(&health).await, None, "the other listeners still answer");
        configured.send_replace(Configured::No);
        assert_eq!(unready(&health).await, Some("awaiting configuration"));
        phase.send_replace(Phase::Draining);
        assert_eq!(unready(&health).await, None);
        let never_served = Health { served: Arc::default(), ..health };
        assert_eq!(unready(&never_served).await, Some("told to end before it could serve"));
    }
}
