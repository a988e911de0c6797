//! GatewayParameters: what the Gateway API leaves to the implementation.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Autoscaling, Resources, Scheduling, ServiceExposure};

/// Settings of the proxies of one Gateway; a Gateway names it in `spec.infrastructure.parametersRef`.
/// What is unset here comes from the MeshControlPlane's `gateways`.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "GatewayParameters",
    plural = "gatewayparameters",
    shortname = "gwp",
    category = "mesh",
    namespaced,
    derive = "PartialEq",
    doc = "GatewayParameters holds the settings of the proxies of one Gateway, which names it in spec.infrastructure.parametersRef."
)]
#[serde(rename_all = "camelCase")]
pub struct GatewayParametersSpec {
    /// The Service in front of the proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceExposure>,
    /// Bounds of the HorizontalPodAutoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// CPU and memory of the proxy container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the proxies may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
}
