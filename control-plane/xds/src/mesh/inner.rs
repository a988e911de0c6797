//! Internal listeners: what all pods of a node share, so that each pod's own listeners can be small. They are the same on all nodes and never
//! change while a revision lasts.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::matching::common_inputs::network::v3::FilterStateInput;
use envoy_types::pb::envoy::r#type::v3::{HashPolicy, hash_policy, hash_policy::PolicySpecifier};
use envoy_types::pb::google::protobuf::StringValue;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::single_predicate;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, SinglePredicate,
};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::matcher_list::{FieldMatcher, Predicate};
use envoy_types::pb::xds::r#type::matcher::v3::matcher::on_match;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::{MatcherList, MatcherType, OnMatch};
use envoy_types::pb::xds::r#type::matcher::v3::{Matcher, StringMatcher, string_matcher};
use envoy_types::util::pack_any;

use super::destinations::{self, CHAIN};
use super::fixed::{DETECT, MTLS, NODE, PASSTHROUGH, SENDER};
use super::parts::{
    chain, internal_listener, listener_filter, original_dst, resource, tcp_filter, tcp_proxy,
};
use super::{Telemetry, authorize, connections, demand, endpoint, http, mirror, signals, state};
use crate::Resource;
use crate::envoy::common::duration;

/// A client that says nothing for so long is taken for one that waits for the server, where nothing was declared. Applications on this node
/// send their first bytes at once.
const DETECTION: Duration = Duration::from_millis(200);

/// All of them.
pub(super) fn listeners(trust_domain: &str, telemetry: &Telemetry) -> Vec<Resource> {
    let own = [node(telemetry), detect(telemetry), sender(trust_domain), mirror::listener(telemetry)];
    let all = own.into_iter().chain(authorize::listeners());
    all.map(|listener| resource(&listener.name.clone(), listener)).collect()
}

/// Everything that pods send arrives here, with its original destination in the filter state.
fn node(telemetry: &Telemetry) -> Listener {
    let chains = [
        chain(destinations::HTTP, vec![http::connection_manager(telemetry)]),
        by_destination(destinations::TCP, telemetry),
        chain(
            destinations::DETECT,
            vec![
                state::on_new_connection(vec![state::handed_on(state::value(
                    state::DESTINATION,
                    "%DOWNSTREAM_LOCAL_ADDRESS%",
                ))]),
                tcp_filter(tcp_proxy("detect", DETECT)),
            ],
        ),
        chain(
            destinations::PEER,
            vec![
                state::on_new_connection(vec![server_name()]),
                tcp_filter(telemetry.of_connections(signals::of_peers(tcp_proxy("peer", MTLS)), None)),
            ],
        ),
        chain(
            destinations::DIRECT,
            vec![tcp_filter(
                telemetry.of_connections(signals::of_others(tcp_proxy("direct", PASSTHROUGH)), None),
            )],
        ),
    ];
    Listener {
        traffic_direction: TrafficDirection::Outbound as i32,
        listener_filters: vec![
            original_dst(),
            destinations::unknown(),
            destinations::discovered(destinations::SERVICES),
            destinations::discovered(destinations::PEERS),
        ],
        filter_chain_matcher: Some(by_chain(chains.iter().map(|chain| chain.name.as_str()))),
        filter_chains: chains.to_vec(),
        ..internal_listener(NODE)
    }
}

/// HTTP or not, by the first bytes.
fn detect(telemetry: &Telemetry) -> Listener {
    let is_http = FilterChainMatch {
        application_protocols: ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    };
    let http = FilterChain {
        filter_chain_match: Some(is_http),
        ..chain(destinations::HTTP, vec![http::connection_manager(telemetry)])
    };
    Listener {
        traffic_direction: TrafficDirection::Outbound as i32,
        listener_filters: vec![
            original_dst(),
            listener_filter("envoy.filters.listener.http_inspector", HttpInspector {}),
        ],
        listener_filters_timeout: Some(duration(DETECTION)),
        continue_on_listener_filters_timeout: true,
        filter_chains: vec![http, by_destination(destinations::TCP, telemetry)],
        ..internal_listener(DETECT)
    }
}

