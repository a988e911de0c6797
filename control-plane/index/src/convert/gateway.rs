//! Gateway and GatewayParameters.

use std::collections::BTreeMap;

use meshwright_api::gateway as api;
use meshwright_core::model::{
    AddressType, CertificateRef, FromNamespaces, Gateway, GatewayParameters, Infrastructure, LabelOperator,
    LabelRequirement, LabelSelector, Listener, ListenerTls, ParametersRef, RequestedAddress, RouteGroupKind,
    TlsMode,
};

use meshwright_core::model::GATEWAY_GROUP;

use super::unsupported;

pub(crate) fn gateway_parameters(object: &meshwright_api::GatewayParameters) -> GatewayParameters {
    GatewayParameters { meta: super::meta(&object.metadata) }
}

pub(crate) fn gateway(object: &api::Gateway) -> Gateway {
    let spec = &object.spec;
    Gateway {
        meta: super::meta(&object.metadata),
        class_name: spec.gateway_class_name.clone(),
        listeners: spec.listeners.iter().map(|one| listener(spec, one)).collect(),
        addresses: spec.addresses.iter().flatten().map(address).collect(),
        infrastructure: spec.infrastructure.as_ref().map(infrastructure).unwrap_or_default(),
        unsupported_fields: unsupported::fields(spec),
    }
}

fn address(address: &api::GatewayAddresses) -> RequestedAddress {
    let kind = match address.r#type.as_deref() {
        None | Some("IPAddress") => AddressType::IpAddress,
        Some("Hostname") => AddressType::Hostname,
        Some(other) => AddressType::Other(other.to_owned()),
    };
    RequestedAddress { kind, value: address.value.clone().unwrap_or_default() }
}

fn infrastructure(infrastructure: &api::GatewayInfrastructure) -> Infrastructure {
    Infrastructure {
        labels: infrastructure.labels.clone().unwrap_or_default(),
        annotations: infrastructure.annotations.clone().unwrap_or_default(),
        parameters_ref: infrastructure.parameters_ref.as_ref().map(|reference| ParametersRef {
            group: reference.group.clone(),
            kind: reference.kind.clone(),
            namespace: None,
            name: reference.name.clone(),
        }),
    }
}

fn listener(spec: &api::GatewaySpec, listener: &api::GatewayListeners) -> Listener {
    let allowed = listener.allowed_routes.as_ref();
    let kinds = allowed.and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    Listener {
        name: listener.name.clone(),
        hostname: listener.hostname.clone(),
        port: super::port(listener.port),
        protocol: listener.protocol.clone(),
        tls: listener.tls.as_ref().map(tls),
        allowed_namespaces: allowed
            .and_then(|allowed| allowed.namespaces.as_ref())
            .map(namespaces)
            .unwrap_or_default(),
        allowed_kinds: kinds.iter().map(route_kind).collect(),
        missing_guard: unsupported::guard(spec, listener),
    }
}

fn route_kind(kind: &api::GatewayListenersAllowedRoutesKinds) -> RouteGroupKind {
    let group = kind.group.clone().unwrap_or_else(|| GATEWAY_GROUP.to_owned());
    RouteGroupKind { group, kind: kind.kind.clone() }
}

fn namespaces(allowed: &api::GatewayListenersAllowedRoutesNamespaces) -> FromNamespaces {
    use api::GatewayListenersAllowedRoutesNamespacesFrom as From;
    match allowed.from {
        Some(From::All) => FromNamespaces::All,
        None | Some(From::Same) => FromNamespaces::Same,
        // Without a selector there is nothing to select by; the empty selector would be everything.
        Some(From::Selector) => allowed.selector.as_ref().map_or(FromNamespaces::None, |selector| {
            let expressions = selector.match_expressions.iter().flatten();
            FromNamespaces::Selector(LabelSelector {
                match_labels: selector.match_labels.clone().unwrap_or_else(BTreeMap::new),
                match_expressions: expressions.map(requirement).collect(),
            })
        }),
    }
}

fn requirement(
    expression: &api::GatewayListenersAllowedRoutesNamespacesSelectorMatchExpressions,
) -> LabelRequirement {
    let operator = match expression.operator.as_str() {
        "In" => LabelOperator::In,
        "NotIn" => LabelOperator::NotIn,
        "Exists" => LabelOperator::Exists,
        "DoesNotExist" => LabelOperator::DoesNotExist,
        other => LabelOperator::Unknown(other.to_owned()),
    };
    LabelRequirement {
        key: expression.key.clone(),
        operator,
        values: expression.values.clone().unwrap_or_default(),
    }
}

fn tls(tls: &api::GatewayListenersTls) -> ListenerTls {
    ListenerTls {
        mode: match tls.mode {
            Some(api::GatewayListenersTlsMode::Passthrough) => TlsMode::Passthrough,
            None | Some(api::GatewayListenersTlsMode::Terminate) => TlsMode::Terminate,
        },
        certificate_refs: tls.certificate_refs.iter().flatten().map(certificate_ref).collect(),
        options: tls.options.clone().unwrap_or_default(),
    }
}

fn certificate_ref(reference: &api::GatewayListenersTlsCertificateRefs) -> CertificateRef {
    CertificateRef {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn convert(spec: Value) -> Gateway {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"namespace": "shop", "name": "edge", "generation": 3,
                "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": spec,
        });
        gateway(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn defaults_of_a_listener_are_the_apis() {
        let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
        let gateway = convert(json!({"gatewayClassName": "meshwright", "listeners": listeners}));
        assert_eq!((gateway.meta.generation, gateway.meta.created), (3, 60));
        let listener = &gateway.listeners[0];
        assert_eq!(listener.allowed_namespaces, FromNamespaces::Same);
        assert_eq!((listener.port, listener.hostname.as_deref()), (80, None));
        assert!(listener.allowed_kinds.is_empty() && gateway.unsupported_fields.is_empty());
    }

    #[test]
    fn tls_selector_and_kinds_come_through() {
        let selector = json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a"]}]});
        let gateway = convert(json!({"gatewayClassName": "x", "listeners": [{
            "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": "cert", "namespace": "certs"}]},
            "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}, "kinds": [{"kind": "HTTPRoute"}]},
        }]}));
        let listener = &gateway.listeners[0];
        let tls = listener.tls.as_ref().unwrap();
        assert_eq!(tls.certificate_refs[0].namespace.as_deref(), Some("certs"));
        assert_eq!(listener.allowed_kinds[0].group, GATEWAY_GROUP);
        let FromNamespaces::Selector(selector) = &listener.allowed_namespaces else { panic!() };
        assert_eq!(selector.match_expressions[0].operator, LabelOperator::In);
    }

    #[test]
    fn a_listener_knows_of_the_guard_it_lacks() {
        let gateway = convert(json!({"gatewayClassName": "x", "listeners": [
            {"name": "open", "port": 80, "protocol": "HTTP"},
            {"name": "guarded", "port": 81, "protocol": "HTTP", "filters": {}}]}));
        let guards = gateway.listeners.into_iter().map(|listener| listener.missing_guard);
        assert_eq!(guards.collect::<Vec<_>>(), [None, Some("spec.listeners[guarded].filters".to_owned())]);
    }

    #[test]
    fn types_of_addresses_are_told_apart() {
        let gateway = convert(json!({"gatewayClassName": "x",
            "addresses": [{"type": "NamedAddress", "value": "a"}, {"value": "192.0.2.1"}],
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}));
        assert_eq!(gateway.addresses[0].kind, AddressType::Other("NamedAddress".to_owned()));
        assert_eq!(gateway.addresses[1].kind, AddressType::IpAddress);
    }
}
