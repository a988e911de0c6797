//! Shutdown in two phases: drain on the first signal, stop waiting on the second.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two tokens that end a process.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    force: CancellationToken,
}

/// Signal handlers could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("install handler for signal {name}")]
pub struct SignalError {
    name: &'static str,
    source: std::io::Error,
}

impl Shutdown {
    /// Watches SIGTERM and SIGINT. Must be called within a tokio runtime.
    pub fn on_signals() -> Result<Self, SignalError> {
        let mut term =
            signal(SignalKind::terminate()).map_err(|source| SignalError { name: "SIGTERM", source })?;
        let mut int =
            signal(SignalKind::interrupt()).map_err(|source| SignalError { name: "SIGINT", source })?;
        let shutdown = Self::default();
        let tokens = shutdown.clone();
        tokio::spawn(async move {
            for (token, what) in [(tokens.drain, "draining"), (tokens.force, "stopping at once")] {
                tokio::select! {
                    _ = term.recv() => tracing::info!(signal = "SIGTERM", what),
                    _ = int.recv() => tracing::info!(signal = "SIGINT", what),
                }
                token.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Cancelled at the first signal: take no new work, finish what is under way.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Cancelled at the second signal: wait for nothing any more.
    pub fn force(&self) -> CancellationToken {
        self.force.clone()
    }
}
