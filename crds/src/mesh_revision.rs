//! MeshRevision: an immutable snapshot of everything that reaches pod templates or rendered xDS.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{NodeSlot, Resources, Scheduling, Telemetry};

/// Written by the operator only. Its name is the mesh's name and a hash of this spec, stored and never recomputed.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "MeshRevision",
    plural = "meshrevisions",
    shortname = "mrev",
    category = "mesh",
    namespaced,
    status = "MeshRevisionStatus",
    derive = "PartialEq",
    doc = "MeshRevision is an immutable snapshot of one version of a mesh with the settings that reach pods and proxies. The operator writes it; users read it.",
    validation = Rule::new("self.spec == oldSelf.spec").message("a MeshRevision cannot be changed; change the MeshControlPlane, which makes a new one"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "IN-USE", type_ = "string", json_path = ".status.conditions[?(@.type=='InUse')].status"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshRevisionSpec {
    /// Name of the MeshControlPlane in this namespace.
    pub mesh: String,
    /// Release of the mesh; chooses the builders that render this revision.
    pub version: String,
    /// Images of this revision.
    pub images: Images,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Life of a workload certificate, as a Go duration.
    #[serde(rename = "workloadTTL")]
    pub workload_ttl: String,
    /// Settings of the control plane's pods.
    pub control_plane: WorkloadSettings,
    /// Settings of the gateways' pods.
    pub gateways: WorkloadSettings,
    /// What the node proxies tell of single requests.
    #[serde(default, skip_serializing_if = "Telemetry::is_off")]
    pub telemetry: Telemetry,
    /// Ports of the node proxies; none where the release has no node proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_slot: Option<NodeSlot>,
}

/// Image references, by digest where a release made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// The control plane.
    pub control_plane: String,
    /// Envoy and its agent.
    pub proxy: String,
    /// Names of Secrets of type kubernetes.io/dockerconfigjson, in the pods' own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<String>,
}

/// What a workload's pod template depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSettings {
    /// CPU and memory.
    #[serde(default)]
    pub resources: Resources,
    /// Where the pods may run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Spread over zones too, not only over nodes.
    #[serde(default)]
    pub spread_zones: bool,
}

/// What is seen of a revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshRevisionStatus {
    /// Ready, InUse.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready pods of the control plane.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The issuing CA that this revision's control plane signs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuing_ca: Option<IssuingCaStatus>,
}

/// An issuing CA: a Secret in the mesh namespace that only the control plane mounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuingCaStatus {
    /// Name of the Secret.
    pub secret_name: String,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// End of its life.
    pub not_after: Time,
}
