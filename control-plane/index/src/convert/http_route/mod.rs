//! HTTPRoute.

pub(super) mod filter;

use meshwright_api::gateway as api;
use meshwright_core::duration;
use meshwright_core::model::{
    BackendRef, HttpBackendRef, HttpRetry, HttpRoute, HttpRouteMatch, HttpRouteRule, ParentRef, PathMatch,
    RouteKind, StringMatch, ValueMatch,
};

pub(crate) fn http_route(object: &api::HttpRoute) -> HttpRoute {
    HttpRoute {
        kind: RouteKind::Http,
        meta: super::meta(&object.metadata),
        parent_refs: object.spec.parent_refs.iter().flatten().map(parent_ref).collect(),
        hostnames: object.spec.hostnames.clone().unwrap_or_default(),
        rules: object.spec.rules.iter().flatten().map(rule).collect(),
    }
}

fn parent_ref(reference: &api::HttpRouteParentRefs) -> ParentRef {
    ParentRef {
        group: reference.group.clone(),
        kind: reference.kind.clone(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        section_name: reference.section_name.clone(),
        port: reference.port.map(super::port),
    }
}

fn rule(rule: &api::HttpRouteRules) -> HttpRouteRule {
    let timeouts = rule.timeouts.as_ref();
    let timeout = |text: Option<&String>| text.and_then(|text| duration::parse(text));
    let mut unsupported_fields = Vec::new();
    if rule.session_persistence.is_some() {
        unsupported_fields.push("sessionPersistence".to_owned());
    }
    HttpRouteRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().flatten().map(route_match).collect(),
        filters: rule.filters.iter().flatten().map(filter::rule::filter).collect(),
        backend_refs: rule.backend_refs.iter().flatten().map(backend).collect(),
        request_timeout: timeout(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
        backend_request_timeout: timeout(timeouts.and_then(|timeouts| timeouts.backend_request.as_ref())),
        retry: rule.retry.as_ref().map(retry),
        unsupported_fields,
    }
}

fn retry(retry: &api::HttpRouteRulesRetry) -> HttpRetry {
    HttpRetry {
        codes: retry.codes.iter().flatten().filter_map(|code| u16::try_from(*code).ok()).collect(),
        attempts: retry.attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        backoff: retry.backoff.as_deref().and_then(duration::parse),
    }
}

fn backend(backend: &api::HttpRouteRulesBackendRefs) -> HttpBackendRef {
    HttpBackendRef {
        backend_ref: BackendRef {
            group: backend.group.clone(),
            kind: backend.kind.clone(),
            namespace: backend.namespace.clone(),
            name: backend.name.clone(),
            port: backend.port.map(super::port),
        },
        weight: backend.weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(0)),
        filters: backend.filters.iter().flatten().map(filter::backend::filter).collect(),
    }
}

fn route_match(found: &api::HttpRouteRulesMatches) -> HttpRouteMatch {
    HttpRouteMatch {
        path: found.path.as_ref().map(path).unwrap_or_default(),
        headers: found.headers.iter().flatten().map(header).collect(),
        query_params: found.query_params.iter().flatten().map(query_param).collect(),
        method: found.method.as_ref().map(|method| format!("{method:?}").to_ascii_uppercase()),
    }
}

fn path(path: &api::HttpRouteRulesMatchesPath) -> PathMatch {
    use api::HttpRouteRulesMatchesPathType as Type;
    let value = path.value.clone().unwrap_or_else(|| "/".to_owned());
    match path.r#type {
        Some(Type::Exact) => PathMatch::Exact(value),
        None | Some(Type::PathPrefix) => PathMatch::Prefix(value),
        Some(Type::RegularExpression) => PathMatch::RegularExpression(value),
    }
}

fn header(header: &api::HttpRouteRulesMatchesHeaders) -> ValueMatch {
    let is_regex = header.r#type == Some(api::HttpRouteRulesMatchesHeadersType::RegularExpression);
    value_match(&header.name, &header.value, is_regex)
}

fn query_param(param: &api::HttpRouteRulesMatchesQueryParams) -> ValueMatch {
    let is_regex = param.r#type == Some(api::HttpRouteRulesMatchesQueryParamsType::RegularExpression);
    value_match(&param.name, &param.value, is_regex)
}

pub(super) fn value_match(name: &str, value: &str, is_regex: bool) -> ValueMatch {
    let of = if is_regex { StringMatch::RegularExpression } else { StringMatch::Exact };
    ValueMatch { name: name.to_owned(), value: of(value.to_owned()) }
}

#[cfg(test)]
mod tests;
