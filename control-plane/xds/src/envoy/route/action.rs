//! What a route does with a request.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate::ConfigType,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RetryPolicy, RouteAction, WeightedCluster,
    weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::util::pack_any;
use meshwright_core::config::{
    BackendProtocol, CompiledRule, Forward, Mirror, PortProtocol, RetryConfig, RouteEntry, RuleAction,
    WeightedBackend,
};
use meshwright_core::model::{PathMatch, RequestRedirect, RouteKind};

use super::Place;
use crate::envoy::cluster::UNRESOLVED;
use crate::envoy::common::{duration, uint32};
use crate::envoy::header;
use crate::envoy::path::{self, Rewrite};

/// Failures that happen before a backend can have seen the request: trying again is safe for every method.
const UNSEEN: &str = "connect-failure,refused-stream,reset-before-request";
/// Tries after the first that hide a pod which has just gone.
const UNSEEN_RETRIES: u32 = 2;
/// Envoy's own longest wait is ten times the base.
const BACKOFF_FACTOR: u32 = 10;
const MILLION: u64 = 1_000_000;

/// Answers with a status and nothing else.
pub(crate) fn answer(status: u32) -> DirectResponseAction {
    DirectResponseAction { status, ..DirectResponseAction::default() }
}

pub(super) fn action(entry: &RouteEntry, place: &Place) -> Action {
    match &entry.rule.action {
        RuleAction::Fail => Action::DirectResponse(answer(match entry.kind {
            RouteKind::Http | RouteKind::Tcp => 500,
            // What a gRPC client is told is UNAVAILABLE.
            RouteKind::Grpc => 503,
        })),
        RuleAction::Redirect(to) => Action::Redirect(redirect(to, &entry.matches.path, place)),
        RuleAction::Forward(forward) => Action::Route(forward_to(forward, entry, place)),
    }
}

fn forward_to(forward: &Forward, entry: &RouteEntry, place: &Place) -> RouteAction {
    let (rule, path) = (&*entry.rule, &entry.matches.path);
    let rewrite = forward.rewrite.as_ref();
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: forward.backends.iter().map(|one| backend(one, place)).collect(),
            ..WeightedCluster::default()
        })),
        cluster_not_found_response_code: match entry.kind {
            RouteKind::Http | RouteKind::Tcp => ClusterNotFoundResponseCode::InternalServerError,
            RouteKind::Grpc => ClusterNotFoundResponseCode::ServiceUnavailable,
        } as i32,
        // Zero switches off Envoy's limit of 15 seconds.
        timeout: Some(duration(rule.request_timeout.unwrap_or(Duration::ZERO))),
        retry_policy: retry_policy(rule, place),
        request_mirror_policies: rule.mirrors.iter().map(|one| mirror(one, entry.kind, place)).collect(),
        host_rewrite_specifier: rewrite
            .and_then(|rewrite| rewrite.hostname.clone())
            .map(HostRewriteSpecifier::HostRewriteLiteral),
        ..RouteAction::default()
    };
    match rewrite.and_then(|rewrite| rewrite.path.as_ref()).map(|modifier| path::rewrite(modifier, path)) {
        None => {}
        Some(Rewrite::Prefix(prefix)) => action.prefix_rewrite = prefix,
        Some(Rewrite::Regex(regex)) => action.regex_rewrite = Some(regex),
    }
    action
}

fn backend(backend: &WeightedBackend, place: &Place) -> ClusterWeight {
    ClusterWeight {
        name: backend.cluster.as_ref().map_or_else(|| UNRESOLVED.to_owned(), place.cluster),
        weight: uint32(backend.weight),
        request_headers_to_add: header::to_add(&backend.request_headers),
        request_headers_to_remove: header::to_remove(&backend.request_headers),
        response_headers_to_add: header::to_add(&backend.response_headers),
        response_headers_to_remove: header::to_remove(&backend.response_headers),
        typed_per_filter_config: if backend.cluster.is_none() {
            (place.unresolved)()
        } else {
            HashMap::new()
        },
        ..ClusterWeight::default()
    }
}

