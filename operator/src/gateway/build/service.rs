//! The Gateway's address.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use meshwright_api::ServiceType;

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
            selector: selector(gateway).match_labels,
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
