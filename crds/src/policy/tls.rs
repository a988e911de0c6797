//! MeshTLSPolicy: whether pods take plaintext.

// Columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, TargetRef};

/// Whether pods of the mesh take connections in plaintext, too. The nearest policy decides: one with targetRefs before one of the whole
/// namespace, that before one in the mesh's namespace, which is for all pods of the mesh. Among equals the oldest decides.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "MeshTLSPolicy",
    plural = "meshtlspolicies",
    shortname = "mtls",
    category = "mesh",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "MeshTLSPolicy says whether pods of the mesh take connections in plaintext besides mutual TLS.",
    printcolumn(name = "MODE", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "PODS", type_ = "integer", json_path = ".status.pods"),
    printcolumn(
        name = "ACCEPTED",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.ports) || self.ports.all(p, self.ports.filter(q, q.port == p.port).size() == 1)").message("ports must not name a port twice"))]
pub struct MeshTLSPolicySpec {
    /// Pods that it is for; a pod that one of them selects. Unset: all pods of the namespace, and in the mesh's namespace all of the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Permissive: plaintext is taken besides mutual TLS. Strict: new connections in plaintext are refused, and those from before are ended.
    #[serde(default)]
    pub mode: TlsMode,
    /// Ports that differ from that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub ports: Vec<PortTlsMode>,
}

/// Whether plaintext is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    #[default]
    Permissive,
    Strict,
}

/// A port with a mode of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortTlsMode {
    /// Port of the pod.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Its mode.
    pub mode: TlsMode,
}