/// From a Service's cluster to the pod that it chose: the endpoint's id has its address and its workload. What cannot be taken apart is nobody's
/// identity, so that the handshake fails.
fn sender(trust_domain: &str) -> Listener {
    // The local address is `envoy://<this listener>/<id>`.
    let part = |number: usize| {
        let before = 2 + SENDER.split(endpoint::SEPARATOR).count();
        format!("destination.address.split('{}')[{}]", endpoint::SEPARATOR, before + number)
    };
    let (address, workload) = (part(0), part(1));
    let of_workload = |number: usize| format!("%CEL({workload}.split('{}')[{number}])%", signals::SEPARATOR);
    let subject = format!("spiffe://{trust_domain}/ns/{}/sa/{}", of_workload(0), of_workload(2));
    let values = [
        state::value(state::DESTINATION, &format!("%CEL({address})%")),
        state::value(state::SUBJECT, &subject),
        state::string(state::PEER, &format!("%CEL({workload})%")),
    ];
    let proxy = signals::of_failures(tcp_proxy("mtls", MTLS));
    Listener {
        listener_filters: vec![state::on_accept(values.map(state::with_parts).to_vec()), original_dst()],
        filter_chains: vec![chain(
            "mtls",
            vec![state::on_new_connection(vec![server_name()]), tcp_filter(proxy)],
        )],
        ..internal_listener(SENDER)
    }
}

/// To the cluster that is named like the destination, unless a route has chosen another one.
fn by_destination(name: &str, telemetry: &Telemetry) -> FilterChain {
    let by_route = format!("%FILTER_STATE({}:PLAIN)%", connections::CLUSTER);
    let cluster = [
        state::value(state::CLUSTER, "%DOWNSTREAM_LOCAL_ADDRESS%"),
        state::unless_empty(state::value(state::CLUSTER, &by_route)),
    ];
    // For Services whose clients stay with one endpoint: what tells clients apart.
    let key = state::NAMESPACE.to_owned();
    let client =
        HashPolicy { policy_specifier: Some(PolicySpecifier::FilterState(hash_policy::FilterState { key })) };
    let proxy =
        TcpProxy { hash_policy: vec![client], ..demand::of_connections(tcp_proxy("tcp", PASSTHROUGH)) };
    let proxy = telemetry.of_connections(signals::of_connections(proxy), Some(signals::ENDPOINT));
    chain(name, vec![state::on_new_connection(cluster.to_vec()), tcp_filter(proxy)])
}

fn server_name() -> FilterStateValue {
    state::value(state::SERVER_NAME, "%DOWNSTREAM_LOCAL_PORT%")
}

/// The chain that the filter state names. A list, not a map: equal listeners have equal bytes.
fn by_chain<'a>(names: impl Iterator<Item = &'a str>) -> Matcher {
    let action = |name: &str| TypedExtensionConfig {
        name: "chain".to_owned(),
        typed_config: Some(pack_any(StringValue { value: name.to_owned() })),
    };
    let matchers = names.map(|name| FieldMatcher {
        predicate: Some(named(name)),
        on_match: Some(OnMatch {
            on_match: Some(on_match::OnMatch::Action(action(name))),
            ..OnMatch::default()
        }),
    });
    Matcher {
        matcher_type: Some(MatcherType::MatcherList(MatcherList { matchers: matchers.collect() })),
        on_no_match: None,
    }
}

fn named(name: &str) -> Predicate {
    let input = FilterStateInput { key: CHAIN.to_owned(), ..FilterStateInput::default() };
    let exact = string_matcher::MatchPattern::Exact(name.to_owned());
    Predicate {
        match_type: Some(MatchType::SinglePredicate(SinglePredicate {
            input: Some(TypedExtensionConfig {
                name: "chain".to_owned(),
                typed_config: Some(pack_any(input)),
            }),
            matcher: Some(single_predicate::Matcher::ValueMatch(StringMatcher {
                match_pattern: Some(exact),
                ..StringMatcher::default()
            })),
        })),
    }
}
