//! Pod. Read as little as possible of it: there are more pods than anything else, and they are large.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use meshwright_core::mesh;
use meshwright_core::model::Pod;
use serde::Deserialize;

/// The parts of a Pod that decide about membership; the others are not even decoded.
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

#[derive(Debug, Clone, Deserialize)]
struct ContainerView {
    name: String,
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
    let mut labels = metadata.labels.unwrap_or_default();
    labels.retain(|label, _| mesh::LABELS.contains(&label.as_str()));
    let mut containers = spec.init_containers.into_iter().chain(spec.containers).map(|one| one.name);
    Some(Pod {
        uid: metadata.uid.unwrap_or_default(),
        node: spec.node_name,
        labels,
        service_account: spec.service_account_name,
        host_network: spec.host_network,
        addresses: status.pod_ips.into_iter().map(|address| address.ip).collect(),
        since,
        sidecar: containers.find(|name| mesh::is_foreign_sidecar(name)),
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
            labels: [("meshwright.io/mesh".to_owned(), "enabled".to_owned())].into(),
            service_account: "cart".to_owned(),
            host_network: false,
            addresses: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
            since: 0,
            sidecar: None,
        };
        assert_eq!(pod(serde_json::from_value(object()).unwrap()), Some(expected));
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
}
