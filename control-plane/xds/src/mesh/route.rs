//! The routes of a node's HTTP: one RouteConfiguration for all Services, with one virtual host for each way in which they are called.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, hash_policy, hash_policy::PolicySpecifier,
};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::filter_state_matcher::Matcher;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    FilterStateMatcher, StringMatcher, string_matcher::MatchPattern,
};
use meshwright_core::config::{PortProtocol, PortRoutes};
use meshwright_core::mesh::Protocol;

use super::service::{self, Port};
use super::{demand, fixed, http, mirror, state};
use crate::Resource;
use crate::envoy::common::{duration, uint64};
use crate::envoy::route::{BODY_LIMIT, EncodedHost, Place, answer, assemble, route};

/// The RouteConfiguration of all nodes.
pub const NAME: &str = "node/http";

/// With these virtual hosts of ports.
pub(super) fn configuration<'a>(hosts: impl Iterator<Item = &'a Arc<EncodedHost>>) -> Resource {
    let mut hosts: Vec<_> = hosts.cloned().collect();
    // A connection may outlive what was known of its destination: it goes on as those of Services that are not in the mesh. Whatever is in the
    // mesh has a host of its own, so that nothing for it goes this way, which is plaintext.
    let unknown = host("*", vec!["*".to_owned()], vec![onwards(fixed::PASSTHROUGH)]);
    hosts.push(Arc::new(EncodedHost::new(&unknown)));
    let configuration = RouteConfiguration {
        name: NAME.to_owned(),
        // Not by the Host that the client sends: what it says there is between it and the server.
        vhost_header: http::DESTINATION.to_owned(),
        request_headers_to_remove: vec![http::DESTINATION.to_owned()],
        // As for gateways: the rule's changes come before the backend's.
        most_specific_header_mutations_wins: true,
        ..RouteConfiguration::default()
    };
    assemble(NAME.to_owned(), &configuration, &hosts)
}

/// The virtual hosts of a port. They depend on nothing else.
pub(super) fn hosts(port: &Port, trust_domain: &str) -> Vec<Arc<EncodedHost>> {
    virtual_hosts(port, trust_domain).iter().map(EncodedHost::new).map(Arc::new).collect()
}

fn virtual_hosts(port: &Port, trust_domain: &str) -> Vec<VirtualHost> {
    let with = |name: &str, domains: Vec<String>, cluster: &str| {
        let Some(found) = port.routes.as_ref().filter(|found| found.has_requests()) else {
            let route = if port.by_client { by_client(onwards(cluster)) } else { onwards(cluster) };
            return host(name, domains, vec![route]);
        };
        VirtualHost {
            request_body_buffer_limit: uint64(BODY_LIMIT),
            ..host(name, domains, routes(found, port.number, cluster, trust_domain))
        }
    };
    let one = |destination: &String| with(destination, vec![destination.clone()], port.cluster(destination));
    match port.protocol {
        Protocol::Http if port.destinations.is_empty() => Vec::new(),
        Protocol::Http => vec![with(&port.name, port.destinations.clone(), &port.name)],
        // Connections that were opened while a port was HTTP go on as that, whatever it has become.
        Protocol::Detect | Protocol::Tcp => port.destinations.iter().map(one).collect(),
    }
}

/// First those of consumers, each for callers in its own namespace only, to whom the producer's do not matter. Who has routes, and a request
/// that none of them matches, gets 404.
fn routes(found: &PortRoutes, port: u16, cluster: &str, trust_domain: &str) -> Vec<Route> {
    let place = Place {
        port,
        protocol: PortProtocol::Http,
        cluster: service::cluster_name,
        mirror: mirror::policy,
        unresolved: demand::asks_for_nothing,
        retries_unseen: false,
    };
    let mut all = Vec::new();
    for (namespace, entries) in &found.consumers {
        let caller = caller_in(namespace, trust_domain);
        let refusal = Route { action: Some(Action::DirectResponse(answer(404))), ..onwards(cluster) };
        let own = entries.iter().map(|entry| route(entry, &place)).chain([refusal]);
        all.extend(own.map(|mut route| {
            route.r#match.get_or_insert_default().filter_state.push(caller.clone());
            route
        }));
    }
    match &found.producer {
        Some(entries) => all.extend(entries.iter().map(|entry| route(entry, &place))),
        None => all.push(onwards(cluster)),
    }
    // Where a client is to stay with one endpoint, by the backend's cluster; others do not look at it.
    all.into_iter().map(by_client).collect()
}

/// With what tells clients apart.
fn by_client(mut route: Route) -> Route {
    if let Some(Action::Route(action)) = &mut route.action {
        let key = state::NAMESPACE.to_owned();
        let policy = PolicySpecifier::FilterState(hash_policy::FilterState { key });
        action.hash_policy = vec![HashPolicy { terminal: false, policy_specifier: Some(policy) }];
    }
    route
}

/// Whether the pod that calls is in the namespace, by its identity, which its own listener has written down: the one thing that comes with
/// each connection, whatever its way, and names the namespace.
fn caller_in(namespace: &str, trust_domain: &str) -> FilterStateMatcher {
    let prefix = MatchPattern::Prefix(format!("spiffe://{trust_domain}/ns/{namespace}/sa/"));
    FilterStateMatcher {
        key: state::IDENTITY.to_owned(),
        matcher: Some(Matcher::StringMatch(StringMatcher {
            match_pattern: Some(prefix),
            ..StringMatcher::default()
        })),
    }
}

fn host(name: &str, domains: Vec<String>, routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name: name.to_owned(), domains, routes, ..VirtualHost::default() }
}

/// Everything, as it is.
fn onwards(cluster: &str) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        // Zero switches off Envoy's limit of 15 seconds.
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    };
    Route {
        // Whatever begins with `/` and what does not, of which Envoy hands on nothing so far: `OPTIONS *` it answers itself, with 404
        // (envoy#28481).
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}
