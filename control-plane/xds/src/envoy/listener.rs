//! Listeners: one for each port of the Gateway.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    CidrRange, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TrafficDirection, TransportSocket,
    transport_socket,
};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, filter, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, InternalAddressConfig, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::util::pack_any;
use meshwright_core::config::{ListenerConfig, PortConfig, PortProtocol};
use meshwright_core::hostname;
use meshwright_core::model::ObjectKey;

use super::common::{ads, boolean, duration, keepalive, socket_address, uint32};
use super::{Options, is_servable, route, secret};
use crate::Resource;

/// A client that opens a stream and does not finish its headers holds memory for nothing.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams on which neither side said anything: WebSockets and long polls that somebody forgot. What lives has a heartbeat; a client that is
/// gone without a word must not hold its stream for ever.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// What Envoy buffers for a connection before it stops reading, as in Envoy's guide for edge proxies; its default is 1 MiB, and many slow
/// clients together would have all of the memory. Bodies that are kept for retries and mirrors have a limit of their own, see
/// `route::BODY_LIMIT`.
const CONNECTION_BUFFER: u32 = 32 * 1024;
/// Connections without any request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// A connection of this age is asked to end and its client comes back on another, so that all connections, not only those of new clients,
/// follow the shares of pods. An HTTP/2 client gets GOAWAY; streams that it has open go on, and the connection ends after the last of them.
/// An HTTP/1.1 client gets `connection: close` with its next response, however late that is: Envoy's other way is to close an idle
/// connection by itself, at the moment in which a request may be on its way. A WebSocket is an open stream like any other.
///
/// It is always so, and not only while traffic moves between revisions. To switch it on would be to send other listeners: Envoy then makes
/// every filter chain anew, and when the drain time is over it closes what is left on the old ones. The preparation of an upgrade would cut
/// the very streams that the upgrade must not cut. What it costs is a handshake a minute for each client.
pub(super) const MAX_CONNECTION_DURATION: Duration = Duration::from_secs(60);
/// Up to so much longer, in percent: clients that came at once, because a pod went, must not come back at once for ever.
const DURATION_JITTER: f64 = 10.0;
/// Between the first GOAWAY, which asks for no more streams, and the last, after which there are none: longer than any request is on its
/// way. It ends connections without streams only.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Where Envoy's guide for edge proxies starts; gRPC clients with more open a second connection.
const MAX_CONCURRENT_STREAMS: u32 = 250;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// `<namespace>/<gateway>/<port>`.
pub fn name(gateway: &ObjectKey, port: u16) -> String {
    format!("{gateway}/{port}")
}

/// The listener of a port; None if there is nothing to serve on it, because no certificate is there.
pub fn resource(gateway: &ObjectKey, port: &PortConfig, options: &Options) -> Option<Resource> {
    if !is_servable(port) {
        return None;
    }
    let name = name(gateway, port.port);
    let (filter_chains, listener_filters) = match port.protocol {
        PortProtocol::Http => (vec![plain_chain(gateway, port, options)], Vec::new()),
        PortProtocol::Https => {
            let served = port.listeners.iter().filter(|listener| !listener.certificates.is_empty());
            let chains = served.map(|listener| tls_chain(gateway, port.port, listener, options)).collect();
            (chains, vec![tls_inspector()])
        }
    };
    let proto = Listener {
        name: name.clone(),
        stat_prefix: stat_prefix(gateway, &port.port.to_string()),
        address: Some(socket_address(&options.bind_address, port.port)),
        filter_chains,
        listener_filters,
        traffic_direction: TrafficDirection::Inbound as i32,
        tcp_keepalive: Some(keepalive()),
        per_connection_buffer_limit_bytes: uint32(CONNECTION_BUFFER),
        ..Listener::default()
    };
    Some(Resource::new(name, pack_any(proto)))
}

/// Dots separate the parts of a metric's name, so there are none in a prefix.
fn stat_prefix(gateway: &ObjectKey, listener: &str) -> String {
    format!("{}/{}/{listener}", gateway.namespace, gateway.name).replace('.', "_")
}

