//! The operator as a library: pure decisions (`validate`, `rollout`, `build`, `availability`) between thin edges
//! (`dereference`, `apply`, `status`). Start reading at [`mesh_control_plane::reconcile`].

pub mod apply;
pub mod args;
pub mod availability;
pub mod catalogue;
pub mod certificates;
pub mod context;
pub mod error;
pub mod farewell;
pub mod gateway;
pub mod gateway_api;
#[cfg(test)]
mod golden;
pub mod inspection;
pub mod install;
pub mod mesh_control_plane;
pub mod mesh_revision;
pub mod metrics;
pub mod pods;
pub mod reconciler;
pub mod run;
pub mod sweep;
pub mod upgrade;
