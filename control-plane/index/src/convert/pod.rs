//! Pod. Read as little as possible of it: there are more pods than anything else, and they are large.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
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
}

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
        sidecar: containers.find(|name| mesh::is_foreign_sidecar(name)),
    })
}