fn plain_chain(gateway: &ObjectKey, port: &PortConfig, options: &Options) -> FilterChain {
    let routes = route::plain_name(gateway, port.port);
    let prefix = stat_prefix(gateway, &port.port.to_string());
    FilterChain {
        name: "http".to_owned(),
        filters: vec![connection_manager(prefix, routes, options)],
        ..FilterChain::default()
    }
}

fn tls_chain(gateway: &ObjectKey, port: u16, listener: &ListenerConfig, options: &Options) -> FilterChain {
    let server_names = match listener.hostname.as_str() {
        hostname::ANY => Vec::new(),
        hostname => vec![hostname.to_owned()],
    };
    let prefix = stat_prefix(gateway, &listener.name);
    let routes = route::tls_name(gateway, port, &listener.name);
    FilterChain {
        name: listener.name.clone(),
        filter_chain_match: Some(FilterChainMatch {
            server_names,
            transport_protocol: "tls".to_owned(),
            ..FilterChainMatch::default()
        }),
        transport_socket: Some(transport_socket(listener)),
        filters: vec![connection_manager(prefix, routes, options)],
        ..FilterChain::default()
    }
}

fn transport_socket(listener: &ListenerConfig) -> TransportSocket {
    let certificates = listener
        .certificates
        .iter()
        .map(|key| SdsSecretConfig { name: secret::name(key), sds_config: Some(ads()) });
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: certificates.collect(),
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack_any(context))),
    }
}

fn tls_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack_any(TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}

fn connection_manager(stat_prefix: String, routes: String, options: &Options) -> Filter {
    let manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix,
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes,
        })),
        http_filters: vec![router()],
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(IDLE_TIMEOUT)),
            max_connection_duration: Some(duration(options.max_connection_duration)),
            max_connection_duration_jitter: Some(Percent { value: DURATION_JITTER }),
            ..HttpProtocolOptions::default()
        }),
        http1_safe_max_connection_duration: true,
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: uint32(MAX_CONCURRENT_STREAMS),
            initial_stream_window_size: uint32(STREAM_WINDOW),
            initial_connection_window_size: uint32(CONNECTION_WINDOW),
            ..Http2ProtocolOptions::default()
        }),
        // The connection's peer is the client; what it says about itself in x-forwarded-for is appended to,
        // not believed.
        use_remote_address: boolean(true),
        // Every client is foreign, and its x-envoy-* headers are not believed. An empty list would mean all
        // private addresses, so it has one that no packet comes from.
        internal_address_config: Some(InternalAddressConfig {
            unix_sockets: false,
            cidr_ranges: vec![CidrRange { address_prefix: "0.0.0.0".to_owned(), prefix_len: uint32(32) }],
        }),
        preserve_external_request_id: true,
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        // `/a/../b` must match what the backend will make of it. Slashes stay: `//` is another path than `/`.
        normalize_path: boolean(true),
        merge_slashes: false,
        // `/a%2Fb` is sent to `/a/b`: a backend that decodes it must not get what was meant for another route. The
        // Gateway API allows no `%2F` in matches. Rejecting would break clients where a redirect does not.
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::UnescapeAndRedirect as i32,
        // headers_with_underscores_action stays at its default: the API lets routes match such names, gRPC metadata
        // has them, and to refuse them would break both.
        stream_idle_timeout: Some(duration(STREAM_IDLE_TIMEOUT)),
        // Whoever wants limits says so in the route.
        request_timeout: Some(duration(Duration::ZERO)),
        request_headers_timeout: Some(duration(HEADERS_TIMEOUT)),
        drain_timeout: Some(duration(DRAIN_TIMEOUT)),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
    }
}

fn router() -> HttpFilter {
    // Neither side asked to hear of Envoy's timings and timeouts.
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(router))),
        ..HttpFilter::default()
    }
}
