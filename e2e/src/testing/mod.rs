//! What the end-to-end tests share: objects from YAML, waiting with a deadline, HTTP, load, and what is kept of a failure.

mod apply;
mod approver;
mod attempt;
mod audit;
mod backend;
mod disruption;
mod env;
mod http;
mod keep;
mod load;
mod plugin;
mod streams;
mod traffic;
mod upgrade;
mod wait;

pub use apply::{apply_yaml, delete_yaml, objects_in, refusal_of};
pub use approver::Approver;
pub use attempt::{Attempt, is_ending, is_warm};
pub use audit::{Audit, Write};
pub use backend::Backend;
pub use disruption::{Loads, RATE, active_revision, drain, holder, rolled_out, uncordon};
pub use env::{DEADLINE, Env, IN_PLACE, MESH, MESH_YAML, file};
pub use http::{Answer, get, get_with_headers};
pub use keep::{keep, with_namespace};
pub use load::{Load, LoadReport, ensure_oha};
pub use plugin::{Plugin, Said};
pub use streams::{End, Kind, Stream, Streams};
pub use traffic::{out_of_service, revisions_behind};
pub use upgrade::{LONGEST, QUICK, ask, follow, mesh_yaml, status, user, watched, wish};
pub use wait::{condition, eventually, exists};
