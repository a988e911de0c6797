//! Small pieces of protos that many resources need.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, TcpKeepalive, address,
    config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use envoy_types::pb::google::protobuf;

/// Dead peers behind a stateful device are noticed after `30 + 3 * 10` seconds.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive { keepalive_time: uint32(30), keepalive_interval: uint32(10), keepalive_probes: uint32(3) }
}

/// A resource that comes over the one ADS stream. No fetch timeout: what was asked for is waited for, since a
/// listener without routes answers 404 where silence would make the client try elsewhere.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(crate) fn socket_address(address: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

pub(crate) fn duration(duration: Duration) -> protobuf::Duration {
    // Durations of the Gateway API end at 99999 h, far below either limit.
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn uint32(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(crate) fn uint64(value: u64) -> Option<protobuf::UInt64Value> {
    Some(protobuf::UInt64Value { value })
}

pub(crate) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}
