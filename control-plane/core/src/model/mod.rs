//! What was read from the cluster, without anything that no decision needs. The index crate fills it; nothing
//! here knows kube.
//!
//! Maps are ordered and values are shared: iterating is deterministic, and a cache can tell an unchanged
//! object by its address.

mod gateway;
mod http_route;
mod namespace;
mod observed;
mod pod;
mod policy;
mod reference;
mod rpc;
mod service;

pub use gateway::*;
pub use http_route::*;
pub use namespace::*;
pub use observed::*;
pub use pod::*;
pub use policy::*;
pub use reference::*;
pub use service::*;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The API group of Gateway, HTTPRoute and their kin.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The API group of our own kinds.
pub const MESHWRIGHT_GROUP: &str = "meshwright.io";

/// A namespaced object's name. Orders by namespace, then by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectKey {
    /// A key from its two parts, namespace first.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The part of `metadata` that decisions use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Namespace and name; cluster-scoped objects have an empty namespace.
    pub key: ObjectKey,
    /// `metadata.generation`; copied into every condition's `observedGeneration`.
    pub generation: i64,
    /// `metadata.creationTimestamp`, seconds since the Unix epoch; the older object wins a conflict.
    pub created: i64,
}

impl Meta {
    /// Metadata of an object in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, generation: i64, created: i64) -> Self {
        Self { key: ObjectKey::new(namespace, name), generation, created }
    }
}

/// A kind that a status or a rejection can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `gateway.networking.k8s.io/Gateway`.
    Gateway,
    /// `gateway.networking.k8s.io/HTTPRoute`.
    HttpRoute,
    /// `gateway.networking.k8s.io/GRPCRoute`.
    GrpcRoute,
    /// `gateway.networking.k8s.io/TCPRoute`.
    TcpRoute,
    /// A pod of the mesh, by its uid as the name: the policies that are for it.
    Pod,
    /// A node, by its name: the policies about requests to its pods.
    Node,
}

impl ObjectKind {
    /// Which kind of route this is, if it is one.
    pub fn route(self) -> Option<RouteKind> {
        match self {
            Self::Gateway | Self::Pod | Self::Node => None,
            Self::HttpRoute => Some(RouteKind::Http),
            Self::GrpcRoute => Some(RouteKind::Grpc),
            Self::TcpRoute => Some(RouteKind::Tcp),
        }
    }
}

/// An object whose configuration ended up in a proxy's resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// What it is.
    pub kind: ObjectKind,
    /// Namespace and name.
    pub key: ObjectKey,
}

/// Everything that was read. The index owns one and edits it in place; `resolve` and `endpoints` only look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// GatewayClasses by name, of every controller.
    pub gateway_classes: BTreeMap<String, Arc<GatewayClass>>,
    /// Gateways of every class.
    pub gateways: BTreeMap<ObjectKey, Arc<Gateway>>,
    /// All HTTPRoutes.
    pub http_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    /// All GRPCRoutes.
    pub grpc_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    /// All TCPRoutes.
    pub tcp_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    /// All ReferenceGrants.
    pub reference_grants: BTreeMap<ObjectKey, Arc<ReferenceGrant>>,
    /// All Services.
    pub services: BTreeMap<ObjectKey, Arc<Service>>,
    /// EndpointSlices: Service (label `kubernetes.io/service-name`), then the slice's name.
    pub endpoint_slices: BTreeMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
    /// Labels of each namespace, for `allowedRoutes.namespaces.selector`.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// What became of reading each Secret that [`crate::Resolution::secrets`] names. An absent entry
    /// means that nobody knows yet, which is not the same as [`SecretState::Missing`].
    pub secrets: BTreeMap<ObjectKey, Arc<SecretState>>,
    /// GatewayParameters that exist, by namespace and name.
    pub gateway_parameters: BTreeMap<ObjectKey, Arc<GatewayParameters>>,
    /// What was seen of the Service and Deployment made for each Gateway, keyed by the Gateway.
    pub gateway_observations: BTreeMap<ObjectKey, Arc<GatewayObservation>>,
    /// Objects whose last configuration a proxy refused (NACK), with Envoy's words.
    pub rejections: BTreeMap<ObjectId, String>,
    /// Pods that have a node and have not ended, whether they are in the mesh or not.
    pub pods: BTreeMap<ObjectKey, Arc<Pod>>,
    /// MeshNodes of our mesh, by Node.
    pub mesh_nodes: BTreeMap<String, Arc<MeshNode>>,
    /// All AuthorizationPolicies.
    pub authorization_policies: BTreeMap<ObjectKey, Arc<AuthorizationPolicy>>,
    /// All MeshTLSPolicies.
    pub mesh_tls_policies: BTreeMap<ObjectKey, Arc<MeshTlsPolicy>>,
    /// Annotation `gateway.networking.k8s.io/bundle-version` of the installed CRDs; None while it is not
    /// known.
    pub crd_bundle_version: Option<String>,
}

impl World {
    /// The routes of a kind.
    pub fn routes(&self, kind: RouteKind) -> &BTreeMap<ObjectKey, Arc<HttpRoute>> {
        match kind {
            RouteKind::Http => &self.http_routes,
            RouteKind::Grpc => &self.grpc_routes,
            RouteKind::Tcp => &self.tcp_routes,
        }
    }
}
