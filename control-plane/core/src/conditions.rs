//! Every condition type and reason that this control plane writes, in one place. The words are the Gateway
//! API's (apis/v1/*_types.go, v1.7.0) unless the name carries our domain.

/// `Accepted` of GatewayClass, Gateway, listener and route.
pub const ACCEPTED: &str = "Accepted";
/// `Programmed` of Gateway and listener.
pub const PROGRAMMED: &str = "Programmed";
/// `ResolvedRefs` of Gateway, listener and route.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// `Conflicted` of a listener.
pub const CONFLICTED: &str = "Conflicted";
/// `OverlappingTLSConfig` of a listener; only written while it is True.
pub const OVERLAPPING_TLS_CONFIG: &str = "OverlappingTLSConfig";
/// `SupportedVersion` of a GatewayClass.
pub const SUPPORTED_VERSION: &str = "SupportedVersion";
/// `PartiallyInvalid` of a route or a policy; only written while it is True.
pub const PARTIALLY_INVALID: &str = "PartiallyInvalid";
/// Ours, of a route: False while a proxy refuses the configuration made from it; absent otherwise.
pub const ROUTE_PROGRAMMED: &str = "meshwright.io/Programmed";

/// What a GatewayClass status writer owns; other types belong to others.
pub const GATEWAY_CLASS_TYPES: &[&str] = &[ACCEPTED, SUPPORTED_VERSION];
/// What a Gateway status writer owns.
pub const GATEWAY_TYPES: &[&str] = &[ACCEPTED, PROGRAMMED, RESOLVED_REFS];
/// What a listener status writer owns.
pub const LISTENER_TYPES: &[&str] =
    &[ACCEPTED, PROGRAMMED, RESOLVED_REFS, CONFLICTED, OVERLAPPING_TLS_CONFIG];
/// What a route parent status writer owns (its entry is ours altogether, foreign types in it still stay).
pub const ROUTE_TYPES: &[&str] = &[ACCEPTED, RESOLVED_REFS, PARTIALLY_INVALID, ROUTE_PROGRAMMED];
/// What the status writer of the mesh's policies owns.
pub const POLICY_TYPES: &[&str] = &[ACCEPTED, PARTIALLY_INVALID];

/// Reasons, named as the API names them.
pub mod reason {
    /// Any kind: accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// Any kind: not looked at, or not finished yet.
    pub const PENDING: &str = "Pending";
    /// Gateway, listener: in the proxies.
    pub const PROGRAMMED: &str = "Programmed";
    /// Gateway, listener: cannot be in the proxies.
    pub const INVALID: &str = "Invalid";
    /// Gateway, listener, route: every reference leads somewhere.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// Listener, route: a ReferenceGrant is missing.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// GatewayClass, Gateway: parametersRef leads nowhere.
    pub const INVALID_PARAMETERS: &str = "InvalidParameters";

    /// GatewayClass: the CRDs are of a version that this program was made for.
    pub const SUPPORTED_VERSION: &str = "SupportedVersion";
    /// GatewayClass: they are not.
    pub const UNSUPPORTED_VERSION: &str = "UnsupportedVersion";

    /// Gateway: some listener is not accepted.
    pub const LISTENERS_NOT_VALID: &str = "ListenersNotValid";
    /// Gateway: some listener's references are not resolved.
    pub const LISTENERS_NOT_RESOLVED: &str = "ListenersNotResolved";
    /// Gateway: a requested address of a type that is not supported.
    pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
    /// Gateway: no address yet.
    pub const ADDRESS_NOT_ASSIGNED: &str = "AddressNotAssigned";
    /// Gateway: a requested address that cannot be had.
    pub const ADDRESS_NOT_USABLE: &str = "AddressNotUsable";
    /// Gateway: no proxy can be started.
    pub const NO_RESOURCES: &str = "NoResources";

    /// Listener: same port and hostname as another.
    pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
    /// Listener: same port, another protocol.
    pub const PROTOCOL_CONFLICT: &str = "ProtocolConflict";
    /// Listener: no conflict.
    pub const NO_CONFLICTS: &str = "NoConflicts";
    /// Listener: a port that the proxy needs itself.
    pub const PORT_UNAVAILABLE: &str = "PortUnavailable";
    /// Listener: a protocol that this control plane does not have.
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    /// Listener, route: a value that this control plane does not have.
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    /// Listener: the certificate is missing or no certificate.
    pub const INVALID_CERTIFICATE_REF: &str = "InvalidCertificateRef";
    /// Listener: allowedRoutes.kinds has a kind that the protocol cannot carry.
    pub const INVALID_ROUTE_KINDS: &str = "InvalidRouteKinds";
    /// Listener: another HTTPS listener of the port has an overlapping hostname.
    pub const OVERLAPPING_HOSTNAMES: &str = "OverlappingHostnames";

    /// Route: no listener allows the route's namespace or kind.
    pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
    /// Route: no listener has a matching hostname.
    pub const NO_MATCHING_LISTENER_HOSTNAME: &str = "NoMatchingListenerHostname";
    /// Route: the parent, or the listener or port of it that is asked for, does not exist.
    pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
    /// Route: another route of a more specific kind has the port (GEP-1294). Policy: another one decides.
    pub const CONFLICTED: &str = "Conflicted";
    /// Route: filters that exclude each other.
    pub const INCOMPATIBLE_FILTERS: &str = "IncompatibleFilters";
    /// Route: a backend of an unknown group or kind.
    pub const INVALID_KIND: &str = "InvalidKind";
    /// Route: no such backend.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    /// Route: the backend's port speaks a protocol that a route about requests cannot use. Policy: it looks at requests where none are.
    pub const UNSUPPORTED_PROTOCOL_BACKEND: &str = "UnsupportedProtocol";
    /// Policy: it selects nothing.
    pub const TARGET_NOT_FOUND: &str = "TargetNotFound";
    /// Ours, route: a proxy refused the configuration.
    pub const REJECTED_BY_PROXY: &str = "RejectedByProxy";
}
