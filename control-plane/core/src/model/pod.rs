//! Pods, and who serves nodes.

use std::collections::{BTreeMap, BTreeSet};

/// A pod that has a node and has not ended. Of all pods of a cluster no more is kept than decides about membership
/// and policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`.
    pub node: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.serviceAccountName`; empty for the mirror of a static pod only.
    pub service_account: String,
    /// Name of what made it, see [`crate::mesh::workload`].
    pub workload: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.podIPs`; empty until the pod has a network.
    pub addresses: Vec<String>,
    /// Since when it has its network, in seconds since 1970: transition of condition PodReadyToStartContainers, else `status.startTime`, else
    /// `metadata.creationTimestamp`.
    pub since: i64,
    /// The first of its containers, init containers included, that [`crate::mesh::is_foreign_sidecar`] knows.
    pub sidecar: Option<String>,
    /// Ports to which the kubelet connects: of probes and of lifecycle hooks.
    pub probes: BTreeSet<u16>,
}

/// Who serves a node, and what it has reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MeshNode {
    /// `spec.revision`.
    pub wanted: String,
    /// `spec.epoch`.
    pub epoch: i64,
    /// `status.pods`: addresses by uid.
    pub pods: BTreeMap<String, Vec<String>>,
}
