//! `make soak`: what must never happen, tried many times. A table of rows ([`table::ROWS`]); each has a seed and repetitions.
//!
//! A finished row is a line in `docs/soak.jsonl` and counts while no file that it depends on has changed. Repetitions are
//! remembered in `target/soak`, so that a session can stop after any of them and the next goes on there.

mod analysis;
mod away;
mod bad_versions;
mod churn;
mod deletion;
mod disturbed;
mod figures;
mod idle;
mod inputs;
mod invariants;
mod kill;
mod leaders;
mod loss;
mod mesh;
mod node_proxies;
mod observe;
mod operator;
mod random;
mod record;
mod rollout;
mod session;
mod table;
mod time;
mod under_load;
mod uninstall;
mod untouched;
mod upgrade;
mod with_members;

pub use bad_versions::{knows, told};
pub use mesh::{OPERATOR_NAMESPACE, absent, apply, at, installed, meshes, namespaces, operator, restored};
pub use node_proxies::have_risen;
pub use observe::settled;
pub use session::{Options, once, run};
pub use table::{Action, Target, What};
pub use time::parse as parse_time;
pub use under_load::NAMESPACE;
pub use untouched::to_mesh;
pub use with_members::with_members;
