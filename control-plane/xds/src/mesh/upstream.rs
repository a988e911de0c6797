//! How connections leave the proxy: from whose network, and with which limits, which are none.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use envoy_types::pb::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, SocketAddress,
    SocketOption, TransportSocket, socket_address::PortSpecifier, socket_option,
};
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use envoy_types::pb::envoy::extensions::local_address_selectors::filter_state_override;
use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3::InternalUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::internal_upstream::v3::internal_upstream_transport::MetadataValueSource;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as UpstreamHttpOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::metadata::v3::{MetadataKind, metadata_kind};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;

use super::parts::{BUFFER, extension, transport_socket};
use crate::envoy::cluster::MAX_AGE;
use crate::envoy::common::{duration, keepalive, uint32};

/// The agent puts the path of an empty network namespace here. What has lost its filter state connects from there, so to nowhere: it would
/// leave from the node's own network otherwise.
const BLACK_HOLE: &str = "blackhole";
/// Tells the redirection in pods' namespaces whose connections these are.
const MARK: i64 = 0x539;
const SOL_SOCKET: i64 = 1;
const SO_MARK: i64 = 36;
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

/// A cluster whose connections leave from the network of whoever called.
pub(super) fn outside(cluster: Cluster) -> Cluster {
    Cluster {
        upstream_bind_config: Some(bind_config()),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive()),
            ..UpstreamConnectionOptions::default()
        }),
        ..cluster
    }
}

fn bind_config() -> BindConfig {
    BindConfig {
        source_address: Some(nowhere("0.0.0.0")),
        extra_source_addresses: vec![ExtraSourceAddress {
            address: Some(nowhere("::")),
            ..ExtraSourceAddress::default()
        }],
        socket_options: vec![SocketOption {
            level: SOL_SOCKET,
            name: SO_MARK,
            state: socket_option::SocketState::StatePrebind as i32,
            value: Some(socket_option::Value::IntValue(MARK)),
            ..SocketOption::default()
        }],
        local_address_selector: Some(extension(
            "envoy.upstream.local_address_selector.filter_state_override",
            filter_state_override::v3::Config {},
        )),
        ..BindConfig::default()
    }
}

fn nowhere(address: &str) -> SocketAddress {
    SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        network_namespace_filepath: BLACK_HOLE.to_owned(),
        ..SocketAddress::default()
    }
}

/// To an internal listener filter state goes along, and of the endpoint's metadata what is under `metadata`. To any other endpoint this is a
/// plain connection.
pub(super) fn handing_on(metadata: Option<&str>) -> TransportSocket {
    let host = MetadataKind { kind: Some(metadata_kind::Kind::Host(metadata_kind::Host {})) };
    let source = |name: &str| MetadataValueSource { kind: Some(host), name: name.to_owned() };
    let config = InternalUpstreamTransport {
        passthrough_metadata: metadata.map(source).into_iter().collect(),
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
