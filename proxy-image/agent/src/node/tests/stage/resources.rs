//! What a test's control plane sends.

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster,
    core::v3::{
        Address, BindConfig, DataSource, SocketAddress, TransportSocket, address::Address as Kind,
        data_source::Specifier, socket_address::PortSpecifier,
    },
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
    listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
    route::v3::{
        DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
        route_action::ClusterSpecifier, route_match::PathSpecifier,
    },
};
use envoy_types::pb::envoy::extensions::filters::{
    http::router::v3::Router,
    network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier, http_filter,
    },
};
use envoy_types::util::pack_any;
use meshwright_xds::Resource;

/// Sends everything to the cluster of that name.
pub fn to_cluster(name: &str) -> Action {
    let specifier = ClusterSpecifier::Cluster(name.to_owned());
    Action::Route(RouteAction { cluster_specifier: Some(specifier), ..RouteAction::default() })
}

/// Answers everything with who it is.
pub fn listener(
    uid: &str,
    direction: &str,
    port: u16,
    by: &str,
    transport_socket: Option<TransportSocket>,
) -> Resource {
    let body = DataSource {
        specifier: Some(Specifier::InlineString(format!("{direction} of {uid}{by}"))),
        ..DataSource::default()
    };
    let action = DirectResponseAction { status: 200, body: Some(body), ..DirectResponseAction::default() };
    let action = Action::DirectResponse(action);
    answering(
        &format!("pod/{uid}/{direction}"),
        "0.0.0.0",
        port,
        &format!("pod:{uid}"),
        action,
        transport_socket,
    )
}

pub fn answering(
    name: &str,
    address: &str,
    port: u16,
    namespace: &str,
    action: Action,
    transport_socket: Option<TransportSocket>,
) -> Resource {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let routes = RouteConfiguration {
        name: "all".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "pod".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![HttpFilter {
            name: "router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    let filter =
        Filter { name: "http".to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(manager))) };
    let listener = Listener {
        name: name.to_owned(),
        address: Some(Address { address: Some(Kind::SocketAddress(socket(address, port, namespace))) }),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            transport_socket,
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    Resource::new(name, pack_any(listener))
}

fn socket(address: &str, port: u16, namespace: &str) -> SocketAddress {
    SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        network_namespace_filepath: namespace.to_owned(),
        ..SocketAddress::default()
    }
}

/// Of the node's own, or one that a pod's connections go to.
pub fn cluster(name: &str, port: u16, is_own: bool) -> Resource {
    let endpoint = Endpoint {
        address: Some(Address { address: Some(Kind::SocketAddress(socket("127.0.0.1", port, ""))) }),
        ..Endpoint::default()
    };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let cluster = Cluster {
        name: name.to_owned(),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        upstream_bind_config: is_own.then(BindConfig::default),
        ..Cluster::default()
    };
    Resource::new(name, pack_any(cluster))
}
