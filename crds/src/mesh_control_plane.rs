//! MeshControlPlane: what a mesh should be.

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Autoscaling, Resources, Scheduling, Telemetry, Upgrade, UpgradePhase, UpgradeRecord, UpgradeResult,
    UpgradeStatus, labels,
};

/// One mesh. A cluster holds one; a second MeshControlPlane gets a Conflict condition and changes nothing.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "MeshControlPlane",
    plural = "meshcontrolplanes",
    shortname = "mcp",
    category = "mesh",
    namespaced,
    status = "MeshControlPlaneStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "MeshControlPlane is a service mesh: apply one and the operator installs it, keeps it available and renews its certificates.",
    validation = Rule::new("self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')").message("metadata.name must be at most 40 characters without dots, because names of Services are made from it"),
    printcolumn(name = "VERSION", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "ACTIVE", type_ = "string", json_path = ".status.activeRevision"),
    printcolumn(name = "CANARY", type_ = "string", json_path = ".status.upgrade.to"),
    printcolumn(name = "SHARE", type_ = "integer", json_path = ".status.upgrade.share.connections"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.upgrade.phase"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "STATUS", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MeshControlPlaneSpec {
    /// Release of the mesh, such as `0.1.0`. Unset: the newest that the operator knows at install, then kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+$"))]
    pub version: Option<String>,
    /// Defaults for availability and size.
    #[serde(default)]
    pub profile: Profile,
    /// SPIFFE trust domain of every identity; cannot be changed, because certificates of two trust domains do not trust each other.
    #[serde(default = "default_trust_domain")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("trustDomain cannot be changed after creation"))]
    pub trust_domain: String,
    /// The control plane's pods.
    #[serde(default)]
    pub control_plane: ComponentSettings,
    /// Defaults for the proxies of every Gateway; a GatewayParameters changes them for one Gateway.
    #[serde(default)]
    pub gateways: ComponentSettings,
    /// How a change of version, or of a setting that reaches the proxies, is carried out.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// Lives of the certificates.
    #[serde(default)]
    pub certificates: Certificates,
    /// What node proxies tell of single requests; from release 0.3.0 on.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The Gateway API's CustomResourceDefinitions.
    #[serde(default, rename = "gatewayAPI")]
    pub gateway_api: GatewayApi,
}

impl MeshControlPlane {
    /// The last time that anybody went to this release it was bad, or a person did not want it: it is not taken by itself again, whatever
    /// other settings say.
    pub fn went_back(&self, version: &str) -> bool {
        let Some(status) = &self.status else { return false };
        let going = |u: &UpgradeStatus| u.to_version == version && u.phase < UpgradePhase::RollingBack;
        let last = status.history.iter().find(|r| r.judges(version));
        let annotations = self.metadata.annotations.as_ref();
        let again = |r: &UpgradeRecord| annotations.and_then(|a| a.get(labels::RETRY)) == Some(&r.attempt());
        !status.upgrade.as_ref().is_some_and(going)
            && last.is_some_and(|r| r.result == UpgradeResult::RolledBack && !again(r))
    }
}

fn default_trust_domain() -> String {
    "cluster.local".to_owned()
}

/// Defaults for availability and size: pods of control plane and gateways at least and at most, and their spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Profile {
    Demo,
    #[default]
    Default,
    Production,
}

impl Profile {
    /// What a pod requests where the spec does not say: names and amounts, as in [`Resources::requests`].
    pub fn requests(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Demo => [("cpu", "20m"), ("memory", "64Mi")],
            Self::Default => [("cpu", "50m"), ("memory", "96Mi")],
            Self::Production => [("cpu", "100m"), ("memory", "128Mi")],
        }
    }

    /// Resources of a pod, complete. Requests always, because the autoscaler counts in percent of them; limits only where a user wants
    /// them: a limit on CPU throttles, and one on memory kills, exactly when there is most to do.
    pub fn resources(self, said: Option<&Resources>) -> Resources {
        let mut complete = said.cloned().unwrap_or_default();
        for (name, amount) in self.requests() {
            // A limit alone is taken as the request by Kubernetes itself.
            if !complete.limits.contains_key(name) {
                complete.requests.entry(name.to_owned()).or_insert_with(|| Quantity(amount.to_owned()));
            }
        }
        complete
    }
}

/// Size, scaling and placement of one component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSettings {
    /// Bounds of the HorizontalPodAutoscaler. Unset: the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// CPU and memory of each pod. Unset: the profile's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}

/// Lives of the certificates, as Go durations such as `24h` or `90m`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificates {
    /// Life of a workload certificate; it is renewed with a new key at half of it. From 10m to 168h.
    #[serde(default = "default_workload_ttl", rename = "workloadTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10m') && duration(self) <= duration('168h')").message("workloadTTL must be between 10m and 168h"))]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub workload_ttl: String,
    /// Life of a new root certificate. From 1440h (60 days) to 87600h (10 years).
    #[serde(default = "default_root_ttl", rename = "rootTTL")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1440h') && duration(self) <= duration('87600h')").message("rootTTL must be between 1440h and 87600h"))]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub root_ttl: String,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { workload_ttl: default_workload_ttl(), root_ttl: default_root_ttl() }
    }
}

fn default_workload_ttl() -> String {
    "24h".to_owned()
}

fn default_root_ttl() -> String {
    "87600h".to_owned()
}

/// The Gateway API's CustomResourceDefinitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GatewayApi {
    /// Which of them to install where they are absent; what is there already is never lowered. None: somebody else installs them.
    #[serde(default)]
    pub crds: GatewayApiChannel,
}

/// A release channel of the Gateway API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayApiChannel {
    #[default]
    Standard,
    Experimental,
    None,
}

/// What is seen of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshControlPlaneStatus {
    /// Reconciled, Ready, Progressing, Degraded, CertificatesValid, UpgradeAvailable, Approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Release that is installed; an unset `spec.version` stays at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of the MeshRevision that carries the traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_revision: Option<String>,
    /// One line for `kubectl get`: what is going on, or what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The live revisions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub revisions: Vec<RevisionSummary>,
    /// Releases that this operator can install, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub available_versions: Vec<String>,
    /// The upgrade that is under way, or that went back and is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
    /// The last ten upgrades, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<UpgradeRecord>,
    /// The mesh's certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// The Gateway API CRDs that were found or installed.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "gatewayAPI")]
    pub gateway_api: Option<GatewayApiStatus>,
}

/// A live revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSummary {
    /// Name of the MeshRevision.
    pub name: String,
    /// Its release.
    pub version: String,
    /// What it does in the mesh.
    pub role: RevisionRole,
    /// Ready pods of its control plane.
    pub ready_replicas: i32,
    /// Ready gateway proxies of this revision.
    pub ready_proxies: i32,
}

/// What a revision does in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionRole {
    /// It has the traffic, or most of it.
    Active,
    /// It is being measured.
    Canary,
    /// It can be gone back to.
    Warm,
    /// It is removed as soon as nothing uses it.
    Retiring,
}

/// The mesh's trust anchor and the certificate that expires first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesStatus {
    /// SHA-256 of the root certificate, hex.
    pub root_fingerprint: String,
    /// End of the root's life.
    pub root_not_after: Time,
    /// What expires first.
    pub earliest: String,
    /// When it expires.
    pub earliest_not_after: Time,
}

/// The Gateway API CRDs in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayApiStatus {
    /// Their release.
    pub version: String,
    /// Their channel.
    pub channel: String,
    /// Whether this operator installed them.
    pub installed_by_operator: bool,
}
