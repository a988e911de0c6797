//! What a rule may not contain. The CRD's validation refuses much of it already; here is what it lets
//! through, or an older CRD would.

use super::expression;
use crate::conditions::reason;
use crate::model::{
    HeaderModifier, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, PathMatch, PathModifier, RequestRedirect,
    StringMatch,
};
use crate::status::Finding;

/// The first thing in a rule that this control plane cannot do.
pub(crate) fn rule(rule: &HttpRouteRule) -> Option<Finding> {
    if let Some(field) = rule.unsupported_fields.first() {
        return Some(unsupported(format!("{field} is not supported")));
    }
    let prefixes_only = rule.matches.iter().all(|matches| matches!(matches.path, PathMatch::Prefix(_)));
    combination(&rule.filters)
        .or_else(|| rule.matches.iter().find_map(route_match))
        .or_else(|| rule.filters.iter().find_map(|filter| rule_filter(filter, prefixes_only)))
        .or_else(|| rule.backend_refs.iter().flat_map(|backend| &backend.filters).find_map(backend_filter))
}

fn unsupported(message: impl Into<String>) -> Finding {
    Finding::new(reason::UNSUPPORTED_VALUE, message)
}

fn combination(filters: &[HttpRouteFilter]) -> Option<Finding> {
    let count = |wanted: fn(&HttpRouteFilter) -> bool| filters.iter().filter(|filter| wanted(filter)).count();
    let redirects = count(|filter| matches!(filter, HttpRouteFilter::RequestRedirect(_)));
    let rewrites = count(|filter| matches!(filter, HttpRouteFilter::UrlRewrite(_)));
    (redirects + rewrites > 1).then(|| {
        Finding::new(
            reason::INCOMPATIBLE_FILTERS,
            "at most one of RequestRedirect and URLRewrite is possible",
        )
    })
}

fn route_match(matches: &HttpRouteMatch) -> Option<Finding> {
    let path = match &matches.path {
        PathMatch::RegularExpression(expression) => Some(expression),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
    };
    let values = matches.headers.iter().chain(&matches.query_params).filter_map(|value| match &value.value {
        StringMatch::RegularExpression(expression) => Some(expression),
        StringMatch::Exact(_) => None,
    });
    if let Some(bad) = path.into_iter().chain(values).find(|text| !expression::is_safe(text)) {
        return Some(unsupported(format!("regular expression {bad:?} is not in the supported part of RE2")));
    }
    // CONNECT has no path to match and no response to route.
    (matches.method.as_deref() == Some("CONNECT")).then(|| unsupported("method CONNECT is not supported"))
}

fn rule_filter(filter: &HttpRouteFilter, prefixes_only: bool) -> Option<Finding> {
    match filter {
        HttpRouteFilter::RequestHeaderModifier(headers) => header_modifier(headers),
        HttpRouteFilter::ResponseHeaderModifier(headers) => header_modifier(headers),
        HttpRouteFilter::RequestRedirect(redirect) => redirect_filter(redirect, prefixes_only),
        HttpRouteFilter::UrlRewrite(rewrite) => path_modifier(rewrite.path.as_ref(), prefixes_only),
        HttpRouteFilter::RequestMirror(mirror) => mirror
            .fraction
            .is_some_and(|(numerator, denominator)| denominator == 0 || numerator > denominator)
            .then(|| unsupported("a mirror's fraction has to be between 0 and 1")),
        HttpRouteFilter::Cors(_) => Some(unsupported("filter CORS is not supported")),
        HttpRouteFilter::Unsupported(kind) => Some(unsupported(format!("filter {kind} is not supported"))),
    }
}

fn backend_filter(filter: &HttpRouteFilter) -> Option<Finding> {
    match filter {
        HttpRouteFilter::RequestHeaderModifier(headers)
        | HttpRouteFilter::ResponseHeaderModifier(headers) => header_modifier(headers),
        _ => Some(unsupported("a backendRef can only have header modifiers as filters")),
    }
}

/// Envoy refuses to change Host by a header operation; `urlRewrite.hostname` is the way.
fn header_modifier(headers: &HeaderModifier) -> Option<Finding> {
    let changed = headers.set.iter().chain(&headers.add).map(|(name, _)| name).chain(&headers.remove);
    let mut changed = changed.filter(|name| name.eq_ignore_ascii_case("host") || name.starts_with(':'));
    changed.next().map(|name| unsupported(format!("header {name} cannot be modified")))
}

fn redirect_filter(redirect: &RequestRedirect, prefixes_only: bool) -> Option<Finding> {
    if !matches!(redirect.status_code, None | Some(301 | 302 | 303 | 307 | 308)) {
        return Some(unsupported("a redirect's statusCode has to be 301, 302, 303, 307 or 308"));
    }
    if !matches!(redirect.scheme.as_deref(), None | Some("http" | "https")) {
        return Some(unsupported("a redirect's scheme has to be http or https"));
    }
    path_modifier(redirect.path.as_ref(), prefixes_only)
}

fn path_modifier(modifier: Option<&PathModifier>, prefixes_only: bool) -> Option<Finding> {
    (matches!(modifier, Some(PathModifier::ReplacePrefixMatch(_))) && !prefixes_only)
        .then(|| unsupported("ReplacePrefixMatch needs PathPrefix matches"))
}
