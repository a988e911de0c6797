//! The behaviours that the conformance suite asks for, and some that it forgets. One file per subject.

mod connections;
mod fixtures;
mod gateways;
mod incremental;
mod properties;
mod rejected;
mod routes;
mod services;
