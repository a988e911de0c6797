//! The bootstrap of a node's Envoy: a pure function from the settings to JSON.

use std::path::Path;

use meshwright_xds::mesh::signals::STATISTICS;
use serde_json::{Map, Value, json};

use super::{
    args::{EnvoyArgs, metadata},
    rules::MARK,
};
use crate::bootstrap::{PROCESS, common};

/// With this feature of Envoy 1.40 an internal connection that ends right after an answer was written loses the answer.
const LOSES_ANSWERS: &str = "envoy.reloadable_features.enable_send_rst_on_user_space_socket";

/// The allocator gives memory back above this, in bytes: about what a node with a few pods takes, binary not included. Below it that would only
/// cost time.
const SOFT_MEMORY_LIMIT: u64 = 64 << 20;
/// And at most so much a second, so that what comes in waves is still there with the next one.
const RELEASED_IN_A_SECOND: u64 = 5_000_000;

/// `SOL_SOCKET`, `SO_MARK`, `SO_KEEPALIVE`; `IPPROTO_TCP`, `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`.
const SOCKET: u32 = 1;
const SO_MARK: u32 = 36;
const SO_KEEPALIVE: u32 = 9;
const TCP: u32 = 6;
const TCP_KEEPIDLE: u32 = 4;
const TCP_KEEPINTVL: u32 = 5;
const TCP_KEEPCNT: u32 = 6;

/// Where connections of pods leave from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Path of a network namespace that leads nowhere.
    pub black_hole: &'a Path,
    /// The kernel has no IPv6.
    pub ipv4_only: bool,
}

/// As a gateway's, and what serves many pods in little memory: internal listeners, statistics that cost nothing until they count, and what all
/// clusters have in common. `process` is what no other process of this proxy has.
pub fn bootstrap(args: &EnvoyArgs, process: &str, sources: &Sources<'_>, memory: Option<u64>) -> Value {
    let mut all = common(&args.proxy, node(args, process), memory);
    if let Some(Value::Object(layer)) = all.pointer_mut("/layered_runtime/layers/0/static_layer") {
        layer.insert(LOSES_ANSWERS.to_owned(), false.into());
    }
    if let Some(Value::Object(xds)) = all.pointer_mut("/static_resources/clusters/0") {
        // The node's own: nothing of what is so for pods.
        xds.insert("upstream_bind_config".to_owned(), json!({}));
    }
    if let Value::Object(all) = &mut all {
        all.extend(own(sources));
    }
    all
}

/// From the network of whoever called, which filter state tells. What has lost its filter state connects from the black hole, so to nowhere: it
/// would leave from the node's own network otherwise. The mark tells the redirection in pods' namespaces whose connections these are. Dead peers
/// behind a stateful device are noticed after `30 + 3 * 10` seconds.
fn of_pods(sources: &Sources<'_>) -> Value {
    let nowhere = |address: &str| json!({ "address": address, "port_value": 0, "network_namespace_filepath": sources.black_hole });
    let options = [
        (SOCKET, SO_MARK, MARK),
        (SOCKET, SO_KEEPALIVE, 1),
        (TCP, TCP_KEEPIDLE, 30),
        (TCP, TCP_KEEPINTVL, 10),
        (TCP, TCP_KEEPCNT, 3),
    ];
    let option = |(level, name, value)| json!({ "level": level, "name": name, "int_value": value, "state": "STATE_PREBIND" });
    let others = ["::"].iter().filter(|_| !sources.ipv4_only);
    json!({
        "source_address": nowhere("0.0.0.0"),
        "extra_source_addresses": others.map(|address| json!({ "address": nowhere(address) })).collect::<Vec<_>>(),
        "socket_options": options.map(option),
        "local_address_selector": {
            "name": "envoy.upstream.local_address_selector.filter_state_override",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.local_address_selectors.filter_state_override.v3.Config" },
        },
    })
}

fn node(args: &EnvoyArgs, process: &str) -> Value {
    let EnvoyArgs { pod_name, pod_namespace, revision, place, .. } = args;
    let fields = metadata(pod_name, pod_namespace, revision, place).into_iter().chain([(PROCESS, process)]);
    let metadata: Map<String, Value> = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({ "id": format!("{pod_name}.{pod_namespace}"), "cluster": revision, "metadata": metadata })
}

/// The statistics that there are at all.
fn kept() -> Vec<Value> {
    STATISTICS.iter().map(|prefix| json!({ "prefix": prefix })).collect()
}

fn own(sources: &Sources<'_>) -> Map<String, Value> {
    let own = json!({
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener" },
        }],
        // A node has thousands of clusters, and calls few of them.
        "cluster_manager": { "enable_deferred_cluster_creation": true, "upstream_bind_config": of_pods(sources) },
        "deferred_stat_options": { "enable_deferred_creation_stats": true },
        "stats_config": { "use_all_default_tags": true, "stats_matcher": { "inclusion_list": { "patterns": kept() } } },
        "memory_allocator_manager": { "soft_memory_limit_bytes": SOFT_MEMORY_LIMIT, "bytes_to_release": RELEASED_IN_A_SECOND },
        // What nothing was counted in for so long is forgotten: pods and Services come and go.
        "stats_eviction_interval": "600s",
    });
    match own {
        Value::Object(own) => own,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: EnvoyArgs,
    }

    #[test]
    fn bootstrap_is_what_a_nodes_envoy_gets() {
        let arguments = "envoy --pod-name node-x --pod-namespace mesh --revision default-1a2b3c4d --node-name n1 --slot B --run-dir /run/proxy";
        let Cli { args } = Cli::parse_from(arguments.split(' '));
        let sources = |ipv4_only| Sources { black_hole: Path::new("/run/proxy/blackhole"), ipv4_only };
        insta::assert_json_snapshot!(bootstrap(&args, "p1", &sources(false), None));
        let of_ipv4 = of_pods(&sources(true));
        assert_eq!(
            (&of_ipv4["source_address"]["address"], &of_ipv4["extra_source_addresses"]),
            (&json!("0.0.0.0"), &json!([]))
        );
    }
}
