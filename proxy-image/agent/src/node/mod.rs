//! The agent of a node's proxy, beside one Envoy for all pods of the node.
//!
//! The control plane says which pods are to be in the mesh ([`follow`]). [`keep`] decides what that takes, step by step, and [`driver`] does it:
//! it finds each pod's network namespace ([`find`], or our network plugin told it: [`plugin`]), has a certificate for its identity
//! ([`certificates`]), has Envoy listen in the namespace, sets the rules that redirect its connections ([`rules`], [`nft`]), and reports it.
//! Two revisions' agents can be on a node; [`claim`] and [`duty`] say who acts. Envoy runs in a container of its own ([`envoy`]).

mod admission;
pub mod args;
mod blackhole;
mod bootstrap;
mod certificates;
mod claim;
mod driver;
mod duty;
pub mod envoy;
mod farewell;
mod find;
mod follow;
mod hands;
mod health;
mod keep;
mod metrics;
mod naming;
mod netns;
mod nft;
mod plugin;
mod probe;
mod rules;
mod run;
mod sockets;
mod store;
mod takers;
mod traffic;
mod wallet;

pub use run::{run, serve_until};

#[cfg(test)]
mod lab;
#[cfg(test)]
mod tests;
