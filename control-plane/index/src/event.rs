//! What the task is told.

use std::collections::{BTreeMap, BTreeSet};

use meshwright_api::PolicyStatus;
use meshwright_api::gateway as api;
use meshwright_core::ObjectKey;
use meshwright_core::config::ClusterRef;
use meshwright_core::model::{
    AuthorizationPolicy, EndpointSlice, Gateway, GatewayClass, GatewayParameters, HttpRoute, MeshNode,
    MeshTlsPolicy, Namespace, ObjectId, Pod, ReferenceGrant, SecretState,
};
use meshwright_k8s::Update;

use crate::convert::{GatewayDeployment, ServiceView};
use crate::live::Live;

/// An object whose status is ours to write: what it says, and how it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen<M, S> {
    pub(crate) model: M,
    pub(crate) live: Live<S>,
}

/// A change.
pub(crate) enum Event {
    Services(Update<ServiceView>),
    EndpointSlices(Update<Option<EndpointSlice>>),
    Namespaces(Update<Namespace>),
    Pods(Update<Option<Pod>>),
    MeshNodes(Update<MeshNode>),
    AuthorizationPolicies(Update<Seen<AuthorizationPolicy, PolicyStatus>>),
    MeshTlsPolicies(Update<Seen<MeshTlsPolicy, PolicyStatus>>),
    GatewayClasses(Update<Seen<GatewayClass, api::GatewayClassStatus>>),
    Gateways(Update<Seen<Gateway, api::GatewayStatus>>),
    HttpRoutes(Update<Seen<HttpRoute, api::HttpRouteStatus>>),
    GrpcRoutes(Update<Seen<HttpRoute, api::GrpcRouteStatus>>),
    TcpRoutes(Update<Seen<HttpRoute, api::TcpRouteStatus>>),
    ReferenceGrants(Update<ReferenceGrant>),
    GatewayParameters(Update<GatewayParameters>),
    Deployments(Update<Option<GatewayDeployment>>),
    Secret(ObjectKey, SecretState),
    BundleVersion(Option<String>),
    Rejections(BTreeMap<ObjectId, String>),
    Kept(BTreeSet<ClusterRef>),
}

impl Event {
    /// The kind that was listed completely by this event.
    pub(crate) fn listed(&self) -> Option<&'static str> {
        fn replaced<T>(update: &Update<T>, what: &'static str) -> Option<&'static str> {
            matches!(update, Update::Replaced { .. }).then_some(what)
        }
        match self {
            Self::Services(update) => replaced(update, "services"),
            Self::EndpointSlices(update) => replaced(update, "endpointslices"),
            Self::Namespaces(update) => replaced(update, "namespaces"),
            Self::Pods(update) => replaced(update, "pods"),
            Self::MeshNodes(update) => replaced(update, "meshnodes"),
            Self::AuthorizationPolicies(update) => replaced(update, "authorizationpolicies"),
            Self::MeshTlsPolicies(update) => replaced(update, "meshtlspolicies"),
            Self::GatewayClasses(update) => replaced(update, "gatewayclasses"),
            Self::Gateways(update) => replaced(update, "gateways"),
            Self::HttpRoutes(update) => replaced(update, "httproutes"),
            Self::GrpcRoutes(update) => replaced(update, "grpcroutes"),
            Self::TcpRoutes(update) => replaced(update, "tcproutes"),
            Self::ReferenceGrants(update) => replaced(update, "referencegrants"),
            Self::GatewayParameters(update) => replaced(update, "gatewayparameters"),
            Self::Deployments(update) => replaced(update, "deployments"),
            Self::BundleVersion(_) => Some("gateway API version"),
            Self::Secret(..) | Self::Rejections(_) | Self::Kept(_) => None,
        }
    }
}
