//! The cluster, the mesh that all tests share, and how to reach a Gateway: the same that soak and bench use.

pub use meshwright_e2e::testing::{DEADLINE, Env, MESH, MESH_YAML, file};
