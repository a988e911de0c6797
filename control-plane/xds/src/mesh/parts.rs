//! Pieces of protos that several of our resources have.

use envoy_types::pb::envoy::config::core::v3::{
    Address, EnvoyInternalAddress, TransportSocket, TypedExtensionConfig, address,
    envoy_internal_address::AddressNameSpecifier, transport_socket,
};
use envoy_types::pb::envoy::config::listener::v3::listener::{InternalListenerConfig, ListenerSpecifier};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, ListenerFilter, filter, listener_filter,
};
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use envoy_types::util::pack_any;
use prost::{Message, Name};
use std::time::Duration;

use crate::Resource;
use crate::envoy::common::{duration, uint32};

/// What is buffered for a connection before Envoy stops reading; its default of 1 MiB is too much for all pods of a node.
pub(super) const BUFFER: u32 = 128 * 1024;

pub(super) fn extension<M: Message + Name>(name: &str, config: M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack_any(config)) }
}

pub(super) fn filter<M: Message + Name>(name: &str, config: M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(pack_any(config))) }
}

pub(super) fn listener_filter<M: Message + Name>(name: &str, config: M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack_any(config))),
        ..ListenerFilter::default()
    }
}

pub(super) fn transport_socket<M: Message + Name>(name: &str, config: M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack_any(config))),
    }
}

/// Makes the local address what the connection wanted before it was redirected or handed on.
pub(super) fn original_dst() -> ListenerFilter {
    listener_filter("envoy.filters.listener.original_dst", OriginalDst {})
}

/// Hands bytes on, for as long as both sides like.
pub(super) fn tcp_proxy(stat_prefix: &str, cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        // Zero switches off Envoy's limit of an hour.
        idle_timeout: Some(duration(Duration::ZERO)),
        ..TcpProxy::default()
    }
}

pub(super) fn tcp_filter(proxy: TcpProxy) -> Filter {
    filter("envoy.filters.network.tcp_proxy", proxy)
}

pub(super) fn chain(name: &str, filters: Vec<Filter>) -> FilterChain {
    FilterChain { name: name.to_owned(), filters, ..FilterChain::default() }
}

/// The address of an internal listener; `id` tells endpoints behind one listener apart.
pub(super) fn internal_address(listener: &str, id: &str) -> Address {
    Address {
        address: Some(address::Address::EnvoyInternalAddress(EnvoyInternalAddress {
            endpoint_id: id.to_owned(),
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.to_owned())),
        })),
    }
}

/// A listener that only this proxy itself can reach.
pub(super) fn internal_listener(name: &str) -> Listener {
    Listener {
        name: name.to_owned(),
        stat_prefix: name.replace('/', "_"),
        listener_specifier: Some(ListenerSpecifier::InternalListener(InternalListenerConfig {})),
        per_connection_buffer_limit_bytes: uint32(BUFFER),
        ..Listener::default()
    }
}

/// A resource under the name that its content has, too.
pub(super) fn resource<M: Message + Name>(name: &str, proto: M) -> Resource {
    Resource::new(name, pack_any(proto))
}
