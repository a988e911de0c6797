//! Decisions of an upgrade that need no cluster: pure functions of what was seen and of the time that is passed in.

pub mod analysis;
pub mod health;
pub mod pairs;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod windows;
