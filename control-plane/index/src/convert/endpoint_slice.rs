//! EndpointSlice.

use k8s_openapi::api::discovery::v1 as api;
use meshwright_core::ObjectKey;
use meshwright_core::model::{EndpointPort, EndpointSlice, SliceEndpoint};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// None for a slice that belongs to no Service.
pub(crate) fn endpoint_slice(object: api::EndpointSlice) -> Option<EndpointSlice> {
    let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME).filter(|name| !name.is_empty())?.clone();
    let namespace = object.metadata.namespace.unwrap_or_default();
    Some(EndpointSlice {
        service: ObjectKey::new(namespace, service),
        fqdn: object.address_type == "FQDN",
        ports: object.ports.unwrap_or_default().into_iter().map(port).collect(),
        endpoints: object.endpoints.into_iter().flatten().map(endpoint).collect(),
    })
}

fn port(port: api::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: port.name.unwrap_or_default(),
        port: port.port.and_then(|number| u16::try_from(number).ok()),
        protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
    }
}

fn endpoint(endpoint: api::Endpoint) -> SliceEndpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    SliceEndpoint {
        addresses: endpoint.addresses,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        zone: endpoint.zone,
        node: endpoint.node_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(labels: Value, conditions: Value) -> Option<EndpointSlice> {
        endpoint_slice(
            serde_json::from_value(json!({
                "metadata": {"namespace": "shop", "name": "cart-x", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.1.0.1"], "conditions": conditions, "zone": "a"}],
            }))
            .unwrap(),
        )
    }

    #[test]
    fn unset_conditions_mean_ready_and_serving() {
        let found = slice(json!({"kubernetes.io/service-name": "cart"}), json!({})).unwrap();
        assert_eq!(found.service, ObjectKey::new("shop", "cart"));
        let endpoint = &found.endpoints[0];
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating);
        assert_eq!(found.ports[0].port, Some(8080));
    }

    #[test]
    fn unset_serving_follows_ready_and_a_slice_without_service_is_nobodys() {
        let found = slice(json!({"kubernetes.io/service-name": "cart"}), json!({"ready": false})).unwrap();
        assert!(!found.endpoints[0].serving);
        assert_eq!(slice(json!({"other": "label"}), json!({})), None);
    }
}
