//! What every process of ours needs of Kubernetes beyond a client: a Lease that says who acts ([`lease`]) and watches that neither a
//! malformed object nor an absent CustomResourceDefinition can stop ([`watch`]).

pub mod lease;
pub mod watch;

pub use lease::{LeaseConfig, LeaseError, LeaseHandle, OnLoss};
pub use watch::{Source, Update, api_served, object_key};
