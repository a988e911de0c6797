//! The availability solver: one pure function from a profile and a user's bounds to everything that keeps a workload
//! available. Its promises, each a property test: a drain of any one node can always go on; one node may vanish and
//! pods remain wherever there is more than one; one full node of three or more does not keep pods of the minimum from
//! starting; the HPA's minimum exceeds what the PDB protects; a rollout never goes
//! below the steady capacity.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meshwright_api::{Autoscaling, Profile};

#[cfg(test)]
mod tests;

/// Average CPU use that the autoscaler aims at when nothing is said.
const TARGET_CPU_PERCENT: i32 = 70;

/// Which kind of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A revision's control plane.
    ControlPlane,
    /// The proxies of one Gateway.
    Gateway,
}

/// Everything that decides on availability. It is mended in place; only [`Plan::node_skew`] is in a pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Fewest pods: the Deployment's first size and the HPA's minimum.
    pub min: i32,
    /// Most pods.
    pub max: i32,
    /// Target of the HPA, percent of the CPU request.
    pub target_cpu_percent: i32,
    /// The PDB's `maxUnavailable`. A number, because Kubernetes rounds a percentage up.
    pub max_disrupted: i32,
    /// Pods above the steady number during a rollout; `maxUnavailable` of a rollout is always 0.
    pub max_surge: IntOrString,
}

impl Plan {
    /// Pods that evictions always leave while the workload has its fewest pods.
    pub fn protected(&self) -> i32 {
        self.min - self.max_disrupted
    }

    /// The same with a fixed number of pods: two autoscalers on one Gateway would drift its shares.
    pub fn held(&self, pods: i32) -> Self {
        let pods = pods.max(1);
        Self { min: pods, max: pods, ..self.clone() }
    }

    /// By how many pods nodes may differ at most: never all of the fewest pods on one node, and yet all of them on the
    /// others while a node is full (a full node has none, so each other one may have just this many). It stands in the pod
    /// template, so it is a power of two: most changes of the minimum then roll no pods.
    pub fn node_skew(&self) -> i32 {
        let most = (self.min - 1).max(1);
        1 << most.ilog2()
    }
}

/// Decides. `bounds` are tried in order, the user's most specific first; the profile fills what they leave unset.
pub fn solve(workload: Workload, profile: Profile, bounds: &[Option<Autoscaling>]) -> Plan {
    let said = |field: fn(&Autoscaling) -> Option<i32>| bounds.iter().flatten().find_map(field);
    let (profile_min, profile_max) = match profile {
        Profile::Demo => (1, 2),
        Profile::Default => (2, 5),
        Profile::Production => (3, 10),
    };
    let (min, max) = match (said(|a| a.min_replicas), said(|a| a.max_replicas)) {
        (None, None) => (profile_min, profile_max),
        (Some(min), None) => (min, profile_max.max(min)),
        (None, Some(max)) => (profile_min.min(max), max),
        // From two objects a minimum and a maximum can cross; fewer pods than asked for would be the worse surprise.
        (Some(min), Some(max)) => (min, max.max(min)),
    };
    let min = min.max(1);
    Plan {
        min,
        max: max.max(min),
        target_cpu_percent: said(|a| a.target_cpu_percent).unwrap_or(TARGET_CPU_PERCENT),
        max_disrupted: match profile {
            Profile::Demo | Profile::Default => 1,
            Profile::Production => (min / 4).max(1),
        },
        max_surge: match workload {
            Workload::ControlPlane => IntOrString::Int(1),
            Workload::Gateway => IntOrString::String("25%".to_owned()),
        },
    }
}
