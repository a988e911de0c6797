//! Probes of a node's agent.

use std::path::PathBuf;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::watch;

use super::follow::Heard;
use crate::{admin, relay::state::Configured};

/// What the probes look at.
#[derive(Clone)]
pub struct Health {
    /// Envoy's admin socket.
    pub admin_socket: PathBuf,
    /// See [`crate::relay::Relay::configured`].
    pub configured: watch::Receiver<Configured>,
    /// What the control plane said about the node.
    pub heard: watch::Receiver<Heard>,
}

/// `/readyz`, `/livez`.
pub fn router(health: Health) -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(readyz)).with_state(health)
}

async fn readyz(State(health): State<Health>) -> Response {
    match unready(&health).await {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

// The control plane's absence is no reason, once it has said what to do. Nor is a pod that cannot be captured: that is the pod's trouble.
async fn unready(health: &Health) -> Option<&'static str> {
    let (heard, configured) = (health.heard.borrow().order.is_some(), *health.configured.borrow());
    match configured {
        _ if !heard => Some("awaiting the control plane's word on this node"),
        Configured::No => Some("awaiting configuration"),
        _ if !admin::is_live(&health.admin_socket).await => Some("awaiting envoy"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn it_is_ready_when_it_could_capture_pods() {
        let dir = tempfile::tempdir().unwrap();
        let admin_socket = dir.path().join("admin.sock");
        let (configured, heard) = (watch::Sender::new(Configured::No), watch::Sender::new(Heard::default()));
        let health = Health {
            admin_socket: admin_socket.clone(),
            configured: configured.subscribe(),
            heard: heard.subscribe(),
        };
        assert_eq!(unready(&health).await, Some("awaiting the control plane's word on this node"));
        heard.send_replace(Heard { order: Some(Arc::default()), live_since: None });
        assert_eq!(unready(&health).await, Some("awaiting configuration"));
        configured.send_replace(Configured::Partly);
        assert_eq!(unready(&health).await, Some("awaiting envoy"));
        let listener = tokio::net::UnixListener::bind(&admin_socket).unwrap();
        let envoy = Router::new().route("/ready", get(|| async { "LIVE" }));
        tokio::spawn(async move { axum::serve(listener, envoy).await });
        assert_eq!(unready(&health).await, None);
    }
}
