//! Envoy's bootstrap: a pure function from the settings to JSON.

use serde_json::{Value, json};

use crate::Args;

/// The name of the cluster that is us.
const XDS_CLUSTER: &str = "xds";

/// Where to find, whom to say to be, and what to survive.
pub fn bootstrap(args: &Args) -> Value {
    json!({
        "node": node(args),
        "admin": {
            // 0600: who can write to it can stop Envoy.
            "address": { "pipe": { "path": args.admin_socket(), "mode": 0o600 } },
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
            },
            "cds_config": ads(),
            "lds_config": ads(),
        },
        "static_resources": { "clusters": [xds_cluster(args)] },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": args.max_connections,
                },
            }],
        },
        "stats_config": { "use_all_default_tags": true },
    })
}

fn node(args: &Args) -> Value {
    json!({
        "id": format!("{}.{}", args.pod_name, args.pod_namespace),
        "cluster": format!("{}.{}", args.gateway_name, args.gateway_namespace),
        "metadata": {
            "GATEWAY_NAME": args.gateway_name,
            "GATEWAY_NAMESPACE": args.gateway_namespace,
            "REVISION": args.revision,
            "POD_NAME": args.pod_name,
            "POD_NAMESPACE": args.pod_namespace,
            "POD_IP": args.pod_ip,
            "SERVICE_ACCOUNT": args.service_account,
        },
    })
}

// Waits for ever for the first configuration: a proxy that gives up and listens with half of it answers wrongly.
fn ads() -> Value {
    json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
}

fn xds_cluster(args: &Args) -> Value {
    json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{
                "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": args.xds_socket() } } } }],
            }],
        },
    })
}
