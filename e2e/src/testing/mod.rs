//! What the end-to-end tests share: objects from YAML, waiting with a deadline, HTTP, load, and what is kept of a failure.

mod apply;
mod audit;
mod backend;
mod disruption;
mod env;
mod http;
mod keep;
mod load;
mod wait;

pub use apply::{apply_yaml, delete_yaml, objects_in, refusal_of};
pub use audit::{Audit, Write};
pub use backend::Backend;
pub use disruption::{Loads, RATE, active_revision, drain, holder, rolled_out, uncordon};
pub use env::{DEADLINE, Env, MESH, MESH_YAML, file};
pub use http::{Answer, get, get_with_headers};
pub use keep::{keep, with_namespace};
pub use load::{Load, LoadReport, ensure_oha};
pub use wait::{condition, eventually, exists};
