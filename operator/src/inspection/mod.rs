//! What is seen of a mesh while it is upgraded: the operator asks the control planes of both revisions what their proxies
//! report, how they are and what they render, and sends requests of its own. Nothing here decides.

mod client;
pub mod compare;
mod credentials;
pub mod health;
mod memory;
mod observe;
pub mod pairs;
pub mod probe;
mod replica;
pub mod series;
mod traffic;

pub use client::{Error, Mesh};
pub use memory::{Certificates, ProxyKey, SeenProxy};
pub use observe::{Inspector, NotRendered, Observation, Observed, PairScope, Scope};
pub use replica::{Replica, State, replicas};
pub use traffic::Traffic;

#[cfg(test)]
mod tests;
