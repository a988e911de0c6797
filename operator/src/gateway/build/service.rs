//! The Gateway's address.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use meshwright_api::{ServiceType, labels};

use super::{ValidatedGateway, propagated, selector};

pub(super) fn build(gateway: &ValidatedGateway) -> Service {
    let ports = gateway.ports.iter().map(|(port, name)| ServicePort {
        name: Some(name.clone()),
        port: *port,
        target_port: Some(IntOrString::Int(*port)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    });
    let exposed = gateway.service != ServiceType::ClusterIP;
    Service {
        metadata: propagated(gateway),
        spec: Some(ServiceSpec {
            type_: Some(gateway.service.as_str().to_owned()),
            selector: Some(behind(gateway)),
            ports: Some(ports.collect()),
            // Any node answers for any pod: while a pod moves, no node is without one. API defaults for ClusterIP.
            external_traffic_policy: exposed.then(|| "Cluster".to_owned()),
            load_balancer_ip: gateway
                .address
                .clone()
                .filter(|_| gateway.service == ServiceType::LoadBalancer),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

// All revisions by their common labels, or one of them: a single write takes a revision's pods out for all.
fn behind(gateway: &ValidatedGateway) -> BTreeMap<String, String> {
    let mut selector = selector(gateway).match_labels.unwrap_or_default();
    selector.extend(gateway.behind.iter().map(|revision| (labels::REVISION.to_owned(), revision.clone())));
    selector
}
