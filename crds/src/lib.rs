//! The API of Meshwright, group `meshwright.io`, version `v1alpha1`, and the Gateway API types it reads.
//!
//! The Rust types are the source; `yaml/` is written from them by `make gen` and CI fails on a difference.

pub mod conditions;
mod definitions;
mod fields;
pub mod gateway;
mod gateway_parameters;
pub mod labels;
mod mesh_control_plane;
mod mesh_node;
mod mesh_revision;
pub mod names;
mod policy;
pub mod shares;
mod telemetry;
mod upgrade;

pub use definitions::{definitions, definitions_yaml};
pub use fields::{Autoscaling, Resources, Scheduling, ServiceExposure, ServiceType};
pub use gateway_parameters::{GatewayParameters, GatewayParametersSpec};
pub use mesh_control_plane::{
    Certificates, CertificatesStatus, ComponentSettings, GatewayApi, GatewayApiChannel, GatewayApiStatus,
    MeshControlPlane, MeshControlPlaneSpec, MeshControlPlaneStatus, Profile, RevisionRole, RevisionSummary,
};
pub use mesh_node::{
    AwaitingPod, MeshNode, MeshNodeSpec, MeshNodeStatus, MeshPod, NODE_PORT, NodePorts, NodeSlot, Standby,
};
pub use mesh_revision::{
    Images, IssuingCaStatus, MeshRevision, MeshRevisionSpec, MeshRevisionStatus, WorkloadSettings,
};
pub use policy::{
    AuthorizationAction, AuthorizationMode, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule,
    HeaderMatch, HttpAttributes, MeshTLSPolicy, MeshTLSPolicySpec, NetworkAttributes, PathMatch,
    PathMatchType, PolicyStatus, PortTlsMode, Selector, SelectorRequirement, ServiceAccountSource, Source,
    SourceType, TargetKind, TargetRef, TlsMode,
};
pub use telemetry::{AccessLog, Telemetry, Tracing};
pub use upgrade::{
    Accepted, Analysis, Approval, Approved, Blocker, Comparison, DonePhase, NODE_WAVES, NODES_STEP,
    NodeShift, OnInsufficient, PassedOver, Probe, Rollback, SUPERSEDED, Share, Step, Strategy, UNMEASURED,
    Upgrade, UpgradeMode, UpgradePhase, UpgradeRecord, UpgradeResult, UpgradeStatus, Verdict, VerdictResult,
    Window,
};

/// API group of every kind here.
pub const GROUP: &str = "meshwright.io";
/// `GatewayClass.spec.controllerName` that we answer to.
pub const CONTROLLER_NAME: &str = "meshwright.io/gateway-controller";
/// Name of the GatewayClass that the operator installs.
pub const GATEWAY_CLASS: &str = "meshwright";
/// Audience of the tokens with which agents ask for certificates.
pub const TOKEN_AUDIENCE: &str = "meshwright.io/ca";
/// Gateway API release whose CRDs we install and whose semantics we follow.
pub const GATEWAY_API_VERSION: &str = "v1.7.0";

#[cfg(test)]
mod tests;
