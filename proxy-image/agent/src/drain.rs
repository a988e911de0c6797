//! Leaving without refusing anybody.
//!
//! SIGTERM comes while load balancers still send connections here: for the drain delay nothing changes but
//! `/healthz/lb`. Then Envoy ends its connections one by one (`Connection: close`, GOAWAY) and still accepts new ones
//! (`skip_exit` leaves the listeners open), so a client that learns late is served too. Only then it exits.

use std::{path::Path, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{Args, admin};

/// How far the process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No signal yet.
    #[default]
    Serving,
    /// SIGTERM came; until Envoy is told to quit.
    Draining,
    /// Envoy is about to go.
    Ended,
}

/// Returns when nobody is connected any more, or at the deadline.
pub async fn drain(args: &Args, phase: &watch::Sender<Phase>) {
    phase.send_replace(Phase::Draining);
    tracing::info!(delay = ?args.drain_delay, deadline = ?args.drain_deadline, "draining");
    tokio::time::sleep(args.drain_delay).await;
    let socket = args.admin_socket();
    match admin::post(&socket, "/drain_listeners?graceful&skip_exit").await {
        Ok(()) => wait_for_connections(&socket, args.drain_deadline).await,
        Err(e) => tracing::warn!(error = %format!("{e:#}"), "drain envoy's listeners"),
    }
    phase.send_replace(Phase::Ended);
}

async fn wait_for_connections(socket: &Path, deadline: Duration) {
    let end = Instant::now() + deadline;
    // Twice in a row, so that a client between two connections is not taken for gone.
    let mut quiet = 0;
    while quiet < 2 {
        if Instant::now() >= end {
            tracing::warn!("connections are left at the drain deadline");
            return;
        }
        tokio::time::sleep(Duration::from_millis(250).min(deadline)).await;
        match admin::active_connections(socket).await {
            Ok(0) => quiet += 1,
            Ok(_) => quiet = 0,
            Err(e) => {
                tracing::warn!(error = %format!("{e:#}"), "count connections");
                return;
            }
        }
    }
}
