//! TCPRoute.

use meshwright_api::gateway as api;
use meshwright_core::model::{BackendRef, HttpBackendRef, HttpRoute, HttpRouteRule, ParentRef, RouteKind};

pub(crate) fn tcp_route(object: &api::TcpRoute) -> HttpRoute {
    HttpRoute {
        kind: RouteKind::Tcp,
        meta: super::meta(&object.metadata),
        parent_refs: object.spec.parent_refs.iter().flatten().map(parent_ref).collect(),
        hostnames: Vec::new(),
        rules: object.spec.rules.iter().map(rule).collect(),
    }
}

fn parent_ref(reference: &api::TcpRouteParentRefs) -> ParentRef {
    ParentRef {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        section_name: reference.section_name.clone(),
        port: reference.port.map(super::port),
    }
}

fn rule(rule: &api::TcpRouteRules) -> HttpRouteRule {
    HttpRouteRule {
        name: rule.name.clone(),
        backend_refs: rule.backend_refs.iter().map(backend).collect(),
        ..HttpRouteRule::default()
    }
}

fn backend(backend: &api::TcpRouteRulesBackendRefs) -> HttpBackendRef {
    HttpBackendRef {
        backend_ref: BackendRef {
            group: backend.group.clone(),
            kind: backend.kind.clone(),
            namespace: backend.namespace.clone(),
            name: backend.name.clone(),
            port: backend.port.map(super::port),
        },
        weight: backend.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0)),
        filters: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parents_and_weights_are_read() {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute",
            "metadata": {"namespace": "shop", "name": "db", "generation": 3},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "db", "port": 3306}],
                "rules": [{"name": "split", "backendRefs": [
                    {"name": "db", "port": 3306, "weight": 9},
                    {"name": "db-v2", "namespace": "next", "port": 3307},
                    {"name": "old", "port": 3306, "weight": 0}]}]},
        });
        let route = tcp_route(&serde_json::from_value(object).unwrap());
        assert_eq!((route.kind, route.meta.generation), (RouteKind::Tcp, 3));
        assert_eq!(
            (route.parent_refs[0].group.as_deref(), route.parent_refs[0].port),
            (Some(""), Some(3306))
        );
        let [rule] = &route.rules[..] else { panic!("{:?}", route.rules) };
        assert_eq!(rule.name.as_deref(), Some("split"));
        let backends = rule.backend_refs.iter().map(|backend| {
            let to = &backend.backend_ref;
            (to.namespace.as_deref(), to.name.as_str(), to.port, backend.weight)
        });
        let expected = [
            (None, "db", Some(3306), 9),
            (Some("next"), "db-v2", Some(3307), 1),
            (None, "old", Some(3306), 0),
        ];
        assert_eq!(backends.collect::<Vec<_>>(), expected);
    }
}
