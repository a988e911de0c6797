//! Replicas of control planes, as Kubernetes knows them. Pure.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use meshwright_api::labels;

use crate::pods::is_ready;

/// Where control planes serve the inspection: beside ADS, under the same certificate.
const PORT: u16 = 15012;

/// A control-plane pod that exists and is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its revision.
    pub revision: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod: an address may have been another pod's before.
    pub uid: String,
    /// Whether it can be asked.
    pub state: State,
}

/// What can be had from a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its process runs and has an address. One that is not ready, or is ending, may still have streams.
    Running {
        /// Where to ask.
        address: SocketAddr,
        /// Whether it is ready.
        ready: bool,
    },
    /// It has not started, or has crashed: no stream can be open, and nobody can be asked.
    Stopped,
}

impl Replica {
    /// Where to ask, if anything runs.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.state {
            State::Running { address, .. } => Some(address),
            State::Stopped => None,
        }
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { ready: true, .. })
    }
}

/// The replicas among these pods.
pub fn replicas(pods: &[Pod]) -> Vec<Replica> {
    pods.iter().filter_map(replica).collect()
}

fn replica(pod: &Pod) -> Option<Replica> {
    let labels = pod.labels();
    let is_ours = labels.get(labels::COMPONENT).is_some_and(|c| c == labels::COMPONENT_CONTROL_PLANE);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if !is_ours || matches!(phase, Some("Failed" | "Succeeded")) {
        return None;
    }
    let revision = labels.get(labels::REVISION)?.clone();
    let address = address(pod).map(|ip| SocketAddr::new(ip, PORT));
    let state = match address {
        Some(address) if may_run(pod) => State::Running { address, ready: is_ready(pod) },
        _ => State::Stopped,
    };
    Some(Replica { revision, pod: pod.name_any(), uid: pod.uid().unwrap_or_default(), state })
}

pub(super) fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

// Streams are opened through the Service, so never before the kubelet has told that the container runs and is ready. A
// node that was lost leaves "running" behind, and such a pod stays one that would have to be asked.
fn may_run(pod: &Pod) -> bool {
    let stopped = |status: &ContainerStatus| status.state.as_ref().is_some_and(|s| s.running.is_none());
    let mut containers = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    !containers.any(stopped)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(component: &str, status: serde_json::Value) -> Pod {
        let labels = json!({"meshwright.io/component": component, "meshwright.io/revision": "mesh-1"});
        let meta = json!({"name": "cp-0", "uid": "u-0", "labels": labels});
        serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap()
    }

    fn state(status: serde_json::Value) -> Option<State> {
        replicas(&[pod("control-plane", status)]).first().map(|r| r.state)
    }

    #[test]
    fn a_running_pod_is_asked_at_its_own_address_ready_or_not() {
        let ready = json!({"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "control-plane", "state": {"running": {}},
                "image": "i", "imageID": "i", "ready": true, "restartCount": 0}]});
        let address = "10.0.0.7:15012".parse().unwrap();
        assert_eq!(state(ready), Some(State::Running { address, ready: true }));
        let six = json!({"podIP": "fd00::7"});
        let address = "[fd00::7]:15012".parse().unwrap();
        assert_eq!(state(six), Some(State::Running { address, ready: false }));
    }

    #[test]
    fn a_pod_that_has_not_started_or_has_crashed_can_have_no_stream() {
        assert_eq!(state(json!({"phase": "Pending"})), Some(State::Stopped));
        let crashed = json!({"podIP": "10.0.0.7", "containerStatuses": [{"name": "control-plane",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "image": "i", "imageID": "i", "ready": false, "restartCount": 3}]});
        assert_eq!(state(crashed), Some(State::Stopped));
    }

    #[test]
    fn what_is_over_or_something_else_is_no_replica() {
        assert_eq!(state(json!({"phase": "Failed", "podIP": "10.0.0.7"})), None);
        assert_eq!(replicas(&[pod("gateway", json!({"podIP": "10.0.0.7"}))]), []);
    }
}
