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
/// On a namespace or a pod: whether its pods are in the mesh, [`MESH_ENABLED`] or [`MESH_DISABLED`]; the pod's own label wins.
pub const MESH: &str = "meshwright.io/mesh";
/// Value of [`MESH`]: in.
pub const MESH_ENABLED: &str = "enabled";
/// Value of [`MESH`]: out.
pub const MESH_DISABLED: &str = "disabled";
/// On pods of node proxies: the ports that they use, see [`crate::NodeSlot`].
pub const NODE_SLOT: &str = "meshwright.io/node-slot";
/// `control-plane`, `gateway` or `node`.
pub const COMPONENT: &str = "meshwright.io/component";
/// Value of [`COMPONENT`] for the control plane.
pub const COMPONENT_CONTROL_PLANE: &str = "control-plane";
/// Value of [`COMPONENT`] for gateway proxies.
pub const COMPONENT_GATEWAY: &str = "gateway";
/// Value of [`COMPONENT`] for node proxies.
pub const COMPONENT_NODE: &str = "node";
/// Gateway API's label for what was generated for a Gateway.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Gateway API's label for the class of that Gateway.
pub const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Annotation of the Gateway API CRDs: the release they come from.
pub const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// Annotation of the Gateway API CRDs: `standard` or `experimental`.
pub const CHANNEL: &str = "gateway.networking.k8s.io/channel";

/// Annotation of a MeshControlPlane: `<new revision>/<step>/<user>`, step as in
/// `status.upgrade.awaitsApproval`. The user must be the one who sets it.
pub const APPROVE: &str = "meshwright.io/approve";
/// Annotation of a MeshControlPlane: `<plan>/<user>`, the plan whose blockers are accepted. The user must be the one who sets it.
pub const ACKNOWLEDGE: &str = "meshwright.io/acknowledge";
/// Annotation of a MeshControlPlane: the new revision that is to be left again.
pub const ROLLBACK: &str = "meshwright.io/rollback";
/// Annotation of a MeshControlPlane: the upgrade that went back and is to be tried again, `<new revision>/<status.upgrade.started>`. One that
/// stays in somebody's files does not have the next one tried again, too.
pub const RETRY: &str = "meshwright.io/retry";
/// Annotation of a MeshControlPlane: the old revision that need not stay warm any longer.
pub const END_KEEP_WARM: &str = "meshwright.io/end-keep-warm";
