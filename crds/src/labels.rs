//! Labels and annotations, each with one spelling.

/// `app.kubernetes.io/managed-by`, value [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] on everything the operator makes.
pub const MANAGER: &str = "meshwright";
/// Name of the MeshControlPlane an object was made for.
pub const MESH_NAME: &str = "meshwright.io/mesh-name";
/// Namespace of the MeshControlPlane a cluster-scoped object was made for.
pub const MESH_NAMESPACE: &str = "meshwright.io/mesh-namespace";
/// Name of the MeshRevision an object or pod belongs to.
pub const REVISION: &str = "meshwright.io/revision";
/// `control-plane` or `gateway`.
pub const COMPONENT: &str = "meshwright.io/component";
/// Value of [`COMPONENT`] for the control plane.
pub const COMPONENT_CONTROL_PLANE: &str = "control-plane";
/// Value of [`COMPONENT`] for gateway proxies.
pub const COMPONENT_GATEWAY: &str = "gateway";
/// Gateway API's label for what was generated for a Gateway.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Gateway API's label for the class of that Gateway.
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Annotation of the Gateway API CRDs: the release they come from.
pub const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// Annotation of the Gateway API CRDs: `standard` or `experimental`.
pub const CHANNEL: &str = "gateway.networking.k8s.io/channel";
