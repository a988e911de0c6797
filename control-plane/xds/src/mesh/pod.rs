//! A pod's own two listeners, in its network namespace. They depend on nothing but the pod: another pod or Service changes none of them.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Address, SocketAddress, TrafficDirection, address, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, UpstreamConnectMode};

use meshwright_core::mesh::Member;

use super::fixed::NODE;
use super::parts::{BUFFER, chain, filter, listener_filter, original_dst, resource, tcp_filter, tcp_proxy};
use super::{Ports, authorize, caller_secret, signals, state, tls};
use crate::Resource;
use crate::envoy::common::{duration, keepalive, uint32, uint64};

/// The network namespace of the listener that the connection came by: the pod's.
const OWN_NAMESPACE: &str = "%FILTER_STATE(envoy.network.network_namespace:PLAIN)%";
/// Nobody can connect there.
const NOWHERE: &str = "127.0.0.1:0";
/// So many connections a pod may have opened. The node's proxy takes 50,000 in all, of whatever pod: one that opens as many as it can leaves its
/// neighbours most of them. There is no limit for what comes in: a server may have more clients than that, and each limit costs 3.5 kB.
const MAX_CONNECTIONS: u64 = 10_000;
/// Who connects and never shakes hands takes up a place among all of them for no longer than this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// `pod/<uid>/outbound`.
pub(super) fn outbound_name(uid: &str) -> String {
    format!("pod/{uid}/outbound")
}

/// `pod/<uid>/inbound`.
pub(super) fn inbound_name(uid: &str) -> String {
    format!("pod/{uid}/inbound")
}

/// Both listeners of a pod.
pub(super) fn listeners(trust_domain: &str, uid: &str, member: &Member, ports: Ports) -> [Resource; 2] {
    [outbound(uid, member, ports.outbound), inbound(trust_domain, uid, &member.identity, ports.inbound)]
        .map(|listener| resource(&listener.name.clone(), listener))
}

/// Where the pod's own connections are redirected to: writes down who calls, from where and to where, and leaves the rest to the node's
/// listener.
fn outbound(uid: &str, member: &Member, port: u16) -> Listener {
    let values = vec![
        from_the_pod(),
        state::handed_on_for_ever(state::string(state::IDENTITY, &caller_secret(&member.identity))),
        state::handed_on_for_ever(state::string(
            state::SOURCE,
            &signals::workload(&member.identity, &member.workload),
        )),
        state::handed_on(state::value(state::DESTINATION, "%DOWNSTREAM_LOCAL_ADDRESS%")),
    ];
    let filters = vec![state::on_new_connection(values), limit(), tcp_filter(tcp_proxy("outbound", NODE))];
    Listener {
        name: outbound_name(uid),
        stat_prefix: "outbound".to_owned(),
        address: Some(within(uid, port)),
        listener_filters: vec![original_dst()],
        filter_chains: vec![chain("outbound", filters)],
        traffic_direction: TrafficDirection::Outbound as i32,
        per_connection_buffer_limit_bytes: uint32(BUFFER),
        ..Listener::default()
    }
}

/// Where mutual TLS for the pod arrives. What comes out of it goes to the application as it is, whatever protocol: the sender's proxy has
/// looked at it, and nobody else has a key. One chain for all protocols: each chain would hold a TLS context of its own, of 27 kB.
fn inbound(trust_domain: &str, uid: &str, identity: &str, port: u16) -> Listener {
    let proxy = TcpProxy {
        // The application hears nothing of callers that have shown no certificate.
        upstream_connect_mode: UpstreamConnectMode::OnDownstreamTlsHandshake as i32,
        max_early_data_bytes: uint32(0),
        // Unless the policy says something else; and where it says nothing, that is where nobody gets through.
        ..tcp_proxy("inbound", authorize::CHECKED)
    };
    let is_ours = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        application_protocols: [tls::HTTP2, tls::HTTP1, tls::TCP].map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let chain = FilterChain {
        filter_chain_match: Some(is_ours),
        transport_socket: Some(tls::server(trust_domain, identity)),
        transport_socket_connect_timeout: Some(duration(HANDSHAKE_TIMEOUT)),
        ..chain("inbound", vec![authorize::filter(uid), tcp_filter(signals::of_received(proxy))])
    };
    Listener {
        name: inbound_name(uid),
        stat_prefix: "inbound".to_owned(),
        address: Some(within(uid, port)),
        // A pod that calls itself is redirected to the loopback address; the application may listen on the pod's only.
        listener_filters: vec![
            original_dst(),
            listener_filter("envoy.filters.listener.tls_inspector", TlsInspector::default()),
        ],
        filter_chains: vec![chain],
        traffic_direction: TrafficDirection::Inbound as i32,
        tcp_keepalive: Some(keepalive()),
        per_connection_buffer_limit_bytes: uint32(BUFFER),
        ..Listener::default()
    }
}

/// One connection more is closed at once, before anything is done for it.
fn limit() -> Filter {
    let limit = ConnectionLimit {
        stat_prefix: "outbound".to_owned(),
        max_connections: uint64(MAX_CONNECTIONS),
        ..ConnectionLimit::default()
    };
    filter("envoy.filters.network.connection_limit", limit)
}

/// What is noted of every connection that arrives: from where it goes on, and to where.
pub(super) fn arrived() -> Vec<FilterStateValue> {
    [vec![from_the_pod()], dial()].concat()
}

/// Connections upstream leave from the network that this one came from. Without one from nowhere: an empty path would be the node's own.
fn from_the_pod() -> FilterStateValue {
    state::unless_empty(state::separating(state::NAMESPACE, OWN_NAMESPACE))
}

/// The application's address: the pod's, with the port that the SNI tells. Where that makes no address the one before remains, and first comes
/// one that leads nowhere. An SNI that names a port of ours leads to a listener of ours, and none of them takes such a connection.
fn dial() -> Vec<FilterStateValue> {
    const POD: &str = "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%";
    const PORT: &str = "%REQUESTED_SERVER_NAME%";
    let (four, six) = (format!("{POD}:{PORT}"), format!("[{POD}]:{PORT}"));
    // Handed on to where callers and requests are looked at.
    [NOWHERE, &four, &six].map(|text| state::handed_on(state::value(state::DIAL, text))).to_vec()
}

/// Both address families, in the pod's namespace. The agent knows where that is; here is only a name for it.
fn within(uid: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "::".to_owned(),
            ipv4_compat: true,
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            network_namespace_filepath: format!("pod:{uid}"),
            ..SocketAddress::default()
        })),
    }
}
