//! Pods, and who serves nodes.

use std::collections::{BTreeMap, BTreeSet};

/// A pod that has a node and has not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`.
    pub node: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.podIPs`; empty until the pod has a network.
    pub addresses: Vec<String>,
    /// Names of its containers, init containers included: a foreign mesh's sidecar is known by its name.
    pub containers: BTreeSet<String>,
}

/// Who serves a node, and what it has reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MeshNode {
    /// `spec.revision`.
    pub wanted: String,
    /// `spec.epoch`.
    pub epoch: i64,
    /// `status.revision`.
    pub serves: String,
    /// `status.epoch`.
    pub serving_epoch: i64,
    /// `status.pods`: addresses by uid.
    pub pods: BTreeMap<String, Vec<String>>,
}
