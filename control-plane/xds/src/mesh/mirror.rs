//! Copies of requests. Envoy sends them without the filter state of the request that they are copied from, so that they would leave in nobody's
//! name and from nowhere. They take who called along in headers of ours, to an internal listener that nothing else leads to, which makes
//! filter state of them again and takes them off. What loses them on the way has no network to leave from, as anything else.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::Action;
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, HttpProtocolOptions, header_value_option::HeaderAppendAction,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action as RouteTo;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttpOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::util::pack_any;

use super::parts::{chain, filter, internal_listener};
use super::{Telemetry, demand, fixed, http, signals, state, upstream};
use crate::envoy::common::{boolean, duration, uint32};

/// The internal listener, and the cluster that leads there with HTTP/1.
const HTTP1: &str = "node/mirror";
/// The cluster that leads there with HTTP/2: a copy does not know what the request came with.
const HTTP2: &str = "node/mirror/2";

/// Whose network the copy leaves from, in whose name, for which workload it counts, and for which cluster it is.
const NETWORK: &str = "x-meshwright-network";
const CALLER: &str = "x-meshwright-caller";
const SOURCE: &str = "x-meshwright-source";
const CLUSTER: &str = "x-meshwright-cluster";
/// What `x-forwarded-for` was: Envoy adds the node's address to that of a copy.
const FORWARDED: &str = "x-meshwright-forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Nobody waits for what a copy comes to, so nothing else ends one that is never answered. Longer ones are lost, which harms nobody.
const LONGEST: Duration = Duration::from_secs(60);
/// Copies under way at once, of all pods of the node; more are lost. Who is sent copies and does not answer must not use up the node's
/// memory, nor the ports of whoever called.
const MOST: u32 = 1024;

/// Copies for this cluster.
pub(super) fn policy(cluster: String, is_http2: bool) -> RequestMirrorPolicy {
    let of_state = |object: &str| format!("%FILTER_STATE({object}:PLAIN)%");
    let headers = [
        (NETWORK, of_state(state::NAMESPACE)),
        (CALLER, of_state(state::IDENTITY)),
        (SOURCE, of_state(state::SOURCE)),
        (CLUSTER, cluster),
        (FORWARDED, format!("%REQ({X_FORWARDED_FOR})%")),
    ];
    // Whatever a client has written there goes first: what has no value is not set.
    let mutations = headers
        .into_iter()
        .flat_map(|(name, value)| [Action::Remove(name.to_owned()), Action::Append(set(name, &value))]);
    RequestMirrorPolicy {
        cluster: if is_http2 { HTTP2 } else { HTTP1 }.to_owned(),
        request_headers_mutations: mutations.map(|action| HeaderMutation { action: Some(action) }).collect(),
        ..RequestMirrorPolicy::default()
    }
}

fn set(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption {
        header: Some(header),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}

/// Those that lead to the listener.
pub(super) fn clusters() -> [Cluster; 2] {
    let http1 = ProtocolConfig::HttpProtocolOptions(upstream::http1());
    let http2 = ProtocolConfig::Http2ProtocolOptions(upstream::http2());
    [(HTTP1, http1), (HTTP2, http2)].map(|(name, protocol)| {
        let options = UpstreamHttpOptions {
            upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
                ExplicitHttpConfig { protocol_config: Some(protocol) },
            )),
            ..UpstreamHttpOptions::default()
        };
        let name_of_options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
        Cluster {
            typed_extension_protocol_options: [(name_of_options, pack_any(options))].into(),
            circuit_breakers: Some(limits()),
            ..fixed::leading_to(HTTP1, name)
        }
    })
}

fn limits() -> CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: uint32(MOST),
        max_pending_requests: uint32(MOST),
        max_requests: uint32(MOST),
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}

/// Sends copies on as if the pod itself had.
pub(super) fn listener(telemetry: &Telemetry) -> Listener {
    let chain = chain("mirror", vec![connection_manager(telemetry)]);
    Listener { filter_chains: vec![chain], ..internal_listener(HTTP1) }
}

/// Copies count, and are written down, as requests of who called. They begin no span: a trace is of what the caller waits for.
fn connection_manager(telemetry: &Telemetry) -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: "mirror".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes())),
        http_filters: vec![caller(), demand::of_requests(), http::handed_on(), http::router()],
        common_http_protocol_options: Some(HttpProtocolOptions {
            max_headers_count: uint32(upstream::HEADERS_COUNT),
            max_stream_duration: Some(duration(LONGEST)),
            ..HttpProtocolOptions::default()
        }),
        max_request_headers_kb: uint32(upstream::HEADERS_KB),
        http_protocol_options: Some(upstream::http1()),
        http2_protocol_options: Some(upstream::http2()),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        request_timeout: Some(duration(Duration::ZERO)),
        use_remote_address: boolean(false),
        skip_xff_append: true,
        generate_request_id: boolean(false),
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        normalize_path: boolean(false),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged as i32,
        access_log: [signals::of_requests(), telemetry.requests()].concat(),
        ..HttpConnectionManager::default()
    };
    filter("envoy.filters.network.http_connection_manager", manager)
}

/// As the pod's own listener has it.
fn caller() -> HttpFilter {
    let of_header = |name: &str| format!("%REQ({name})%");
    let values = vec![
        state::unless_empty(state::separating(state::NAMESPACE, &of_header(NETWORK))),
        state::unless_empty(state::handed_on_for_ever(state::string(state::IDENTITY, &of_header(CALLER)))),
        state::unless_empty(state::handed_on_for_ever(state::string(state::SOURCE, &of_header(SOURCE)))),
    ];
    let config = set_filter_state::v3::Config { on_request_headers: values, clear_route_cache: false };
    http::http_filter("envoy.filters.http.set_filter_state", config)
}

fn routes() -> RouteConfiguration {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(RouteTo::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::ClusterHeader(CLUSTER.to_owned())),
            timeout: Some(duration(Duration::ZERO)),
            ..RouteAction::default()
        })),
        request_headers_to_remove: vec![X_FORWARDED_FOR.to_owned()],
        request_headers_to_add: vec![set(X_FORWARDED_FOR, &format!("%REQ({FORWARDED})%"))],
        ..Route::default()
    };
    RouteConfiguration {
        name: HTTP1.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "*".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        // After those of the route.
        request_headers_to_remove: [NETWORK, CALLER, SOURCE, CLUSTER, FORWARDED, http::DESTINATION]
            .map(str::to_owned)
            .to_vec(),
        ..RouteConfiguration::default()
    }
}
