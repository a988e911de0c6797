//! MeshNode: which revision's proxy serves a node, and which of its pods speak mutual TLS.

// Columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// In the mesh's namespace, named like the Node. The operator writes the spec, the control plane that the serving agent is connected to the
/// status.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "MeshNode",
    plural = "meshnodes",
    shortname = "mnode",
    category = "mesh",
    namespaced,
    status = "MeshNodeStatus",
    derive = "PartialEq",
    doc = "MeshNode says which revision's proxy serves a node, and which pods of it speak mutual TLS. The operator and the control planes write it; users read it.",
    printcolumn(name = "WANTED", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "SERVES", type_ = "string", json_path = ".status.revision"),
    printcolumn(
        name = "CAPTURED",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='PodsCaptured')].status"
    ),
    printcolumn(name = "EPOCH", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshNodeSpec {
    /// The MeshRevision whose proxy is to serve the node.
    pub revision: String,
    /// Grows with each change of `revision`: an agent that acts on a lower one leaves the node alone.
    pub epoch: i64,
}

/// What the serving agent reported last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshNodeStatus {
    /// The MeshRevision whose proxy serves the node.
    #[serde(default)]
    pub revision: String,
    /// `spec.epoch` on which it does.
    #[serde(default)]
    pub epoch: i64,
    /// Pods that take mutual TLS at port 15008, by uid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub pods: Vec<MeshPod>,
    /// Pods that are to be in the mesh and are not yet, in the serving agent's words. At most twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub awaiting: Vec<AwaitingPod>,
    /// PodsCaptured, by the control plane of the revision that serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The proxy of another revision on this node, as its own control plane wrote it last. It counts only while that proxy is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
}

/// A pod that is to be in the mesh and is not yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwaitingPod {
    /// Uid of the Pod.
    pub uid: String,
    /// Why.
    pub reason: String,
}

/// A proxy that could take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standby {
    /// Its MeshRevision.
    pub revision: String,
    /// What keeps it from taking over all pods that take mutual TLS here; unset when nothing does: it listens in each of them, and each
    /// answered a handshake over mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// A pod that takes mutual TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshPod {
    /// Uid of the Pod.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// Where pods of the mesh take mutual TLS. Virtual: the node maps it to the port of the slot that serves.
pub const NODE_PORT: u16 = 15008;

/// Two revisions' proxies run side by side on a node, each with ports of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeSlot {
    /// 151xx.
    A,
    /// 152xx.
    B,
}

/// Ports of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePorts {
    /// In each pod's network: what the pod's processes send is redirected to it.
    pub outbound: u16,
    /// In each pod's network: mutual TLS; [`NODE_PORT`] is mapped to it.
    pub inbound: u16,
    /// On the node: `/metrics`.
    pub metrics: u16,
    /// On the node: `/readyz`, `/livez`.
    pub health: u16,
}

impl NodeSlot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// As the label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    /// Its ports.
    pub fn ports(self) -> NodePorts {
        match self {
            Self::A => NodePorts { outbound: 15101, inbound: 15108, metrics: 15120, health: 15121 },
            Self::B => NodePorts { outbound: 15201, inbound: 15208, metrics: 15220, health: 15221 },
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}
