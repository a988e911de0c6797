//! A real Kubernetes cluster of three nodes on one Linux machine, without a container engine, and the
//! helpers of the end-to-end tests.
//!
//! Every node is a network namespace and a mount namespace with its own containerd, kubelet and kube-proxy;
//! the control plane runs beside them. `cluster up` (see `src/bin/cluster.rs`) makes it, [`Cluster::current`]
//! is how a test finds it, or one outside that was asked for ([`outside`]). Programs are Go modules pinned in `cluster/<family>/go.mod`, built once.
//!
//! Images are written by [`images::write_oci_archive`] and brought to its nodes by [`Cluster::load_image`]:
//! there is no registry, and no way out of the cluster.

pub mod addons;
pub mod bench;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod conformance;
pub mod control_plane;
pub mod demo;
pub mod down;
pub mod go;
pub mod images;
pub mod kernel;
pub mod kubeconfig;
pub mod layout;
pub mod lb;
pub mod network;
pub mod node;
pub mod outside;
pub mod pki;
pub mod prereq;
pub mod process;
pub mod product;
pub mod programs;
pub mod soak;
pub mod testing;
pub mod up;

pub use cluster::Cluster;
pub use images::{Compression, Digest, ImageFile, ImageSpec, write_oci_archive};
pub use layout::Layout;
