//! What is refused, and what would be: counted by who called whom, in as many series as there are pairs of service accounts that do it.

use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ExtensionFilter, access_log, access_log_filter, extension_filter,
};
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3 as stats;
use envoy_types::pb::envoy::r#type::v3::Scope;
use envoy_types::util::pack_any;

use super::{CALLED, CALLER, REFUSED, TRIED, VERDICT};
use crate::envoy::common::uint64;

/// What policies refused, and what those that are only tried would have.
const REFUSALS: &str = "refused";
const WOULD_BE: &str = "would_refuse";
/// What their names begin with.
pub(in super::super) const SCOPE: &str = "mesh_authorization";

/// For connections.
pub(super) fn connections() -> Vec<AccessLog> {
    let is = |verdict: &str| format!("filter_state['{VERDICT}'] == b'{verdict}'");
    vec![counts(REFUSALS, &is(REFUSED)), counts(WOULD_BE, &is(TRIED))]
}

/// For requests.
pub(super) fn requests() -> Vec<AccessLog> {
    let refused = "response.code_details.startsWith('rbac_access_denied')";
    let would_be =
        "metadata.filter_metadata['envoy.filters.http.rbac']['tried_shadow_engine_result'] == 'denied'";
    vec![counts(REFUSALS, refused), counts(WOULD_BE, would_be)]
}

fn counts(counter: &str, when: &str) -> AccessLog {
    let tag = |name: &str, object: &str| stats::config::Tag {
        name: name.to_owned(),
        value_format: format!("%FILTER_STATE({object}:PLAIN)%"),
        rules: None,
    };
    let stat = stats::config::Stat {
        name: counter.to_owned(),
        tags: vec![tag("source", CALLER), tag("destination", CALLED)],
    };
    let counter = stats::config::Counter {
        stat: Some(stat),
        value_fixed: uint64(1),
        ..stats::config::Counter::default()
    };
    let scope = Scope { prefix: SCOPE.to_owned(), ..Scope::default() };
    let config =
        stats::Config { stats_scope: Some(scope), counters: vec![counter], ..stats::Config::default() };
    AccessLog {
        name: "envoy.access_loggers.stats".to_owned(),
        filter: Some(filter(when)),
        config_type: Some(access_log::ConfigType::TypedConfig(pack_any(config))),
    }
}

fn filter(expression: &str) -> AccessLogFilter {
    let config = pack_any(ExpressionFilter { expression: expression.to_owned(), cel_config: None });
    AccessLogFilter {
        filter_specifier: Some(access_log_filter::FilterSpecifier::ExtensionFilter(ExtensionFilter {
            name: "envoy.access_loggers.extension_filters.cel".to_owned(),
            config_type: Some(extension_filter::ConfigType::TypedConfig(config)),
        })),
    }
}
