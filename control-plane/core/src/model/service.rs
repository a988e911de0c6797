//! Service and EndpointSlice.

use super::{Meta, ObjectKey};

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Name, generation, age.
    pub meta: Meta,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `clusterIP: None`.
    pub headless: bool,
    /// False when somebody else writes the EndpointSlices. They are read the same way.
    pub has_selector: bool,
    /// `spec.clusterIPs` without `None`.
    pub cluster_ips: Vec<String>,
    /// `spec.ports`, in order.
    pub ports: Vec<ServicePort>,
    /// How callers within the cluster are spread over its endpoints.
    pub balancing: Balancing,
}

/// What a Service says of the choice among its endpoints. It binds whoever balances in kube-proxy's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Balancing {
    /// `sessionAffinity: ClientIP`: a client stays with one endpoint.
    pub by_client: bool,
    /// Which endpoints a client gets at all.
    pub near: Near,
}

/// Endpoints by their place, as seen from a client's node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Near {
    /// All.
    #[default]
    Anywhere,
    /// `trafficDistribution: PreferClose` or `PreferSameZone`: those in the zone, if one of them is ready.
    Zone,
    /// `trafficDistribution: PreferSameNode`: those on the node, if one of them is ready, else those in the zone.
    Node,
    /// `internalTrafficPolicy: Local`: those on the node and no others, even if there is none.
    NodeOnly,
}

/// `spec.type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// Has EndpointSlices (also NodePort and LoadBalancer).
    Cluster,
    /// `externalName`: a DNS name. Not accepted as a backend: it would let a route reach what its author may
    /// not (CVE-2021-25740 shape).
    ExternalName(String),
}

/// One of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// `name`, empty for the unnamed port. EndpointSlices repeat it; it is how the two find each other.
    pub name: String,
    /// What backendRefs name.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `appProtocol`.
    pub app_protocol: Option<String>,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    /// The Service, from label `kubernetes.io/service-name`.
    pub service: ObjectKey,
    /// Whether the addresses are DNS names (`addressType: FQDN`), which are not used.
    pub fqdn: bool,
    /// `ports`.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One of an EndpointSlice's ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// The Service port's name, empty if that has none.
    pub name: String,
    /// The pod's port; None would mean "all", which no Service makes.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// One endpoint: one pod, most often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SliceEndpoint {
    /// IP addresses of one pod; only the first is used, as Kubernetes says.
    pub addresses: Vec<String>,
    /// `conditions.ready`; the API's "unset" is true.
    pub ready: bool,
    /// `conditions.serving`; unset is the value of ready.
    pub serving: bool,
    /// `conditions.terminating`; unset is false.
    pub terminating: bool,
    /// `zone`.
    pub zone: Option<String>,
    /// `nodeName`.
    pub node: Option<String>,
}
