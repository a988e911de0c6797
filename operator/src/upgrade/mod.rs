//! How a mesh goes from one revision to the next. Everything here is pure: what is seen goes in, what to do comes out.
//!
//! [`machine`] decides the next position of an upgrade, [`routing`] what a position means for the gateways, [`shares`] how many
//! pods a share is, [`preflight`] what stands in the way.

pub mod machine;
pub mod preflight;
pub mod routing;
#[cfg(test)]
mod search;
pub mod settings;
pub mod shares;
pub mod trace;

pub use machine::{Decision, View, next};
pub use settings::Settings;
