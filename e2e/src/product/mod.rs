//! The product as its users get it: binaries, images, `crds.yaml` and `install.yaml`. Demo and tests install exactly this.

mod binaries;
mod dist;
pub mod envoy;
pub mod faults;
mod images;
mod install;
mod suite;

pub use crate::layout::cache;
pub use binaries::{build_faulty, build_plugin, workspace};
pub use dist::{Dist, build};
pub use envoy::{VERSION as ENVOY_VERSION, ensure as ensure_envoy};
pub use images::{Image, Images, RELEASES, Release, VERSION};
pub use install::{apply_file, apply_files, cluster_command, installed, run, timed};
pub use suite::{Tally, build_test, run_cargo_tests, run_counted, run_test};
