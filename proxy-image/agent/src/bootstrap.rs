//! Envoy's bootstrap: a pure function from the settings to JSON.

use serde_json::{Value, json};

use crate::{Args, args::Proxy};

/// The name of the cluster that is us.
pub const XDS_CLUSTER: &str = "xds";

/// In the metadata of a node's Envoy: something that no other process of it has.
pub const PROCESS: &str = "PROCESS";

const HEAP_MONITOR: &str = "envoy.resource_monitors.fixed_heap";

/// The largest program of a regular expression (RE2's count, about two for each character). Beyond it Envoy refuses
/// the whole RouteConfiguration, everybody's routes with the one expression, and its default of 100 is less than many
/// an honest one has. So this must be more than anything the control plane sends: what it lets users write, and the
/// quoted path prefixes of up to 1024 characters that it writes itself. A program of this size still matches in
/// linear time.
const MAX_REGEX_PROGRAM: u32 = 10_000;

/// Of a gateway: where to find, whom to say to be, and what to survive; `memory` is what this container may use, if that is known.
pub fn bootstrap(args: &Args, memory: Option<u64>) -> Value {
    common(&args.proxy, node(args), memory)
}

/// What every Envoy of ours has.
pub(crate) fn common(proxy: &Proxy, node: Value, memory: Option<u64>) -> Value {
    json!({
        "node": node,
        "admin": {
            // 0600: who can write to it can stop Envoy.
            "address": { "pipe": { "path": proxy.admin_socket(), "mode": 0o600 } },
            // Who fills the proxy with connections must not end its probes, its metrics and its drain.
            "ignore_global_conn_limit": true,
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
        "static_resources": { "clusters": [xds_cluster(proxy)] },
        "layered_runtime": {
            "layers": [{
                "name": "static",
                "static_layer": { "re2.max_program_size.error_level": MAX_REGEX_PROGRAM },
            }],
        },
        "overload_manager": overload_manager(proxy, memory),
        "stats_config": { "use_all_default_tags": true },
    })
}

fn overload_manager(proxy: &Proxy, memory: Option<u64>) -> Value {
    let connections = json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": proxy.max_connections,
        },
    });
    let Some(memory) = memory else {
        return json!({ "refresh_interval": "0.25s", "resource_monitors": [connections] });
    };
    let heap = json!({
        "name": HEAP_MONITOR,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            // The rest is for the agent, which holds the same configuration, and for what is not on the heap.
            "max_heap_size_bytes": memory / 8 * 7,
        },
    });
    // Some requests answered with 503 are better than all connections lost to the OOM killer.
    json!({
        "refresh_interval": "0.25s",
        "resource_monitors": [connections, heap],
        "actions": [
            at_heap("envoy.overload_actions.shrink_heap", 0.9),
            at_heap("envoy.overload_actions.stop_accepting_requests", 0.95),
        ],
    })
}

fn at_heap(action: &str, pressure: f64) -> Value {
    json!({
        "name": action,
        "triggers": [{ "name": HEAP_MONITOR, "threshold": { "value": pressure } }],
    })
}

fn node(args: &Args) -> Value {
    let workload = &args.workload;
    json!({
        "id": format!("{}.{}", workload.pod_name, workload.pod_namespace),
        "cluster": format!("{}.{}", args.gateway_name, args.gateway_namespace),
        "metadata": {
            "GATEWAY_NAME": args.gateway_name,
            "GATEWAY_NAMESPACE": args.gateway_namespace,
            "REVISION": workload.revision,
            "POD_NAME": workload.pod_name,
            "POD_NAMESPACE": workload.pod_namespace,
            "POD_IP": args.pod_ip,
            "SERVICE_ACCOUNT": workload.service_account,
        },
    })
}

// Waits for ever for the first configuration: a proxy that gives up and listens with half of it answers wrongly.
fn ads() -> Value {
    json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
}

fn xds_cluster(proxy: &Proxy) -> Value {
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
                "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": proxy.xds_socket() } } } }],
            }],
        },
    })
}
