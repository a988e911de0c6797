//! Pod. Read as little as possible of it: there are more pods than anything else, and they are large.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use meshwright_core::mesh;
use meshwright_core::model::Pod;
use serde::Deserialize;

/// Labels of pods that their makers set: what the name of the pod was made from.
const TEMPLATE_HASH: &str = "pod-template-hash";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// The parts of a Pod that decide about membership and policies; the others are not even decoded.
#[derive(Debug, Clone, Deserialize, Resource)]
#[resource(inherit = api::Pod)]
pub(crate) struct PodView {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecView,
    #[serde(default)]
    status: StatusView,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecView {
    node_name: String,
    service_account_name: String,
    host_network: bool,
    containers: Vec<ContainerView>,
    init_containers: Vec<ContainerView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerView {
    name: String,
    ports: Vec<api::ContainerPort>,
    liveness_probe: HandlerView,
    readiness_probe: HandlerView,
    startup_probe: HandlerView,
    lifecycle: LifecycleView,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LifecycleView {
    post_start: HandlerView,
    pre_stop: HandlerView,
}

/// Of a probe or a hook, what makes the kubelet connect to the pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HandlerView {
    http_get: Option<PortView>,
    tcp_socket: Option<PortView>,
    grpc: Option<PortView>,
}

#[derive(Debug, Clone, Deserialize)]
struct PortView {
    port: IntOrString,
    #[serde(default)]
    host: String,
}

impl ContainerView {
    /// Ports of the pod to which the kubelet connects.
    fn probes(&self) -> impl Iterator<Item = u16> {
        let handlers = [
            &self.liveness_probe,
            &self.readiness_probe,
            &self.startup_probe,
            &self.lifecycle.post_start,
            &self.lifecycle.pre_stop,
        ];
        let all = handlers.into_iter().flat_map(|one| [&one.http_get, &one.tcp_socket, &one.grpc]);
        // With a host of its own it goes elsewhere.
        all.flatten().filter(|view| view.host.is_empty()).filter_map(|view| self.number(&view.port))
    }

    fn number(&self, port: &IntOrString) -> Option<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let named = self.ports.iter().find(|port| port.name.as_ref() == Some(name));
                named.map_or_else(|| name.parse().unwrap_or(0), |port| port.container_port)
            }
        };
        u16::try_from(number).ok().filter(|number| *number != 0)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusView {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<AddressView>,
    start_time: Option<Time>,
    conditions: Vec<ConditionView>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConditionView {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
    last_transition_time: Option<Time>,
}

/// True since the pod has its network.
const HAS_NETWORK: &str = "PodReadyToStartContainers";

#[derive(Debug, Clone, Deserialize)]
struct AddressView {
    ip: String,
}

/// None for a pod that has ended, or has no node yet.
pub(crate) fn pod(object: PodView) -> Option<Pod> {
    let PodView { metadata, spec, status } = object;
    let has_ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    if has_ended || spec.node_name.is_empty() {
        return None;
    }
    let since = since(&metadata, &status);
    let labels = metadata.labels.unwrap_or_default();
    let label = |name: &str| labels.get(name).map(String::as_str);
    let workload = mesh::workload(
        metadata.name.as_deref().unwrap_or_default(),
        metadata.generate_name.as_deref(),
        label(TEMPLATE_HASH),
        label(JOB_NAME),
    );
    let containers: Vec<_> = spec.init_containers.into_iter().chain(spec.containers).collect();
    let probes = containers.iter().flat_map(ContainerView::probes).collect();
    let mut names = containers.into_iter().map(|one| one.name);
    Some(Pod {
        uid: metadata.uid.unwrap_or_default(),
        node: spec.node_name,
        labels,
        service_account: spec.service_account_name,
        workload,
        host_network: spec.host_network,
        addresses: status.pod_ips.into_iter().map(|address| address.ip).collect(),
        since,
        sidecar: names.find(|name| mesh::is_foreign_sidecar(name)),
        probes,
    })
}

fn since(metadata: &ObjectMeta, status: &StatusView) -> i64 {
    let network = status.conditions.iter().find(|one| one.kind == HAS_NETWORK && one.status == "True");
    let network = network.and_then(|one| one.last_transition_time.as_ref());
    let since = network.or(status.start_time.as_ref()).or(metadata.creation_timestamp.as_ref());
    since.map_or(0, |time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use serde_json::{Value, json};

    fn object() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "cart-0", "uid": "u",
                "labels": {"app": "cart", "meshwright.io/mesh": "enabled", "pod-template-hash": "x"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "cart", "containers": [{"name": "app", "image": "i"}],
                "initContainers": [{"name": "init"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        })
    }

    /// With something at a path, which need not be there.
    fn with(path: &[&str], value: Value) -> Option<Pod> {
        let mut object = object();
        let place = path.iter().fold(&mut object, |place, name| &mut place[*name]);
        *place = value;
        pod(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn only_what_decides_is_kept() {
        let expected = Pod {
            uid: "u".to_owned(),
            node: "n1".to_owned(),
            labels: [("app", "cart"), ("meshwright.io/mesh", "enabled"), ("pod-template-hash", "x")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            service_account: "cart".to_owned(),
            workload: "cart-0".to_owned(),
            host_network: false,
            addresses: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
            since: 0,
            sidecar: None,
            probes: BTreeSet::new(),
        };
        assert_eq!(pod(serde_json::from_value(object()).unwrap()), Some(expected));
        let made = with(&["metadata", "generateName"], json!("cart-x-")).unwrap();
        assert_eq!(made.workload, "cart");
        assert!(with(&["spec", "hostNetwork"], json!(true)).unwrap().host_network);
        assert_eq!(with(&["status"], json!({"phase": "Pending"})).unwrap().addresses, [""; 0]);
    }

    #[test]
    fn a_pod_is_as_old_as_its_network() {
        let at = |second: u8| format!("1970-01-01T00:00:0{second}Z");
        let since = |status: Value| {
            let mut object = object();
            object["metadata"]["creationTimestamp"] = json!(at(1));
            object["status"] = status;
            pod(serde_json::from_value(object).unwrap()).unwrap().since
        };
        let condition = |status: &str| {
            json!({"startTime": at(2), "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(9)},
                {"type": "PodReadyToStartContainers", "status": status, "lastTransitionTime": at(3)}]})
        };
        assert_eq!(since(json!({})), 1);
        assert_eq!((since(condition("False")), since(condition("True"))), (2, 3));
    }

    #[test]
    fn pods_that_have_ended_or_have_no_node_are_left_out() {
        assert_eq!(with(&["status", "phase"], json!("Succeeded")), None);
        assert_eq!(with(&["status", "phase"], json!("Failed")), None);
        assert_eq!(with(&["spec"], json!({"containers": []})), None);
        // Its containers are still at work.
        assert!(with(&["metadata", "deletionTimestamp"], json!("2026-11-23T00:00:00Z")).is_some());
    }

    #[test]
    fn a_sidecar_is_known_wherever_it_is() {
        let native = json!([{"name": "init"}, {"name": "istio-proxy", "restartPolicy": "Always"}]);
        assert_eq!(
            with(&["spec", "initContainers"], native).unwrap().sidecar.as_deref(),
            Some("istio-proxy")
        );
        let classic = json!([{"name": "app"}, {"name": "linkerd-proxy"}]);
        assert_eq!(with(&["spec", "containers"], classic).unwrap().sidecar.as_deref(), Some("linkerd-proxy"));
    }

    #[test]
    fn probes_are_what_the_kubelet_connects_to() {
        let containers = json!([
            {"name": "app", "ports": [{"name": "web", "containerPort": 8080}, {"name": "db", "containerPort": 3306}],
                "livenessProbe": {"httpGet": {"port": "web", "path": "/"}}, "readinessProbe": {"tcpSocket": {"port": 9000}},
                "startupProbe": {"grpc": {"port": 9001}}, "lifecycle": {"preStop": {"httpGet": {"port": 9002}}}},
            {"name": "other", "livenessProbe": {"exec": {"command": ["x"]}}, "readinessProbe": {"httpGet": {"port": "web"}},
                "startupProbe": {"httpGet": {"port": 80, "host": "10.0.0.9"}}},
        ]);
        let found = with(&["spec", "containers"], containers).unwrap();
        assert_eq!(found.probes, [8080, 9000, 9001, 9002].into());
    }
}