fn mirror(mirror: &Mirror, kind: RouteKind, place: &Place) -> RequestMirrorPolicy {
    let is_http2 = kind == RouteKind::Grpc || mirror.cluster.protocol == BackendProtocol::H2c;
    RequestMirrorPolicy {
        runtime_fraction: mirror.fraction.map(|(numerator, denominator)| RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: per_million(numerator, denominator),
                denominator: DenominatorType::Million as i32,
            }),
            runtime_key: String::new(),
        }),
        // The copy is the same request, its Host included.
        disable_shadow_host_suffix_append: true,
        ..(place.mirror)((place.cluster)(&mirror.cluster), is_http2)
    }
}

fn per_million(numerator: u32, denominator: u32) -> u32 {
    let share = u64::from(numerator) * MILLION / u64::from(denominator.max(1));
    u32::try_from(share.min(MILLION)).unwrap_or(0)
}

/// None where nothing is tried again and a try may take as long as it likes.
fn retry_policy(rule: &CompiledRule, place: &Place) -> Option<RetryPolicy> {
    if !place.retries_unseen && rule.retry.is_none() && rule.backend_request_timeout.is_none() {
        return None;
    }
    let (retry_on, retries) = if place.retries_unseen { (UNSEEN, UNSEEN_RETRIES) } else { ("", 0) };
    let mut policy = RetryPolicy {
        retry_on: retry_on.to_owned(),
        num_retries: uint32(retries),
        per_try_timeout: rule.backend_request_timeout.map(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(ConfigType::TypedConfig(pack_any(PreviousHostsPredicate::default()))),
        }],
        host_selection_retry_max_attempts: 3,
        ..RetryPolicy::default()
    };
    if let Some(retry) = &rule.retry {
        requested_retries(&mut policy, retry);
    }
    Some(policy)
}

/// Connection errors and attempts that timed out are always part of what the user asked for; `reset` stands
/// for both.
fn requested_retries(policy: &mut RetryPolicy, retry: &RetryConfig) {
    policy.num_retries = uint32(retry.attempts);
    if retry.attempts == 0 {
        policy.retry_on = String::new();
        return;
    }
    policy.retry_on = "connect-failure,refused-stream,reset".to_owned();
    if !retry.codes.is_empty() {
        policy.retry_on.push_str(",retriable-status-codes");
        policy.retriable_status_codes = retry.codes.iter().map(|code| u32::from(*code)).collect();
    }
    // Zero is no interval for Envoy.
    policy.retry_back_off = retry.backoff.filter(|backoff| !backoff.is_zero()).map(|backoff| RetryBackOff {
        base_interval: Some(duration(backoff)),
        max_interval: Some(duration(backoff.saturating_mul(BACKOFF_FACTOR))),
    });
}

fn redirect(to: &RequestRedirect, path: &PathMatch, place: &Place) -> RedirectAction {
    let code = match to.status_code {
        Some(301) => RedirectResponseCode::MovedPermanently,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    RedirectAction {
        host_redirect: to.hostname.clone().unwrap_or_default(),
        port_redirect: redirect_port(to, place),
        response_code: code as i32,
        scheme_rewrite_specifier: to.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: to.path.as_ref().map(|modifier| match modifier {
            meshwright_core::model::PathModifier::ReplaceFullPath(full) => {
                PathRewriteSpecifier::PathRedirect(full.clone())
            }
            modifier => match path::rewrite(modifier, path) {
                Rewrite::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
                Rewrite::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
            },
        }),
        ..RedirectAction::default()
    }
}

/// The port for the Location header, zero for none: without one in the filter it is the scheme's if that was
/// given, else the listener's; the well-known port of the scheme is not written.
fn redirect_port(to: &RequestRedirect, place: &Place) -> u32 {
    let well_known = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let own_scheme = match place.protocol {
        PortProtocol::Http => "http",
        PortProtocol::Https => "https",
    };
    let default = well_known(to.scheme.as_deref().unwrap_or(own_scheme));
    let wanted = to.port.unwrap_or(if to.scheme.is_some() { default } else { place.port });
    if wanted == default { 0 } else { u32::from(wanted) }
}
