//! GRPCRoute.

use meshwright_api::gateway as api;
use meshwright_core::model::{
    BackendRef, HttpBackendRef, HttpRoute, HttpRouteMatch, HttpRouteRule, ParentRef, PathMatch, RouteKind,
    StringMatch, ValueMatch,
};

use super::http_route::value_match;

pub(crate) fn grpc_route(object: &api::GrpcRoute) -> HttpRoute {
    HttpRoute {
        kind: RouteKind::Grpc,
        meta: super::meta(&object.metadata),
        parent_refs: object.spec.parent_refs.iter().flatten().map(parent_ref).collect(),
        hostnames: object.spec.hostnames.clone().unwrap_or_default(),
        rules: object.spec.rules.iter().flatten().map(rule).collect(),
    }
}

fn parent_ref(reference: &api::GrpcRouteParentRefs) -> ParentRef {
    ParentRef {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        section_name: reference.section_name.clone(),
        port: reference.port.map(super::port),
    }
}

fn rule(rule: &api::GrpcRouteRules) -> HttpRouteRule {
    let unsupported = rule.session_persistence.as_ref().map(|_| "sessionPersistence".to_owned());
    HttpRouteRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().flatten().map(route_match).collect(),
        filters: rule.filters.iter().flatten().map(of_rule::filter).collect(),
        backend_refs: rule.backend_refs.iter().flatten().map(backend).collect(),
        unsupported_fields: unsupported.into_iter().collect(),
        ..HttpRouteRule::default()
    }
}

fn route_match(found: &api::GrpcRouteRulesMatches) -> HttpRouteMatch {
    let call = found.method.as_ref();
    let is_expression = call.is_some_and(|call| {
        matches!(call.r#type, Some(api::GrpcRouteRulesMatchesMethodType::RegularExpression))
    });
    let of = if is_expression { StringMatch::RegularExpression } else { StringMatch::Exact };
    // The API takes an empty one for one that is not there.
    let part = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned().map(of);
    HttpRouteMatch {
        path: PathMatch::Rpc {
            service: part(call.and_then(|call| call.service.as_ref())),
            method: part(call.and_then(|call| call.method.as_ref())),
        },
        headers: found.headers.iter().flatten().map(header).collect(),
        ..HttpRouteMatch::default()
    }
}

fn header(header: &api::GrpcRouteRulesMatchesHeaders) -> ValueMatch {
    let is_expression =
        matches!(header.r#type, Some(api::GrpcRouteRulesMatchesHeadersType::RegularExpression));
    value_match(&header.name, &header.value, is_expression)
}

fn backend(backend: &api::GrpcRouteRulesBackendRefs) -> HttpBackendRef {
    HttpBackendRef {
        backend_ref: BackendRef {
            group: backend.group.clone(),
            kind: backend.kind.clone(),
            namespace: backend.namespace.clone(),
            name: backend.name.clone(),
            port: backend.port.map(super::port),
        },
        weight: backend.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0)),
        filters: backend.filters.iter().flatten().map(of_backend::filter).collect(),
    }
}

/// As for HTTPRoutes, whose filters these are some of.
macro_rules! filters {
    () => {
        use crate::convert::http_route::filter::{headers, mirror};
        use meshwright_core::model::{BackendRef, HeaderModifier, HttpRouteFilter, RequestMirror};

        pub(super) fn filter(filter: &Filter) -> HttpRouteFilter {
            let converted = match filter.r#type {
                Type::RequestHeaderModifier => filter
                    .request_header_modifier
                    .as_ref()
                    .map(|set| HttpRouteFilter::RequestHeaderModifier(headers!(set))),
                Type::ResponseHeaderModifier => filter
                    .response_header_modifier
                    .as_ref()
                    .map(|set| HttpRouteFilter::ResponseHeaderModifier(headers!(set))),
                Type::RequestMirror => filter.request_mirror.as_ref().map(|mirror| mirror!(mirror)),
                Type::ExtensionRef => None,
            };
            converted.unwrap_or_else(|| HttpRouteFilter::Unsupported(format!("{:?}", filter.r#type)))
        }
    };
}

mod of_rule {
    use meshwright_api::gateway::{GrpcRouteRulesFilters as Filter, GrpcRouteRulesFiltersType as Type};
    filters!();
}

mod of_backend {
    use meshwright_api::gateway::{
        GrpcRouteRulesBackendRefsFilters as Filter, GrpcRouteRulesBackendRefsFiltersType as Type,
    };
    filters!();
}

#[cfg(test)]
mod tests {
    use meshwright_core::model::HttpRouteFilter;
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_headers_backends_and_filters_are_read() {
        let modifier = json!({"type": "RequestHeaderModifier",
            "requestHeaderModifier": {"add": [{"name": "a", "value": "b"}]}});
        let mirror =
            json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}}});
        let extension =
            json!({"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "y", "name": "z"}});
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
            "metadata": {"namespace": "shop", "name": "cart"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "echo", "port": 7070}], "rules": [{
                "matches": [
                    {"method": {"service": "shop.Cart", "method": "Add"}},
                    {"method": {"type": "RegularExpression", "service": "shop.*"}},
                    {"headers": [{"name": "x", "value": "1+", "type": "RegularExpression"}]}],
                "filters": [modifier, mirror, extension],
                "backendRefs": [{"name": "a", "port": 7070, "weight": 0, "filters": [modifier]}, {"name": "b"}]}]},
        });
        let route = grpc_route(&serde_json::from_value(object).unwrap());
        assert_eq!((route.kind, route.parent_refs[0].port), (RouteKind::Grpc, Some(7070)));
        let rule = &route.rules[0];
        let exact = |text: &str| Some(StringMatch::Exact(text.to_owned()));
        let of = |service, method| PathMatch::Rpc { service, method };
        let like = Some(StringMatch::RegularExpression("shop.*".to_owned()));
        let paths: Vec<_> = rule.matches.iter().map(|found| found.path.clone()).collect();
        assert_eq!(paths, [of(exact("shop.Cart"), exact("Add")), of(like, None), of(None, None)]);
        assert_eq!(rule.matches[2].headers[0].value, StringMatch::RegularExpression("1+".to_owned()));
        assert_eq!((rule.backend_refs[0].weight, rule.backend_refs[1].weight), (0, 1));
        assert_eq!(rule.backend_refs[0].filters[0], rule.filters[0]);
        assert!(matches!(rule.filters[1], HttpRouteFilter::RequestMirror(_)));
        assert_eq!(rule.filters[2], HttpRouteFilter::Unsupported("ExtensionRef".to_owned()));
    }
}
