//! The network plugin, chained after the node's own: a pod of the mesh does not start before its redirection stands.
//!
//! [`run`] is what the container runtime calls for each pod. It asks the node's agent over a unix socket ([`ask`]) and waits until that has
//! captured the pod; while no agent answers, the namespaces that it stored last decide ([`decide`]). It changes nothing itself.

mod ask;
mod call;
mod decide;
mod output;
mod run;
mod wire;

pub use ask::{Reply, ask};
pub use call::{Call, Command, Pod, Settings};
pub use decide::{Decision, decide};
pub use output::{Failure, VERSIONS};
pub use run::run;
pub use wire::{Answer, Namespaces, Request};

/// What the plugin is called: the name of its binary, and its `type` in a node's list.
pub const PLUGIN: &str = "meshwright-cni";
