//! What the end-to-end tests share: objects from YAML, waiting with a deadline, HTTP, load, and what is kept of a failure.

mod apply;
mod approver;
mod attempt;
mod audit;
mod backend;
mod capture;
mod disruption;
mod env;
mod http;
mod inside;
mod keep;
mod load;
mod many;
mod members;
mod metrics;
mod node_proxies;
mod node_proxy;
mod on_node;
mod plugin;
mod policies;
mod probes;
mod processes;
mod streams;
mod traffic;
mod upgrade;
mod wait;

pub use apply::{apply_yaml, delete_yaml, objects_in, refusal_of};
pub use approver::Approver;
pub use attempt::{Attempt, is_ending, is_warm};
pub use audit::{Audit, Write};
pub use backend::Backend;
pub use capture::{Capture, Seen};
pub use disruption::{Loads, RATE, active_revision, drain, holder, rolled_out, uncordon};
pub use env::{DEADLINE, Env, IN_PLACE, MESH, MESH_YAML, file};
pub use http::{Answer, get, get_on_socket, get_with_headers};
pub use inside::{Inside, Open};
pub use keep::{keep, keep_all, with_namespace};
pub use load::{Load, LoadReport, ensure_oha};
pub use many::Many;
pub use members::{Called, Calls, Installed, MARKER, Members, are_listed, join, pods_of};
pub use metrics::sum;
pub use node_proxies::{
    handshakes, kill_node_proxy, mesh_nodes, node_addresses, node_metrics, node_proxies_gone, serve_all_nodes,
};
pub use node_proxy::{NodeProxy, used};
pub use on_node::OnNode;
pub use plugin::{Plugin, Said};
pub use policies::{Policies, connects_from};
pub use probes::{EachNode, Path, Probes};
pub use processes::processes;
pub use streams::{End, Kind, Stream, Streams};
pub use traffic::{out_of_service, revisions_behind};
pub use upgrade::{LONGEST, QUICK, ask, follow, mesh_yaml, status, user, watched, wish};
pub use wait::{condition, eventually, eventually_each, exists};
