//! What a snapshot gives to proxies, in pieces that a person would recognise: two control planes that should say the same are compared by
//! them. Names are made of the Gateway API's words and must stay what they are in every version, or each piece would seem lost and gained.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use meshwright_core::config::{GatewayConfig, PROBE_HOST};
use prost::Message;
use sha2::{Digest, Sha256};

use super::cluster;
use crate::types::short;
use crate::{Resource, Snapshot, TypeUrl};

/// A piece of configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Unique within the kind.
    pub name: String,
    /// Another where the content is another.
    pub hash: String,
}

/// What a [`Part`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// A listener.
    Listener,
    /// A route, or a virtual host apart from its routes: its settings and their order.
    Route,
    /// A cluster apart from its endpoints.
    Cluster,
}

/// The parts of a Gateway's snapshot, sorted; `config` is what it was made from. Clusters that only linger are left out: they tell of this
/// process's past.
pub fn parts(snapshot: &Snapshot, config: &GatewayConfig) -> Vec<Part> {
    let named: BTreeSet<String> = config.clusters().into_iter().map(cluster::name).collect();
    let all = |kind| snapshot.resources(kind).into_iter().flat_map(|all| all.iter()).map(AsRef::as_ref);
    let whole = |kind, resource: &Resource| Part {
        kind,
        name: resource.name().to_string(),
        hash: resource.version().to_string(),
    };
    let mut parts: Vec<_> =
        all(TypeUrl::Listener).map(|listener| whole(PartKind::Listener, listener)).collect();
    parts.extend(all(TypeUrl::Route).flat_map(routes));
    let clusters = all(TypeUrl::Cluster).filter(|cluster| named.contains(cluster.name().as_ref()));
    parts.extend(clusters.map(|cluster| whole(PartKind::Cluster, cluster)));
    parts.sort();
    parts
}

fn routes(resource: &Resource) -> Vec<Part> {
    // What we have made ourselves decodes.
    let mut table = RouteConfiguration::decode(resource.body().value.as_slice()).unwrap_or_default();
    let hosts = std::mem::take(&mut table.virtual_hosts);
    let settings = table.encode_to_vec();
    let mut parts = Vec::new();
    // Nobody's route: what answers the operator's probes.
    let is_probe = |host: &VirtualHost| host.name == PROBE_HOST && host.routes.is_empty();
    for mut host in hosts.into_iter().filter(|host| !is_probe(host)) {
        let routes = std::mem::take(&mut host.routes);
        let name = format!("{} {}", resource.name(), host.name);
        let mut seen = BTreeMap::new();
        let names: Vec<_> =
            routes.iter().map(|route| unique(&mut seen, words(&name, route.r#match.as_ref()))).collect();
        // The first match wins, so the order belongs to the content, but to none of the routes.
        let order = names.iter().map(String::as_bytes);
        let own = [settings.clone(), host.encode_to_vec()];
        let hash = hash(own.iter().map(Vec::as_slice).chain(order));
        parts.push(Part { kind: PartKind::Route, name, hash });
        parts.extend(names.into_iter().zip(&routes).map(|(name, route)| Part {
            kind: PartKind::Route,
            name,
            hash: self::hash([route.encode_to_vec().as_slice()]),
        }));
    }
    parts
}

fn hash<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut whole = Sha256::new();
    pieces.into_iter().for_each(|piece| whole.update(Sha256::digest(piece)));
    short(&whole.finalize())
}

/// Routes with one match are told apart by their order; only the first of them ever gets a request.
fn unique(seen: &mut BTreeMap<String, usize>, name: String) -> String {
    let count = seen.entry(name.clone()).or_default();
    *count += 1;
    if *count == 1 { name } else { format!("{name} #{count}") }
}

fn words(host: &str, found: Option<&RouteMatch>) -> String {
    let Some(found) = found else { return format!("{host} everything") };
    let path = match &found.path_specifier {
        Some(PathSpecifier::Path(path)) => format!("Exact {path}"),
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => {
            format!("PathPrefix {prefix}")
        }
        Some(PathSpecifier::SafeRegex(regex)) => format!("RegularExpression {}", regex.regex),
        _ => "another path".to_owned(),
    };
    let headers = found.headers.iter().map(|header| {
        let value = match &header.header_match_specifier {
            Some(HeaderMatchSpecifier::StringMatch(value)) => self::value(value),
            _ => String::new(),
        };
        match header.name.as_str() {
            ":method" => format!("method{value}"),
            ":authority" => format!("header host{value}"),
            name => format!("header {name}{value}"),
        }
    });
    let parameters = found.query_parameters.iter().map(|parameter| {
        let value = match &parameter.query_parameter_match_specifier {
            Some(QueryParameterMatchSpecifier::StringMatch(value)) => self::value(value),
            _ => String::new(),
        };
        format!("query {}{value}", parameter.name)
    });
    let words: Vec<_> = std::iter::once(path).chain(headers).chain(parameters).collect();
    format!("{host} {}", words.join(", "))
}

fn value(value: &StringMatcher) -> String {
    match &value.match_pattern {
        Some(MatchPattern::Exact(text)) => format!("={text}"),
        Some(MatchPattern::SafeRegex(regex)) => format!("~{}", regex.regex),
        _ => String::new(),
    }
}
