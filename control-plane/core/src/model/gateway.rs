//! GatewayClass and Gateway.

use std::collections::BTreeMap;

use super::{LabelSelector, Meta};

/// A cluster-scoped GatewayClass.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayClass {
    /// Name (namespace empty), generation, age.
    pub meta: Meta,
    /// `spec.controllerName`.
    pub controller_name: String,
    /// `spec.parametersRef`.
    pub parameters_ref: Option<ParametersRef>,
}

/// A reference to an object with settings, of a GatewayClass or of a Gateway's infrastructure.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ParametersRef {
    /// API group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Only a GatewayClass may say; a Gateway's reference is in the Gateway's namespace.
    pub namespace: Option<String>,
    /// Object's name.
    pub name: String,
}

/// `meshwright.io/GatewayParameters`. Its contents shape the Deployment, which is the operator's; here only
/// its presence counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayParameters {
    /// Name and generation.
    pub meta: Meta,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Name, generation, age.
    pub meta: Meta,
    /// `spec.gatewayClassName`.
    pub class_name: String,
    /// `spec.listeners`, in the order of the spec.
    pub listeners: Vec<Listener>,
    /// `spec.addresses`.
    pub addresses: Vec<RequestedAddress>,
    /// `spec.infrastructure`.
    pub infrastructure: Infrastructure,
    /// Set fields of the spec that this control plane does not implement, as paths (`spec.tls.frontend`), in
    /// the order of the spec.
    pub unsupported_fields: Vec<String>,
}

/// `spec.infrastructure`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Infrastructure {
    /// Labels for everything that is made for the Gateway.
    pub labels: BTreeMap<String, String>,
    /// Annotations for the same.
    pub annotations: BTreeMap<String, String>,
    /// Settings of the proxies.
    pub parameters_ref: Option<ParametersRef>,
}

/// One of `spec.addresses`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestedAddress {
    /// IPAddress, Hostname or another.
    pub kind: AddressType,
    /// Empty means: any address of that type.
    pub value: String,
}

/// The type of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressType {
    /// An IPv4 or IPv6 address.
    IpAddress,
    /// A DNS name.
    Hostname,
    /// NamedAddress or a domain-prefixed type; none is supported.
    Other(String),
}

/// One of `spec.listeners`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listener {
    /// Unique in the Gateway.
    pub name: String,
    /// None and the empty string both match every host.
    pub hostname: Option<String>,
    /// 1 to 65535.
    pub port: u16,
    /// `HTTP`, `HTTPS`, or what else the user wrote.
    pub protocol: String,
    /// `tls`.
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes.namespaces`.
    pub allowed_namespaces: FromNamespaces,
    /// `allowedRoutes.kinds`; empty means what the protocol implies.
    pub allowed_kinds: Vec<RouteGroupKind>,
    /// A set field that guards the listener and that this control plane does not implement, as a path
    /// (`spec.tls.frontend`). Who asks for clients to be checked is served to nobody rather than to everybody.
    pub missing_guard: Option<String>,
}

/// `allowedRoutes.namespaces.from` with its selector.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum FromNamespaces {
    /// The Gateway's own; the API's default.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Those with matching labels.
    Selector(LabelSelector),
    /// No namespace at all.
    None,
}

/// A route kind, as `allowedRoutes.kinds` and `supportedKinds` write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteGroupKind {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
}

/// `listeners[].tls`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// `mode`; the default is Terminate.
    pub mode: TlsMode,
    /// `certificateRefs`.
    pub certificate_refs: Vec<CertificateRef>,
    /// `options`: implementation-specific, none known yet.
    pub options: BTreeMap<String, String>,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// At the gateway.
    #[default]
    Terminate,
    /// At the backend.
    Passthrough,
}

/// A reference to a certificate, with the API's defaults applied by [`CertificateRef::secret`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateRef {
    /// None means core.
    pub group: Option<String>,
    /// None means Secret.
    pub kind: Option<String>,
    /// None means the Gateway's namespace.
    pub namespace: Option<String>,
    /// Object's name.
    pub name: String,
}
