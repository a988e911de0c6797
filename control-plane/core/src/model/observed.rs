//! What was seen of the objects that the operator makes for a Gateway.

use super::AddressType;

/// The Service and the Deployments of one Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayObservation {
    /// Addresses by which the Gateway's Service can be reached, in the Service's order; empty while none is
    /// assigned.
    pub addresses: Vec<AssignedAddress>,
    /// The proxies.
    pub deployment: DeploymentState,
}

/// An address for `status.addresses`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssignedAddress {
    /// IPAddress or Hostname.
    pub kind: AddressType,
    /// The address itself.
    pub value: String,
}

/// The Gateway's Deployments of all revisions together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeploymentState {
    /// Not made yet.
    #[default]
    Absent,
    /// Made, but no pod is ready and nothing says that none will be.
    Progressing,
    /// At least one pod is ready.
    Ready {
        /// Ready pods.
        ready: u32,
    },
    /// No pod can be made, e.g. quota or Pod Security: the Deployment's own words (ReplicaFailure, or an
    /// annotation of the operator).
    Failed(String),
}
