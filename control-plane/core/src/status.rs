//! What the statuses should say. Times are the writer's business: a condition's `lastTransitionTime` moves
//! only when its status does. Writers merge: entries and condition types of other controllers stay; of ours,
//! a type that is not listed here any more is removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{AssignedAddress, ObjectKey, ParentRef, RouteGroupKind, RouteKind};

/// A condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConditionUpdate {
    /// `type`, one of [`crate::conditions`].
    pub kind: &'static str,
    /// `status`.
    pub status: ConditionStatus,
    /// `reason`, one of [`crate::conditions::reason`].
    pub reason: &'static str,
    /// `message`, for people; empty when the reason says it all.
    pub message: String,
    /// `observedGeneration`.
    pub observed_generation: i64,
}

/// `True`, `False` or `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`.
    Unknown,
}

impl ConditionStatus {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why something is not as it should be: a reason of the API and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// One of [`crate::conditions::reason`].
    pub reason: &'static str,
    /// What exactly, naming the field or object.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl ConditionUpdate {
    /// `True` with a reason and nothing more to say.
    pub fn ok(kind: &'static str, reason: &'static str, generation: i64) -> Self {
        Self {
            kind,
            status: ConditionStatus::True,
            reason,
            message: String::new(),
            observed_generation: generation,
        }
    }

    /// `False` because of a finding.
    pub fn bad(kind: &'static str, finding: &Finding, generation: i64) -> Self {
        Self {
            kind,
            status: ConditionStatus::False,
            reason: finding.reason,
            message: finding.message.clone(),
            observed_generation: generation,
        }
    }

    /// `False` when there is a finding, else `True` with `good`.
    pub fn from_finding(
        kind: &'static str,
        finding: Option<&Finding>,
        good: &'static str,
        generation: i64,
    ) -> Self {
        finding
            .map_or_else(|| Self::ok(kind, good, generation), |finding| Self::bad(kind, finding, generation))
    }

    /// Whether the status is `True`.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// Statuses of everything that this controller answers for. An object that is not listed has no entry of ours
/// (any more). Shared, so that thousands are quickly copied and compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Our GatewayClasses, by name.
    pub gateway_classes: BTreeMap<String, GatewayClassStatus>,
    /// Gateways of our classes.
    pub gateways: BTreeMap<ObjectKey, Arc<GatewayStatus>>,
    /// HTTPRoutes with at least one parent of ours.
    pub http_routes: BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>>,
    /// GRPCRoutes with at least one parent of ours.
    pub grpc_routes: BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>>,
    /// TCPRoutes with at least one parent of ours.
    pub tcp_routes: BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>>,
    /// AuthorizationPolicies and MeshTLSPolicies.
    pub policies: Arc<PolicyStatuses>,
}

impl Statuses {
    /// Those of a kind of routes.
    pub fn routes(&self, kind: RouteKind) -> &BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>> {
        match kind {
            RouteKind::Http => &self.http_routes,
            RouteKind::Grpc => &self.grpc_routes,
            RouteKind::Tcp => &self.tcp_routes,
        }
    }

    pub(crate) fn routes_mut(&mut self, kind: RouteKind) -> &mut BTreeMap<Arc<ObjectKey>, Arc<RouteStatus>> {
        match kind {
            RouteKind::Http => &mut self.http_routes,
            RouteKind::Grpc => &mut self.grpc_routes,
            RouteKind::Tcp => &mut self.tcp_routes,
        }
    }
}

/// Statuses of the mesh's policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyStatuses {
    /// All AuthorizationPolicies.
    pub authorization: BTreeMap<ObjectKey, Arc<PolicyStatus>>,
    /// All MeshTLSPolicies.
    pub tls: BTreeMap<ObjectKey, Arc<PolicyStatus>>,
}

/// Status of one of the mesh's policies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Conditions, of the types in [`crate::conditions::POLICY_TYPES`].
    pub conditions: Vec<ConditionUpdate>,
    /// Members of the mesh that it selects.
    pub pods: u32,
}

/// Status of a GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClassStatus {
    /// Conditions, of the types in [`crate::conditions::GATEWAY_CLASS_TYPES`].
    pub conditions: Vec<ConditionUpdate>,
    /// `supportedFeatures`, sorted.
    pub supported_features: &'static [&'static str],
}

/// Status of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Conditions, of the types in [`crate::conditions::GATEWAY_TYPES`].
    pub conditions: Vec<ConditionUpdate>,
    /// `addresses`.
    pub addresses: Vec<AssignedAddress>,
    /// `listeners`, in the order of the spec.
    pub listeners: Vec<ListenerStatus>,
}

/// Status of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: String,
    /// `supportedKinds`; may be empty, but has to be written.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// `attachedRoutes`.
    pub attached_routes: u32,
    /// Conditions, of the types in [`crate::conditions::LISTENER_TYPES`].
    pub conditions: Vec<ConditionUpdate>,
}

/// Status of a route: an entry for each parentRef of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteStatus {
    /// In the order of the spec, without repetition.
    pub parents: Vec<RouteParentStatus>,
}

/// What one parent makes of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteParentStatus {
    /// The reference, word for word.
    pub parent_ref: ParentRef,
    /// Conditions, of the types in [`crate::conditions::ROUTE_TYPES`].
    pub conditions: Vec<ConditionUpdate>,
}
