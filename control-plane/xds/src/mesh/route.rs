//! The routes of a node's HTTP: one RouteConfiguration for all Services, with one virtual host for each way in which they are called.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route_match::PathSpecifier,
};
use meshwright_core::mesh::Protocol;

use super::parts::resource;
use super::service::Port;
use super::{fixed, http};
use crate::Resource;
use crate::envoy::common::duration;
use std::time::Duration;

/// The RouteConfiguration of all nodes.
pub(super) const NAME: &str = "node/http";

pub(super) fn configuration<'a>(ports: impl Iterator<Item = &'a Port>) -> Resource {
    let mut hosts: Vec<_> = ports.flat_map(hosts).collect();
    // A connection may outlive what was known of its destination.
    hosts.push(host("*", vec!["*".to_owned()], fixed::PASSTHROUGH));
    let configuration = RouteConfiguration {
        name: NAME.to_owned(),
        virtual_hosts: hosts,
        // Not by the Host that the client sends: what it says there is between it and the server.
        vhost_header: http::DESTINATION.to_owned(),
        request_headers_to_remove: vec![http::DESTINATION.to_owned()],
        ..RouteConfiguration::default()
    };
    resource(NAME, configuration)
}

fn hosts(port: &Port) -> Vec<VirtualHost> {
    let one = |destination: &String| host(destination, vec![destination.clone()], port.cluster(destination));
    match port.protocol {
        Protocol::Http if port.destinations.is_empty() => Vec::new(),
        Protocol::Http => vec![host(&port.name, port.destinations.clone(), &port.name)],
        Protocol::Detect => port.destinations.iter().map(one).collect(),
        Protocol::Tcp => Vec::new(),
    }
}

fn host(name: &str, domains: Vec<String>, cluster: &str) -> VirtualHost {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        // Zero switches off Envoy's limit of 15 seconds.
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    };
    let route = Route {
        // The empty prefix, not `/`: `OPTIONS *` has none.
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    VirtualHost { name: name.to_owned(), domains, routes: vec![route], ..VirtualHost::default() }
}
