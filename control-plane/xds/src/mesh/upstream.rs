//! How connections leave the proxy, and with which limits, which are none. From whose network they do is the same for all, so the agent says it
//! in Envoy's bootstrap: for each cluster it would take 3.4 kB. What has lost its filter state leaves from an empty network there, so reaches
//! nobody; it would leave from the node's own otherwise.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, TransportSocket,
};
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3::InternalUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttpOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;

use super::parts::{BUFFER, extension, transport_socket};
use crate::envoy::cluster::MAX_AGE;
use crate::envoy::common::{duration, uint32};

/// Pooled connections hold the namespace of a pod that may be gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Envoy's limits for headers (60 kB, 100 of them) are below those of many servers: nobody asked for any.
pub(super) const HEADERS_KB: u32 = 256;
pub(super) const HEADERS_COUNT: u32 = 1000;
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// What all our clusters have.
pub(super) fn cluster(name: &str, connect_timeout: Duration) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(duration(connect_timeout)),
        per_connection_buffer_limit_bytes: uint32(BUFFER),
        circuit_breakers: Some(unlimited()),
        ..Cluster::default()
    }
}

/// To an internal listener filter state goes along. To any other endpoint this is a plain connection.
pub(super) fn handing_on() -> TransportSocket {
    let config = InternalUpstreamTransport {
        passthrough_metadata: Vec::new(),
        transport_socket: Some(transport_socket("envoy.transport_sockets.raw_buffer", RawBuffer {})),
    };
    transport_socket("envoy.transport_sockets.internal_upstream", config)
}

/// The server gets the protocol that the client speaks.
pub(super) fn http_options() -> HashMap<String, Any> {
    let options = UpstreamHttpOptions {
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(IDLE_TIMEOUT)),
            // Between requests: another one goes over another connection.
            max_connection_duration: Some(duration(MAX_AGE)),
            max_headers_count: uint32(HEADERS_COUNT),
            max_response_headers_kb: uint32(HEADERS_KB),
            ..HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(http1()),
                http2_protocol_options: Some(http2()),
                http3_protocol_options: None,
            },
        )),
        ..UpstreamHttpOptions::default()
    };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack_any(options))])
}

/// Names of headers stay as they were written, and trailers are kept.
pub(super) fn http1() -> Http1ProtocolOptions {
    let format = extension(
        "envoy.http.stateful_header_formatters.preserve_case",
        PreserveCaseFormatterConfig { forward_reason_phrase: true, ..Default::default() },
    );
    Http1ProtocolOptions {
        header_key_format: Some(HeaderKeyFormat {
            header_format: Some(HeaderFormat::StatefulFormatter(format)),
        }),
        enable_trailers: true,
        ..Http1ProtocolOptions::default()
    }
}

pub(super) fn http2() -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        initial_stream_window_size: uint32(STREAM_WINDOW),
        initial_connection_window_size: uint32(CONNECTION_WINDOW),
        ..Http2ProtocolOptions::default()
    }
}

/// Envoy's own limits (1024 connections) would be for all pods of the node together.
fn unlimited() -> CircuitBreakers {
    let thresholds = Thresholds {
        max_connections: uint32(u32::MAX),
        max_pending_requests: uint32(u32::MAX),
        max_requests: uint32(u32::MAX),
        max_retries: uint32(u32::MAX),
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: Vec::new() }
}
