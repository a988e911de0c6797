//! Our network plugin on this node: installed, kept there, asked, and taken away again.

pub mod conflist;
pub mod install;
pub mod server;
