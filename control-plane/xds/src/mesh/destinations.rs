//! Where a connection is going decides what becomes of it: which filter chain of the internal listener `node` it gets. Addresses are told to
//! that listener by ECDS, so that it never changes: a listener that changes keeps what it was for as long as draining lasts, with all of its
//! memory, and a mesh changes all the time.
//!
//! The lists are expressions, because nothing else that Envoy has can look something up before a chain is chosen, and is to be had by ECDS.
//! They are gone through once for each connection: about 25 µs for a thousand addresses. A chain after the lookup, by another internal
//! listener, would take twice as long and 19 kB more for each connection.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::{ListenerFilter, listener_filter};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::listener::set_filter_state::v3::Config;
use meshwright_core::mesh::{Peer, Protocol};
use prost::Name;

use super::parts::{extension, resource};
use super::service::{Port, destination};
use super::{OUTBOUND_PORTS, connections, state};
use crate::Resource;
use crate::envoy::common::ads;

/// The filter state that has the name of the chain.
pub(super) const CHAIN: &str = "meshwright.io/chain";
/// The filter state that has the destination without its port.
const ADDRESS: &str = "meshwright.io/address";

/// Name of the extension with the destinations of Services, and what TCPRoutes make of connections to them.
pub const SERVICES: &str = "node/services";
/// The one with pods that take mutual TLS.
pub(super) const PEERS: &str = "node/peers";

/// Chains of the listener `node`.
pub(super) const HTTP: &str = "http";
pub(super) const TCP: &str = "tcp";
pub(super) const DETECT: &str = "detect";
/// A pod that takes mutual TLS, called by its own address.
pub(super) const PEER: &str = "peer";
/// Anything else.
pub(super) const DIRECT: &str = "direct";
/// Of this name there is none, so that the connection ends.
const LOOP: &str = "loop";

/// An expression may have 100,000 characters.
const MAX_LIST: usize = 60_000;

/// What is so before Services and peers are looked at. Who connects to the port that pods' connections are redirected to, without having been
/// redirected, would be asking the proxy to connect to itself.
pub(super) fn unknown() -> ListenerFilter {
    let ports = OUTBOUND_PORTS.map(|port| port.to_string()).join(",");
    let chain = format!("%CEL(destination.port in [{ports}] ? '{LOOP}' : '{DIRECT}')%");
    state::on_accept(vec![
        state::string(ADDRESS, "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
        state::string(CHAIN, &chain),
    ])
}

/// Refers to an extension; without it no connection is accepted.
pub(super) fn discovered(name: &str) -> ListenerFilter {
    let source = ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: vec![Config::type_url()],
        ..ExtensionConfigSource::default()
    };
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::ConfigDiscovery(source)),
        ..ListenerFilter::default()
    }
}

/// The chains of Services' destinations, and what routes make of connections to them.
pub(super) fn services<'a>(ports: impl Iterator<Item = &'a Port> + Clone, trust_domain: &str) -> Resource {
    let mut lists = BTreeMap::<&str, Vec<String>>::new();
    for port in ports.clone() {
        let chain = match port.protocol {
            Protocol::Http => HTTP,
            Protocol::Tcp => TCP,
            Protocol::Detect => DETECT,
        };
        let quoted = port.destinations.iter().map(|destination| format!("'{destination}'"));
        lists.entry(chain).or_default().extend(quoted);
    }
    let values = lists.iter().flat_map(|(chain, list)| choose(chain, "destination.address in", list));
    config(SERVICES, values.chain(connections::values(ports, trust_domain)).collect())
}

/// The chain of pods that take mutual TLS. Looked up only where no Service was found.
pub(super) fn peers(peers: &BTreeMap<String, Peer>) -> Resource {
    // Port and brackets off again: what an address looks like is up to one function.
    let bare = |address: &String| destination(address, 0)?.strip_suffix(":0").map(str::to_owned);
    let quoted = |address: String| format!("b'{}'", address.trim_matches(['[', ']']));
    let list: Vec<_> = peers.keys().filter_map(bare).map(quoted).collect();
    let condition = format!("filter_state['{CHAIN}'] == b'{DIRECT}' && filter_state['{ADDRESS}'] in");
    config(PEERS, choose(PEER, &condition, &list))
}

fn choose(chain: &str, condition: &str, list: &[String]) -> Vec<FilterStateValue> {
    let expression = |list: &[String]| {
        let text = format!("%CEL({condition} [{}] ? '{chain}' : '')%", list.join(","));
        state::unless_empty(state::string(CHAIN, &text))
    };
    let longest = list.iter().map(|entry| entry.len() + 1).max().unwrap_or(1);
    list.chunks((MAX_LIST / longest).max(1)).map(expression).collect()
}

fn config(name: &str, on_accept: Vec<FilterStateValue>) -> Resource {
    let config: TypedExtensionConfig = extension(name, Config { on_accept });
    resource(name, config)
}
