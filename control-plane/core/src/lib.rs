//! The control plane's model and its decisions: what the cluster says (`model`), what the Gateway API makes
//! of it (`resolve`), and what each object's status has to say about that (`status`). Everything here is a
//! pure function of its arguments: no kube, no tonic, no clock and no I/O, so a replica, a test and the
//! upgrade's Compare phase reach the same result from the same objects.

pub mod conditions;
pub mod config;
mod difference;
pub mod duration;
pub mod endpoints;
pub mod features;
pub mod hostname;
pub mod mesh;
pub mod model;
pub mod resolve;
pub mod status;
pub mod telemetry;

pub use config::GatewayConfig;
pub use difference::difference;
pub use endpoints::{Endpoint, Endpoints, endpoints};
pub use model::{ObjectKey, World};
pub use resolve::{ControllerConfig, Resolution, Resolver, resolve};
