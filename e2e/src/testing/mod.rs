//! What the end-to-end tests share: objects from YAML, waiting with a deadline, HTTP, load, and what is kept of a failure.

mod apply;
mod http;
mod keep;
mod load;
mod wait;

pub use apply::{apply_yaml, delete_yaml, objects_in, refusal_of};
pub use http::{Answer, get, get_with_headers};
pub use keep::with_namespace;
pub use load::{Load, LoadReport, ensure_oha};
pub use wait::{condition, eventually, exists};
