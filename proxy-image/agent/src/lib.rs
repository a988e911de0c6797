//! The agent beside Envoy.
//!
//! It starts Envoy with a generated bootstrap ([`bootstrap`], [`envoy`]), gets the workload's certificate and keeps
//! its key in memory ([`identity`]), relays configuration from the control plane ([`relay`], [`upstream`],
//! [`downstream`]), answers probes and scrapes ([`http`]), tells the control plane what clients get ([`stats`], [`report`]) and drains on
//! SIGTERM ([`drain`]). That is a gateway's; [`node`] is the one that serves all pods of a node.

pub mod admin;
pub mod args;
pub mod backoff;
pub mod bootstrap;
pub mod connect;
pub mod downstream;
pub mod drain;
pub mod envoy;
pub mod http;
pub mod identity;
pub mod node;
pub mod relay;
pub mod report;
mod run;
pub mod stats;
pub mod upstream;

pub use args::Args;
pub use run::run;

#[cfg(test)]
mod tests;
