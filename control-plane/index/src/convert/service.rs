//! Service, and the address of a Gateway where the Service was made for one.

use k8s_openapi::api::core::v1 as api;
use meshwright_core::ObjectKey;
use meshwright_core::model::{
    AddressType, AssignedAddress, Balancing, Near, Service, ServicePort, ServiceType,
};

/// What a Service is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub(crate) service: Service,
    pub(crate) gateway: Option<GatewayService>,
}

/// The Service in front of a Gateway's proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayService {
    pub(crate) gateway: ObjectKey,
    pub(crate) addresses: Vec<AssignedAddress>,
}

pub(crate) fn service(object: api::Service) -> ServiceView {
    let meta = super::meta(&object.metadata);
    // Labels and owner could be anyone's: the name too has to be the one the operator gives.
    let gateway = super::made_for_gateway(&object.metadata)
        .filter(|gateway| meshwright_api::names::gateway_resources(&gateway.name) == meta.key.name);
    let spec = object.spec.unwrap_or_default();
    let gateway = gateway
        .map(|gateway| GatewayService { gateway, addresses: addresses(&spec, object.status.as_ref()) });
    let kind = match spec.type_.as_deref() {
        Some("ExternalName") => ServiceType::ExternalName(spec.external_name.clone().unwrap_or_default()),
        _ => ServiceType::Cluster,
    };
    let service = Service {
        meta,
        kind,
        headless: spec.cluster_ip.as_deref() == Some("None"),
        has_selector: spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()),
        cluster_ips: cluster_ips(&spec),
        balancing: balancing(&spec),
        ports: spec.ports.unwrap_or_default().into_iter().map(port).collect(),
    };
    ServiceView { service, gateway }
}

fn balancing(spec: &api::ServiceSpec) -> Balancing {
    let near = match spec.traffic_distribution.as_deref() {
        _ if spec.internal_traffic_policy.as_deref() == Some("Local") => Near::NodeOnly,
        Some("PreferClose" | "PreferSameZone") => Near::Zone,
        Some("PreferSameNode") => Near::Node,
        _ => Near::Anywhere,
    };
    Balancing { by_client: spec.session_affinity.as_deref() == Some("ClientIP"), near }
}

fn port(port: api::ServicePort) -> ServicePort {
    ServicePort {
        name: port.name.unwrap_or_default(),
        port: super::port(port.port),
        protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol,
    }
}

fn cluster_ips(spec: &api::ServiceSpec) -> Vec<String> {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    ips.iter().filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect()
}

/// What the load balancer assigned; for a Service without one, the address within the cluster.
fn addresses(spec: &api::ServiceSpec, status: Option<&api::ServiceStatus>) -> Vec<AssignedAddress> {
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return cluster_ips(spec).into_iter().map(ip).collect();
    }
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default();
    ingress
        .iter()
        .filter_map(|ingress| match (&ingress.ip, &ingress.hostname) {
            (Some(address), _) if !address.is_empty() => Some(ip(address.clone())),
            (_, Some(name)) if !name.is_empty() => {
                Some(AssignedAddress { kind: AddressType::Hostname, value: name.clone() })
            }
            _ => None,
        })
        .collect()
}

fn ip(value: String) -> AssignedAddress {
    AssignedAddress { kind: AddressType::IpAddress, value }
}

#[cfg(test)]
mod tests {
    use super::super::tests::made_for;
    use super::*;
    use serde_json::json;

    fn view(spec: serde_json::Value, status: serde_json::Value) -> ServiceView {
        let object = json!({"metadata": made_for("edge"), "spec": spec, "status": status});
        service(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_load_balancer_has_no_address_until_one_is_assigned() {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80}]});
        let waiting = view(spec.clone(), json!({}));
        assert_eq!(waiting.gateway.unwrap().addresses, []);
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}});
        let assigned = view(spec, ingress).gateway.unwrap();
        assert_eq!(assigned.gateway, ObjectKey::new("shop", "edge"));
        assert_eq!(assigned.addresses[0], ip("192.0.2.1".to_owned()));
        assert_eq!(assigned.addresses[1].kind, AddressType::Hostname);
    }

    #[test]
    fn what_is_said_of_the_choice_among_endpoints_is_kept() {
        let of = |spec: serde_json::Value| view(spec, json!({})).service.balancing;
        assert_eq!(
            of(json!({"sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})),
            Balancing::default()
        );
        assert!(of(json!({"sessionAffinity": "ClientIP"})).by_client);
        let near = |distribution: &str, policy: &str| {
            of(json!({"trafficDistribution": distribution, "internalTrafficPolicy": policy})).near
        };
        let found =
            ["PreferClose", "PreferSameZone", "PreferSameNode", "Later"].map(|name| near(name, "Cluster"));
        assert_eq!(found, [Near::Zone, Near::Zone, Near::Node, Near::Anywhere]);
        assert_eq!(near("PreferClose", "Local"), Near::NodeOnly);
    }

    #[test]
    fn a_cluster_ip_is_an_address_and_headless_has_none() {
        let spec = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]});
        assert_eq!(view(spec, json!({})).gateway.unwrap().addresses.len(), 1);
        let headless = view(json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!({}));
        assert!(headless.service.headless && headless.gateway.unwrap().addresses.is_empty());
    }

    #[test]
    fn the_labels_on_a_service_of_another_name_give_no_address() {
        let mut metadata = made_for("edge");
        metadata["name"] = json!("mine");
        let object = json!({"metadata": metadata, "spec": {"clusterIPs": ["10.0.0.9"]}});
        assert_eq!(service(serde_json::from_value(object).unwrap()).gateway, None);
    }

    #[test]
    fn a_gateway_whose_name_has_a_dot_gets_the_address_of_its_service() {
        let object = json!({"metadata": made_for("edge.example.com"), "spec": {"clusterIPs": ["10.0.0.9"]}});
        let found = service(serde_json::from_value(object).unwrap()).gateway.unwrap();
        assert_eq!(found.gateway, ObjectKey::new("shop", "edge.example.com"));
        assert_eq!(found.addresses, [ip("10.0.0.9".to_owned())]);
    }
}
