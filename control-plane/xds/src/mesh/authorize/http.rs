//! HTTP at the pod that is called, where rules look at requests. What was authorised is what the application gets: paths are made canonical
//! before anything looks at them, and handed on like that.

use std::time::Duration;

use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, ExtensionConfigSource, Http1ProtocolOptions, HttpProtocolOptions,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteTo;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::util::pack_any;
use prost::Name;

use super::super::parts::{chain, extension, filter, internal_listener};
use super::super::upstream;
use super::{APPLICATION, HTTP, RULES, counted};
use crate::envoy::common::{ads, boolean, duration, uint32};

/// As on the way out.
const HTTP10_HOST: &str = "localhost";
/// Others are connections without requests, where rules look at requests.
const UPGRADES: [&str; 1] = ["websocket"];

pub(super) fn listener() -> Listener {
    Listener { filter_chains: vec![chain("http", vec![connection_manager()])], ..internal_listener(HTTP) }
}

fn connection_manager() -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: "inbound".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        early_header_mutation_extensions: vec![extension(
            "envoy.http.early_header_mutation.header_mutation",
            early_header_mutation::header_mutation::v3::HeaderMutation { mutations: vec![without_ours()] },
        )],
        http_filters: vec![authorization(), router()],
        access_log: counted::requests(),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(Duration::ZERO)),
            max_headers_count: uint32(upstream::HEADERS_COUNT),
            ..HttpProtocolOptions::default()
        }),
        max_request_headers_kb: uint32(upstream::HEADERS_KB),
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: HTTP10_HOST.to_owned(),
            ..upstream::http1()
        }),
        http2_protocol_options: Some(upstream::http2()),
        // Encoded slashes are a part of a segment to some applications and its end to others: nobody can say which rule is meant.
        normalize_path: boolean(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::RejectRequest as i32,
        // Otherwise nothing is another than without us.
        // What is written arrives, whoever closes: nothing but this process is between the two ends. Envoy would wait for a second.
        delayed_close_timeout: Some(duration(Duration::ZERO)),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        request_timeout: Some(duration(Duration::ZERO)),
        use_remote_address: boolean(false),
        skip_xff_append: true,
        generate_request_id: boolean(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        internal_address_config: Some(InternalAddressConfig {
            unix_sockets: false,
            cidr_ranges: vec![CidrRange { address_prefix: "0.0.0.0".to_owned(), prefix_len: uint32(32) }],
        }),
        upgrade_configs: UPGRADES
            .map(|kind| UpgradeConfig { upgrade_type: kind.to_owned(), ..UpgradeConfig::default() })
            .to_vec(),
        ..HttpConnectionManager::default()
    };
    filter("envoy.filters.network.http_connection_manager", manager)
}

/// Headers that mean something to Envoy come from nobody.
fn without_ours() -> HeaderMutation {
    let prefix = MatchPattern::Prefix("x-envoy-".to_owned());
    let key_matcher = Some(StringMatcher { match_pattern: Some(prefix), ignore_case: true });
    HeaderMutation { action: Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher })) }
}

/// Without its extension every request is refused.
fn authorization() -> HttpFilter {
    let source = ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: vec![Rbac::type_url()],
        ..ExtensionConfigSource::default()
    };
    HttpFilter {
        name: RULES.to_owned(),
        config_type: Some(http_filter::ConfigType::ConfigDiscovery(source)),
        ..HttpFilter::default()
    }
}

fn router() -> HttpFilter {
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(router))),
        ..HttpFilter::default()
    }
}

fn routes() -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(APPLICATION.to_owned())),
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(RouteTo::Route(action)),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "inbound".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: "inbound".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}
