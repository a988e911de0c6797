//! The frame every Meshwright process stands in: logs, readiness, shutdown, admin endpoints.
//!
//! ```no_run
//! use std::sync::Arc;
//! use meshwright_runtime::{admin, install_crypto, shutdown::Shutdown, telemetry, Readiness};
//! # use clap::Parser;
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     telemetry: telemetry::Args,
//!     #[command(flatten)]
//!     admin: admin::Args,
//! }
//! # async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
//! install_crypto();
//! let telemetry = telemetry::init("operator", &args.telemetry)?; // lives as long as main
//! let shutdown = Shutdown::on_signals()?;
//! let readiness = Readiness::default();
//! let leases = readiness.guard("lease");
//! let registry = prometheus_client::registry::Registry::default(); // metrics of all parts go here
//! let admin = admin::Admin::new(readiness, Arc::new(registry), telemetry.level());
//! let server = tokio::spawn(admin.serve(args.admin.admin_addr, shutdown.drain()));
//! leases.ready();
//! shutdown.drain().cancelled().await;
//! server.await??;
//! # Ok(()) }
//! ```

pub mod admin;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;

pub use readiness::{Readiness, ReadyGuard};
pub use shutdown::Shutdown;
pub use tokio_util::sync::CancellationToken;

/// Makes aws-lc-rs the process's TLS provider. Call it first in `main`: without a choice rustls panics at the first
/// connection as soon as some dependency links a second provider. Calling it twice is harmless.
pub fn install_crypto() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was already installed");
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct All {
        #[command(flatten)]
        _telemetry: super::telemetry::Args,
        #[command(flatten)]
        _admin: super::admin::Args,
    }

    #[test]
    fn all_arguments_fit_into_one_command() {
        All::command().debug_assert();
    }
}
