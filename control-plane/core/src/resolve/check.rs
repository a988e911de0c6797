//! What a rule may not contain. The CRD's validation refuses much of it already; here is what it lets
//! through, or an older CRD would.

use super::expression;
use crate::conditions::reason;
use crate::model::{
    HeaderModifier, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, PathMatch, PathModifier, RequestRedirect,
    StringMatch,
};
use crate::status::Finding;

/// A byte of text is an instruction of RE2's program; the agent's Envoy takes 1000 and more.
const MAX_STRIPPED: usize = 512;
/// Bytes in the name of a query parameter; Envoy takes no more.
const MAX_PARAMETER: usize = 1024;

/// The first thing in a rule that this control plane cannot do.
pub(crate) fn rule(rule: &HttpRouteRule) -> Option<Finding> {
    if let Some(field) = rule.unsupported_fields.first() {
        return Some(unsupported(format!("{field} is not supported")));
    }
    combination(&rule.filters)
        .or_else(|| rule.matches.iter().find_map(route_match))
        .or_else(|| rule.filters.iter().find_map(|filter| rule_filter(filter, &rule.matches)))
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
    // CONNECT has no path to match and no response to route.
    let connects = || matches.method.as_deref() == Some("CONNECT");
    unmatchable(matches).or_else(|| connects().then(|| unsupported("method CONNECT is not supported")))
}

/// Why a proxy would not take this match, and all routes beside it with it.
pub(crate) fn unmatchable(matches: &HttpRouteMatch) -> Option<Finding> {
    if let Some(finding) = call(&matches.path).or_else(|| names(matches)) {
        return Some(finding);
    }
    let path = matches.path.of_path();
    let path = match &*path {
        PathMatch::RegularExpression(expression) => Some(expression),
        PathMatch::Exact(path) | PathMatch::Prefix(path) if !is_path(path) => {
            return Some(unsupported(format!("{path:?} is no path")));
        }
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Rpc { .. } => None,
    };
    let values = matches.headers.iter().chain(&matches.query_params).filter_map(|value| match &value.value {
        StringMatch::RegularExpression(expression) => Some(expression),
        StringMatch::Exact(_) => None,
    });
    let bad = path.into_iter().chain(values).find(|text| !expression::is_safe(text))?;
    Some(unsupported(format!(
        "regular expression {bad:?} is not in the supported part of RE2, or too large for it"
    )))
}

/// A slash would make another path of a service or method, and one that Envoy may not take.
fn call(path: &PathMatch) -> Option<Finding> {
    let PathMatch::Rpc { service, method } = path else { return None };
    let exact = [service, method].into_iter().flatten().filter_map(|part| match part {
        StringMatch::Exact(text) => Some(text),
        StringMatch::RegularExpression(_) => None,
    });
    let bad = exact.into_iter().find(|text| text.is_empty() || text.contains('/'))?;
    Some(unsupported(format!("{bad:?} is no gRPC service or method")))
}

fn names(matches: &HttpRouteMatch) -> Option<Finding> {
    if let Some(header) = matches.headers.iter().find(|header| !is_token(&header.name)) {
        return Some(unsupported(format!("{:?} is no name of a header", header.name)));
    }
    let bad = |name: &str| name.is_empty() || name.len() > MAX_PARAMETER;
    let parameter = matches.query_params.iter().find(|parameter| bad(&parameter.name))?;
    Some(unsupported(format!("{:?} is no name of a query parameter that can be matched", parameter.name)))
}

fn rule_filter(filter: &HttpRouteFilter, matches: &[HttpRouteMatch]) -> Option<Finding> {
    match filter {
        HttpRouteFilter::RequestHeaderModifier(headers) => header_modifier(headers),
        HttpRouteFilter::ResponseHeaderModifier(headers) => header_modifier(headers),
        HttpRouteFilter::RequestRedirect(redirect) => redirect_filter(redirect, matches),
        HttpRouteFilter::UrlRewrite(rewrite) => {
            host(rewrite.hostname.as_ref()).or_else(|| path_modifier(rewrite.path.as_ref(), matches))
        }
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
    let written = || headers.set.iter().chain(&headers.add);
    let mut changed = written().map(|(name, _)| name).chain(&headers.remove);
    if let Some(name) = changed.find(|name| name.eq_ignore_ascii_case("host") || !is_token(name)) {
        return Some(unsupported(format!("header {name:?} cannot be modified")));
    }
    let (name, _) = written().find(|(_, value)| !is_field_value(value))?;
    Some(unsupported(format!("the value for header {name} has characters that no header can have")))
}

/// RFC 9110, 5.6.2. The CRD checks names that are set or added, not those that are removed.
fn is_token(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// RFC 9110, 5.5. Envoy refuses NUL, CR and LF in a configuration, and clients refuse the other control characters.
/// Rewritten paths and hosts are values too: they end up in `:path`, `:authority` or `location`.
fn is_field_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

/// What Envoy takes as a path to match.
fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| !c.is_ascii_control() && c != '?' && c != '#')
}

fn host(hostname: Option<&String>) -> Option<Finding> {
    let bad = hostname.filter(|hostname| hostname.is_empty() || !is_field_value(hostname))?;
    Some(unsupported(format!("{bad:?} is no hostname")))
}

fn redirect_filter(redirect: &RequestRedirect, matches: &[HttpRouteMatch]) -> Option<Finding> {
    if !matches!(redirect.status_code, None | Some(301 | 302 | 303 | 307 | 308)) {
        return Some(unsupported("a redirect's statusCode has to be 301, 302, 303, 307 or 308"));
    }
    if !matches!(redirect.scheme.as_deref(), None | Some("http" | "https")) {
        return Some(unsupported("a redirect's scheme has to be http or https"));
    }
    host(redirect.hostname.as_ref()).or_else(|| path_modifier(redirect.path.as_ref(), matches))
}

fn path_modifier(modifier: Option<&PathModifier>, matches: &[HttpRouteMatch]) -> Option<Finding> {
    let (PathModifier::ReplaceFullPath(text) | PathModifier::ReplacePrefixMatch(text)) = modifier?;
    if !is_field_value(text) {
        return Some(unsupported("a path cannot have control characters"));
    }
    if matches!(modifier, Some(PathModifier::ReplaceFullPath(_))) {
        return None;
    }
    // A prefix that is taken away is taken away by an expression with the prefix in it, see `xds::envoy::path`.
    let longest = if text.trim_end_matches('/').is_empty() { MAX_STRIPPED } else { usize::MAX };
    matches.iter().find_map(|one| match &one.path {
        PathMatch::Prefix(prefix) if prefix.len() > longest => Some(unsupported(format!(
            "ReplacePrefixMatch can take away prefixes of at most {MAX_STRIPPED} characters"
        ))),
        PathMatch::Prefix(_) => None,
        PathMatch::Exact(_) | PathMatch::RegularExpression(_) | PathMatch::Rpc { .. } => {
            Some(unsupported("ReplacePrefixMatch needs PathPrefix matches"))
        }
    })
}

#[cfg(test)]
mod tests;
