//! Leaving without refusing anybody.
//!
//! SIGTERM comes while load balancers still send connections here. From then on Envoy ends its connections one by one (`Connection: close`,
//! GOAWAY), so that clients come back elsewhere within a request or two, and still accepts new ones (`skip_exit` leaves the listeners open):
//! for the drain delay at least, and then until the connections are gone, so that a client that learns late is served too. Only then it exits.

use std::{path::Path, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{Args, admin};

/// A connection on which nobody asked for anything for this long is kept by a pool, not by a user. Envoy closes it with
/// its next response, which may never come; waiting for that would hold each pod until the deadline.
const IDLE: Duration = Duration::from_secs(15);

/// So many questions in a row without an answer, and there is no Envoy any more.
const SILENT: u32 = 5;

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

/// Returns when nobody is connected any more, or only idle connections are left, or at the deadline; but not before the drain delay is over.
pub async fn drain(args: &Args, phase: &watch::Sender<Phase>) {
    phase.send_replace(Phase::Draining);
    tracing::info!(delay = ?args.drain_delay, deadline = ?args.proxy.drain_deadline, "draining");
    let socket = args.proxy.admin_socket();
    let (told, ()) = tokio::join!(tell_envoy(&socket), tokio::time::sleep(args.drain_delay));
    // An Envoy that was just starting did not hear it, and may be up by now.
    if told || tell_envoy(&socket).await {
        wait_for_connections(&socket, args.proxy.drain_deadline).await;
    }
    phase.send_replace(Phase::Ended);
}

async fn tell_envoy(socket: &Path) -> bool {
    match admin::post(socket, "/drain_listeners?graceful&skip_exit").await {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!(error = %format!("{e:#}"), "drain envoy's listeners");
            false
        }
    }
}

async fn wait_for_connections(socket: &Path, deadline: Duration) {
    let end = Instant::now() + deadline;
    let (mut last, mut since, mut silent) = (admin::Traffic::default(), Instant::now(), 0);
    loop {
        if Instant::now() >= end {
            tracing::warn!(?last, "connections are left at the drain deadline");
            return;
        }
        tokio::time::sleep(Duration::from_millis(250).min(deadline)).await;
        let now = match admin::traffic(socket).await {
            Ok(now) => now,
            // An Envoy that is busy says nothing for a while, and its connections live on.
            Err(e) => {
                silent += 1;
                tracing::warn!(error = %format!("{e:#}"), silent, "count connections");
                if silent >= SILENT {
                    return;
                }
                continue;
            }
        };
        silent = 0;
        // Twice in a row, so that a client between two connections is not taken for gone.
        if now.connections == 0 && last == now {
            return;
        }
        if now.requests != last.requests || now.active_requests > 0 {
            since = Instant::now();
        } else if since.elapsed() >= IDLE {
            tracing::info!(connections = now.connections, "idle connections are closed");
            return;
        }
        last = now;
    }
}
