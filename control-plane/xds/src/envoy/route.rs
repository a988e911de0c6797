//! RouteConfigurations: one for each plain port, one for each TLS listener.

mod action;
mod encoded;
mod place;

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, Route, RouteConfiguration, RouteMatch, VirtualHost,
    route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use meshwright_core::config::{
    ListenerConfig, PROBE_HOST, PortConfig, PortProtocol, RouteEntry, VirtualHostConfig,
};
use meshwright_core::model::{HttpRouteMatch, ObjectKey, StringMatch, ValueMatch};

use super::common::uint64;
use super::{header, listener, path};
use crate::Resource;

pub(crate) use self::action::answer;
pub use self::encoded::EncodedHosts;
pub(super) use self::encoded::Encoder;
pub(crate) use self::encoded::{EncodedHost, assemble};
pub(crate) use self::place::Place;

/// The status for a request that came over another listener's connection (RFC 9110, 15.5.20): the client
/// tries again on a new one.
const MISDIRECTED: u32 = 421;

/// How much of a body is kept for another try or a mirror; beyond that there is neither. Envoy would take the connection's buffer, which is
/// made small for other reasons, see `listener`.
pub(crate) const BODY_LIMIT: u64 = 1024 * 1024;

/// The name of a plain port's RouteConfiguration: as the listener's.
pub fn plain_name(gateway: &ObjectKey, port: u16) -> String {
    listener::name(gateway, port)
}

/// The name of a TLS listener's RouteConfiguration.
pub fn tls_name(gateway: &ObjectKey, port: u16, listener: &str) -> String {
    format!("{gateway}/{port}/{listener}")
}

/// The RouteConfigurations of a port.
pub(super) fn resources(gateway: &ObjectKey, port: &PortConfig, encoder: &mut Encoder<'_>) -> Vec<Resource> {
    let configurations = configurations(gateway, port).into_iter();
    configurations.map(|(name, hosts, others)| configuration(name, port, hosts, &others, encoder)).collect()
}

/// A RouteConfiguration's name, its hosts, and hosts that are misdirected there.
type Configuration<'a> = (String, Vec<&'a Arc<VirtualHostConfig>>, Vec<&'a str>);

pub(super) fn configurations<'a>(gateway: &ObjectKey, port: &'a PortConfig) -> Vec<Configuration<'a>> {
    match port.protocol {
        PortProtocol::Http => {
            // Listeners of a plain port share connections, and no host belongs to two of them.
            let hosts = port.listeners.iter().flat_map(|listener| &listener.virtual_hosts).collect();
            vec![(plain_name(gateway, port.port), hosts, Vec::new())]
        }
        PortProtocol::Https => port
            .listeners
            .iter()
            .filter(|listener| !listener.certificates.is_empty())
            .map(|listener| {
                let hosts = listener.virtual_hosts.iter().collect();
                (tls_name(gateway, port.port, &listener.name), hosts, misdirected(port, listener))
            })
            .collect(),
    }
}

/// Hosts of the port's other listeners. The listener's own hostname is among its virtual hosts, so a wider
/// one here cannot win.
fn misdirected<'a>(port: &'a PortConfig, listener: &ListenerConfig) -> Vec<&'a str> {
    let others = port.listeners.iter().filter(|other| other.hostname != listener.hostname);
    others.map(|other| other.hostname.as_str()).collect()
}

fn configuration(
    name: String,
    port: &PortConfig,
    hosts: Vec<&Arc<VirtualHostConfig>>,
    misdirected: &[&str],
    encoder: &mut Encoder<'_>,
) -> Resource {
    let mut all: Vec<_> = hosts.into_iter().map(|host| encoder.encode(host, port)).collect();
    all.extend(misdirected.iter().map(|hostname| Arc::new(EncodedHost::new(&misdirected_host(hostname)))));
    if port.protocol == PortProtocol::Http && all.iter().all(|host| host.name != PROBE_HOST) {
        all.push(Arc::new(EncodedHost::new(&probe_host())));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let proto = RouteConfiguration {
        name: name.clone(),
        ignore_port_in_host_matching: true,
        // The rule's changes come before the backend's, as the API orders them.
        most_specific_header_mutations_wins: true,
        ..RouteConfiguration::default()
    };
    assemble(name, &proto, &all)
}

pub(super) fn virtual_host(host: &VirtualHostConfig, port: &PortConfig) -> VirtualHost {
    VirtualHost {
        name: host.hostname.clone(),
        domains: vec![host.hostname.clone()],
        routes: host.routes.iter().map(|entry| route(entry, &Place::from(port))).collect(),
        request_body_buffer_limit: uint64(BODY_LIMIT),
        ..VirtualHost::default()
    }
}

pub(super) fn probe_host() -> VirtualHost {
    VirtualHost {
        name: PROBE_HOST.to_owned(),
        domains: vec![PROBE_HOST.to_owned()],
        ..VirtualHost::default()
    }
}

pub(super) fn misdirected_host(hostname: &str) -> VirtualHost {
    let everything =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    VirtualHost {
        name: format!("misdirected/{hostname}"),
        domains: vec![hostname.to_owned()],
        routes: vec![Route {
            r#match: Some(everything),
            action: Some(Action::DirectResponse(answer(MISDIRECTED))),
            ..Route::default()
        }],
        ..VirtualHost::default()
    }
}

/// One match of one rule.
pub(crate) fn route(entry: &RouteEntry, place: &Place) -> Route {
    let rule = &entry.rule;
    let rule_name = rule.name.clone().unwrap_or_else(|| entry.rule_index.to_string());
    Route {
        name: format!("{}/{rule_name}/{}", entry.route, entry.match_index),
        r#match: Some(route_match(&entry.matches)),
        action: Some(action::action(entry, place)),
        request_headers_to_add: header::to_add(&rule.request_headers),
        request_headers_to_remove: header::to_remove(&rule.request_headers),
        response_headers_to_add: header::to_add(&rule.response_headers),
        response_headers_to_remove: header::to_remove(&rule.response_headers),
        ..Route::default()
    }
}

fn route_match(matches: &HttpRouteMatch) -> RouteMatch {
    let method = matches
        .method
        .as_ref()
        .map(|method| ValueMatch { name: ":method".to_owned(), value: StringMatch::Exact(method.clone()) });
    RouteMatch {
        path_specifier: Some(path::specifier(&matches.path)),
        headers: method.iter().chain(&matches.headers).map(header_matcher).collect(),
        query_parameters: matches.query_params.iter().map(query_matcher).collect(),
        ..RouteMatch::default()
    }
}

fn header_matcher(header: &ValueMatch) -> HeaderMatcher {
    HeaderMatcher {
        // HTTP/2 has no Host; Envoy keeps both under one name.
        name: if header.name == "host" { ":authority".to_owned() } else { header.name.clone() },
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_matcher(&header.value))),
        ..HeaderMatcher::default()
    }
}

fn query_matcher(parameter: &ValueMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string_matcher(
            &parameter.value,
        ))),
    }
}

fn string_matcher(value: &StringMatch) -> StringMatcher {
    let pattern = match value {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::RegularExpression(expression) => {
            MatchPattern::SafeRegex(path::regex(expression.clone()))
        }
    };
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}
