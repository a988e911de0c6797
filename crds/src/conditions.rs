//! Condition types and reasons of our own kinds, and the one way to set a condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The last reconcile of this generation went through.
pub const RECONCILED: &str = "Reconciled";
/// The mesh serves: the active control plane is available.
pub const READY: &str = "Ready";
/// Something is being rolled out.
pub const PROGRESSING: &str = "Progressing";
/// Something that worked before does not work now.
pub const DEGRADED: &str = "Degraded";
/// Every certificate in the ledger is valid and far from expiry.
pub const CERTIFICATES_VALID: &str = "CertificatesValid";
/// A newer release can be installed.
pub const UPGRADE_AVAILABLE: &str = "UpgradeAvailable";
/// False while an upgrade waits for a person.
pub const APPROVED: &str = "Approved";
/// On a MeshRevision: True while its last connections end.
pub const DRAINING: &str = "Draining";
/// On a MeshRevision: True while xDS streams, pods or nodes depend on it.
pub const IN_USE: &str = "InUse";
/// On a MeshNode: False while pods that are to be in the mesh are not, or cannot be.
pub const PODS_CAPTURED: &str = "PodsCaptured";

/// Reasons, each naming a finding.
pub mod reason {
    /// All is as it should be.
    pub const AS_SPECIFIED: &str = "AsSpecified";
    /// Another MeshControlPlane owns this cluster.
    pub const CONFLICT: &str = "Conflict";
    /// `spec.version` is not one that this operator knows.
    pub const UNKNOWN_VERSION: &str = "UnknownVersion";
    /// A field of the spec cannot be carried out.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The Gateway API CRDs in the cluster cannot be used.
    pub const GATEWAY_API_UNUSABLE: &str = "GatewayAPIUnusable";
    /// An object with a name that we need belongs to somebody else.
    pub const OBJECT_NOT_OURS: &str = "ObjectNotOurs";
    /// Another field manager keeps changing a field back.
    pub const FIELD_CONTESTED: &str = "FieldContested";
    /// A request to the API server failed and is tried again.
    pub const API_REQUEST_FAILED: &str = "APIRequestFailed";
    /// Pods of the control plane are not available yet.
    pub const CONTROL_PLANE_UNAVAILABLE: &str = "ControlPlaneUnavailable";
    /// Available, and every replica is up to date.
    pub const AVAILABLE: &str = "Available";
    /// A rollout is under way.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// Nothing is being rolled out.
    pub const SETTLED: &str = "Settled";
    /// Certificates have most of their life ahead.
    pub const FAR_FROM_EXPIRY: &str = "FarFromExpiry";
    /// A certificate expires soon.
    pub const EXPIRES_SOON: &str = "ExpiresSoon";
    /// No certificate was issued yet.
    pub const NOT_ISSUED: &str = "NotIssued";
    /// Pods of this revision exist.
    pub const PODS_EXIST: &str = "PodsExist";
    /// Nothing refers to this revision.
    pub const NOT_REFERENCED: &str = "NotReferenced";
    /// A step over more than one minor release, or a downgrade past the one before.
    pub const STEP_TOO_LARGE: &str = "StepTooLarge";
    /// A newer release is known.
    pub const NEWER_RELEASE: &str = "NewerRelease";
    /// Nothing newer is known.
    pub const NEWEST: &str = "Newest";
    /// An upgrade is under way.
    pub const UPGRADING: &str = "Upgrading";
    /// A new revision went back.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// A person must agree.
    pub const AWAITING_APPROVAL: &str = "AwaitingApproval";
    /// Nobody has to agree, or somebody did.
    pub const NOT_REQUIRED: &str = "NotRequired";
    /// Whether something refers to this revision cannot be seen.
    pub const USAGE_UNKNOWN: &str = "UsageUnknown";
    /// The mesh's namespace refuses the pods of node proxies.
    pub const POD_SECURITY: &str = "PodSecurity";
    /// Nodes have no proxy that serves them.
    pub const NODE_PROXIES_MISSING: &str = "NodeProxiesMissing";
    /// Every pod of a node that is to be in the mesh is.
    pub const ALL_CAPTURED: &str = "AllCaptured";
    /// Pods of a node are on their way into the mesh.
    pub const PODS_AWAITED: &str = "PodsAwaited";
    /// Something about pods stands against what their labels ask for.
    pub const PODS_REFUSED: &str = "PodsRefused";
    /// Nodes are served by this revision's proxies.
    pub const NODES_SERVED: &str = "NodesServed";
}

/// What a condition says, without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Condition type.
    pub type_: &'static str,
    /// `Some(true)` True, `Some(false)` False, `None` Unknown.
    pub status: Option<bool>,
    /// One of [`reason`].
    pub reason: &'static str,
    /// A sentence for a person; may be empty.
    pub message: String,
}

impl Finding {
    /// A finding of this type.
    pub fn new(
        type_: &'static str,
        status: Option<bool>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status, reason, message: message.into() }
    }
}

/// Sets the condition; keeps its transition time while its status stays the same.
pub fn set(conditions: &mut Vec<Condition>, finding: Finding, generation: Option<i64>, now: Timestamp) {
    let status = match finding.status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let old = conditions.iter().position(|c| c.type_ == finding.type_);
    let since = old
        .and_then(|i| conditions.get(i))
        .filter(|c| c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    let new = Condition {
        type_: finding.type_.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match old.and_then(|i| conditions.get_mut(i)) {
        Some(slot) => *slot = new,
        None => conditions.push(new),
    }
}
