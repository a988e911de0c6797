//! One route and its backend table to rules that need nothing more. Pure, so that the result can be kept
//! as long as both are the same.

use std::sync::Arc;

use super::backend::{BackendKey, BackendTable};
use super::check;
use crate::config::{ClusterRef, CompiledRule, Forward, Mirror, RetryConfig, RuleAction, WeightedBackend};
use crate::model::{
    HeaderModifier, HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRule, PathMatch,
    RequestMirror, RouteKind, ValueMatch,
};
use crate::status::Finding;

/// A route as far as it does not depend on listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompiledRoute {
    /// Rules, in the order of the spec.
    pub rules: Vec<CompiledRouteRule>,
    /// The first reference that leads nowhere.
    pub unresolved: Option<Finding>,
    /// Rules that cannot be had, by index; they answer 500.
    pub invalid: Vec<(usize, Finding)>,
}

/// A rule and when it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompiledRouteRule {
    /// At least one, unless the rule is invalid because no proxy would take any of them.
    pub matches: Vec<HttpRouteMatch>,
    /// What then.
    pub rule: Arc<CompiledRule>,
}

/// Compiles a route.
pub(crate) fn compile(route: &HttpRoute, backends: &BackendTable) -> CompiledRoute {
    let mut compiled =
        CompiledRoute { rules: Vec::with_capacity(route.rules.len()), unresolved: None, invalid: Vec::new() };
    let mut compiler = Compiler { namespace: &route.meta.key.namespace, backends, unresolved: None };
    for (index, rule) in route.rules.iter().enumerate() {
        // References are followed in invalid rules too: ResolvedRefs speaks of the whole route.
        let mut result = compiler.rule(rule);
        let mut matches = matches(rule, route.kind);
        if let Some(finding) = check::rule(rule) {
            compiled.invalid.push((index, finding));
            result = CompiledRule { name: rule.name.clone(), ..CompiledRule::default() };
            // Of requests that no proxy can tell from others nothing can be said.
            matches.retain(|one| check::unmatchable(one).is_none());
        }
        compiled.rules.push(CompiledRouteRule { matches, rule: Arc::new(result) });
    }
    compiled.unresolved = compiler.unresolved;
    compiled
}

struct Compiler<'a> {
    namespace: &'a str,
    backends: &'a BackendTable,
    unresolved: Option<Finding>,
}

impl Compiler<'_> {
    fn rule(&mut self, rule: &HttpRouteRule) -> CompiledRule {
        let mut compiled = CompiledRule {
            name: rule.name.clone(),
            request_timeout: rule.request_timeout.filter(|timeout| !timeout.is_zero()),
            backend_request_timeout: rule.backend_request_timeout.filter(|timeout| !timeout.is_zero()),
            retry: rule.retry.as_ref().map(|retry| RetryConfig {
                codes: retry.codes.clone(),
                attempts: retry.attempts.unwrap_or(1),
                backoff: retry.backoff,
            }),
            ..CompiledRule::default()
        };
        let mut redirect = None;
        let mut rewrite = None;
        for filter in &rule.filters {
            match filter {
                HttpRouteFilter::RequestHeaderModifier(headers) => {
                    merge(&mut compiled.request_headers, headers)
                }
                HttpRouteFilter::ResponseHeaderModifier(headers) => {
                    merge(&mut compiled.response_headers, headers)
                }
                HttpRouteFilter::RequestRedirect(to) => redirect = Some(to.clone()),
                HttpRouteFilter::UrlRewrite(to) => rewrite = Some(to.clone()),
                HttpRouteFilter::RequestMirror(mirror) => compiled.mirrors.extend(self.mirror(mirror)),
                HttpRouteFilter::Cors(cors) => compiled.cors = Some(cors.clone()),
                HttpRouteFilter::Unsupported(_) => {}
            }
        }
        let backends: Vec<_> = rule.backend_refs.iter().map(|backend| self.backend(backend)).collect();
        let backends: Vec<_> = backends.into_iter().filter(|backend| backend.weight > 0).collect();
        compiled.action = match redirect {
            Some(redirect) => RuleAction::Redirect(redirect),
            None if backends.iter().all(|backend| backend.cluster.is_none()) => RuleAction::Fail,
            None => RuleAction::Forward(Forward { backends, rewrite }),
        };
        compiled
    }

    fn backend(&mut self, backend: &HttpBackendRef) -> WeightedBackend {
        let key = BackendKey::new(&backend.backend_ref, self.namespace);
        let mut compiled = WeightedBackend {
            cluster: self.follow(&key),
            weight: backend.weight,
            request_headers: HeaderModifier::default(),
            response_headers: HeaderModifier::default(),
        };
        for filter in &backend.filters {
            match filter {
                HttpRouteFilter::RequestHeaderModifier(headers) => {
                    merge(&mut compiled.request_headers, headers)
                }
                HttpRouteFilter::ResponseHeaderModifier(headers) => {
                    merge(&mut compiled.response_headers, headers)
                }
                // `check` has refused the rule.
                _ => {}
            }
        }
        compiled
    }

    /// A mirror whose backend is not resolved is left out: copies are nothing that a client could miss.
    fn mirror(&mut self, mirror: &RequestMirror) -> Option<Mirror> {
        let cluster = self.follow(&BackendKey::new(&mirror.backend_ref, self.namespace))?;
        Some(Mirror { cluster, fraction: mirror.fraction })
    }

    fn follow(&mut self, key: &BackendKey) -> Option<ClusterRef> {
        match self.backends.get(key)? {
            Ok(cluster) => Some(cluster.clone()),
            Err(finding) => {
                self.unresolved.get_or_insert_with(|| finding.clone());
                None
            }
        }
    }
}

fn merge(into: &mut HeaderModifier, from: &HeaderModifier) {
    into.set.extend(from.set.iter().cloned());
    into.add.extend(from.add.iter().cloned());
    into.remove.extend(from.remove.iter().cloned());
}

fn matches(rule: &HttpRouteRule, kind: RouteKind) -> Vec<HttpRouteMatch> {
    if rule.matches.is_empty() {
        let path = match kind {
            // Nothing is matched of connections.
            RouteKind::Http | RouteKind::Tcp => PathMatch::default(),
            RouteKind::Grpc => PathMatch::Rpc { service: None, method: None },
        };
        return vec![HttpRouteMatch { path, ..HttpRouteMatch::default() }];
    }
    rule.matches.iter().map(normalize).collect()
}

/// Brings a match into the form that ordering and Envoy need: a prefix without trailing slash, header names
/// in lower case, and of several conditions on one name only the first, as the API demands.
fn normalize(matches: &HttpRouteMatch) -> HttpRouteMatch {
    let path = match &matches.path {
        PathMatch::Prefix(prefix) => {
            let trimmed = prefix.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
        }
        other => other.clone(),
    };
    let lowered = matches
        .headers
        .iter()
        .map(|header| ValueMatch { name: header.name.to_ascii_lowercase(), ..header.clone() });
    HttpRouteMatch {
        path,
        headers: first_of_each_name(lowered),
        query_params: first_of_each_name(matches.query_params.iter().cloned()),
        method: matches.method.clone(),
    }
}

fn first_of_each_name(values: impl Iterator<Item = ValueMatch>) -> Vec<ValueMatch> {
    let mut kept: Vec<ValueMatch> = Vec::new();
    for value in values {
        if !kept.iter().any(|other| other.name == value.name) {
            kept.push(value);
        }
    }
    kept
}
