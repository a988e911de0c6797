//! The bootstrap of a node's Envoy: a pure function from the settings to JSON.

use meshwright_xds::mesh::signals::STATISTICS;
use serde_json::{Map, Value, json};

use super::args::{EnvoyArgs, metadata};
use crate::bootstrap::{PROCESS, common};

/// With this feature of Envoy 1.40 an internal connection that ends right after an answer was written loses the answer.
const LOSES_ANSWERS: &str = "envoy.reloadable_features.enable_send_rst_on_user_space_socket";

/// As a gateway's, and what serves many pods in little memory: internal listeners, and statistics that cost nothing until they count.
/// `process` is what no other process of this proxy has.
pub fn bootstrap(args: &EnvoyArgs, process: &str, memory: Option<u64>) -> Value {
    let mut all = common(&args.proxy, node(args, process), memory);
    if let Some(Value::Object(layer)) = all.pointer_mut("/layered_runtime/layers/0/static_layer") {
        layer.insert(LOSES_ANSWERS.to_owned(), false.into());
    }
    if let Value::Object(all) = &mut all {
        all.extend(own());
    }
    all
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

fn own() -> Map<String, Value> {
    let own = json!({
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener" },
        }],
        // A cluster takes 20 kB this way instead of 52 kB, and a node has thousands.
        "cluster_manager": { "enable_deferred_cluster_creation": true },
        "deferred_stat_options": { "enable_deferred_creation_stats": true },
        "stats_config": { "use_all_default_tags": true, "stats_matcher": { "inclusion_list": { "patterns": kept() } } },
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
        insta::assert_json_snapshot!(bootstrap(&args, "p1", None));
    }
}
