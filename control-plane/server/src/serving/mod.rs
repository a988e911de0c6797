//! The port for agents: TLS with our own certificate, and what is known of the peer.

mod authority;
mod connection;
mod identity;

pub use authority::{IssuingCa, IssuingCaFiles, watch_files};
pub use connection::{Peer, accept};
pub use identity::{ServingIdentity, keep_fresh};
