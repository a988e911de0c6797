//! HTTP of pods on its way out: whatever two applications could do without the proxy they can do with it.

use std::time::Duration;

use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, HeaderValue, HeaderValueOption, Http1ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
    header_value_option::HeaderAppendAction,
};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::util::pack_any;
use prost::{Message, Name};

use super::parts::{extension, filter};
use super::{Telemetry, demand, route, signals, state, tls, upstream};
use crate::envoy::common::{ads, boolean, duration, uint32};

/// A header of ours that has the original destination, only between us and the choice of a virtual host. What a client says there is
/// overwritten.
pub(super) const DESTINATION: &str = "x-meshwright-destination";

/// An HTTP/1.0 client may name no host; HTTP/1.1 has to.
const HTTP10_HOST: &str = "localhost";
/// WebSockets, and what exec and attach of Kubernetes and Docker use.
const UPGRADES: [&str; 3] = ["websocket", "spdy/3.1", "tcp"];

/// The connection manager.
pub(super) fn connection_manager(telemetry: &Telemetry) -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: "node".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: route::NAME.to_owned(),
        })),
        early_header_mutation_extensions: vec![headers()],
        http_filters: vec![demand::of_requests(), handed_on(), router()],
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(Duration::ZERO)),
            max_headers_count: uint32(upstream::HEADERS_COUNT),
            ..HttpProtocolOptions::default()
        }),
        max_request_headers_kb: uint32(upstream::HEADERS_KB),
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: HTTP10_HOST.to_owned(),
            allow_custom_methods: true,
            ..upstream::http1()
        }),
        http2_protocol_options: Some(upstream::http2()),
        // Neither timeouts nor headers of ours. x-forwarded-proto is set where there is none: Envoy cannot do without.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        request_timeout: Some(duration(Duration::ZERO)),
        use_remote_address: boolean(false),
        skip_xff_append: true,
        generate_request_id: boolean(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        // Nobody is trusted more than others. An empty list would mean all private addresses, so it has one that no packet comes from.
        internal_address_config: Some(InternalAddressConfig {
            unix_sockets: false,
            cidr_ranges: vec![CidrRange { address_prefix: "0.0.0.0".to_owned(), prefix_len: uint32(32) }],
        }),
        normalize_path: boolean(false),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged as i32,
        access_log: [signals::of_requests(), telemetry.requests()].concat(),
        tracing: telemetry.tracing(),
        request_id_extension: telemetry.request_ids(),
        upgrade_configs: UPGRADES.map(upgrade).to_vec(),
        ..HttpConnectionManager::default()
    };
    filter("envoy.filters.network.http_connection_manager", manager)
}

fn upgrade(kind: &str) -> UpgradeConfig {
    UpgradeConfig { upgrade_type: kind.to_owned(), ..UpgradeConfig::default() }
}

/// Before Envoy itself reads them: headers that mean something to it come from no application, and ours says where the connection was going.
/// It removes x-forwarded-client-cert by itself.
fn headers() -> TypedExtensionConfig {
    let prefix = MatchPattern::Prefix("x-envoy-".to_owned());
    let remove = Action::RemoveOnMatch(RemoveOnMatch {
        key_matcher: Some(StringMatcher { match_pattern: Some(prefix), ignore_case: true }),
    });
    let set = Action::Append(HeaderValueOption {
        header: Some(HeaderValue {
            key: DESTINATION.to_owned(),
            value: "%DOWNSTREAM_LOCAL_ADDRESS%".to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    });
    let mutations = [remove, set].map(|action| HeaderMutation { action: Some(action) }).to_vec();
    extension(
        "envoy.http.early_header_mutation.header_mutation",
        early_header_mutation::header_mutation::v3::HeaderMutation { mutations },
    )
}

/// Says in the handshake what the connection upstream will speak: what this request speaks. And to whom counts what fails there of whom.
pub(super) fn handed_on() -> HttpFilter {
    let (http2, http1) = (tls::HTTP2, tls::HTTP1);
    let text = format!("%CEL(request.protocol == 'HTTP/2' ? '{http2}' : '{http1}')%");
    let config = set_filter_state::v3::Config {
        on_request_headers: vec![
            state::handed_on(state::value(state::ALPN, &text)),
            state::handed_on(state::string(state::SERVICE, "%UPSTREAM_CLUSTER%")),
        ],
        clear_route_cache: false,
    };
    http_filter("envoy.filters.http.set_filter_state", config)
}

pub(super) fn router() -> HttpFilter {
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    http_filter("envoy.filters.http.router", router)
}

pub(super) fn http_filter<M: Message + Name>(name: &str, config: M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(config))),
        ..HttpFilter::default()
    }
}
