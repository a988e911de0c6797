//! What the proxies of the nodes tell Prometheus of the traffic between pods.

use anyhow::Result;
use meshwright_e2e::testing::{Members, eventually, node_metrics, sum};

use crate::env::{DEADLINE, Env};
use crate::node_proxies::with_members;

/// Of all targets together.
const ENOUGH: u64 = 300;

/// The caller's proxy names both workloads, their Service and mutual TLS; the proxies of the called know the caller by its identity.
#[tokio::test]
async fn the_nodes_proxies_count_who_calls_whom() -> Result<()> {
    with_members("signals", async |env, members| {
        let of_caller = [("source_namespace", Members::NAMESPACE), ("source_workload", "caller")];
        let of_service = [("destination_namespace", Members::NAMESPACE), ("destination_service", "a")];
        let of_tcp = [("destination_namespace", Members::NAMESPACE), ("destination_service", "a-tcp")];
        let of_called = [("destination_workload", "a"), ("mtls", "true")];
        let labels = [of_caller, of_service, of_called].concat();
        let requests = "meshwright_requests_total";
        members.label(env, true).await?;
        members.are_listed(env, true).await?;
        let before = counted(env, requests, &labels).await?.unwrap_or(0);
        for (metric, labels) in [
            (
                requests,
                [labels.clone(), vec![("response_class", "2xx"), ("destination_port", "9080")]].concat(),
            ),
            ("meshwright_request_duration_seconds_count", labels.clone()),
            // Requests without a body send none.
            ("meshwright_sent_bytes_total", [&of_caller[..], &of_tcp, &of_called].concat()),
            ("meshwright_received_bytes_total", labels.clone()),
            (
                "meshwright_accepted_connections_total",
                vec![("source_service_account", "caller"), ("mtls", "true")],
            ),
        ] {
            eventually(&format!("{metric} with {labels:?} to grow"), DEADLINE, || async {
                let now = counted(env, metric, &labels).await.map_err(|e| format!("{e:#}"))?;
                let least = if metric == requests { before } else { 0 };
                if now > Some(least) { Ok(()) } else { Err(format!("{now:?} of all nodes, {least} before")) }
            })
            .await?;
        }
        // So many that it means something that none of them failed.
        members.more_connections(env, ENOUGH).await.map(drop)
    })
    .await
}

/// The sum over the proxies of all nodes; None where none of them has it.
async fn counted(env: &Env, metric: &str, labels: &[(&str, &str)]) -> Result<Option<u64>> {
    let all = node_metrics(env).await?;
    let values = all.values().filter_map(|metrics| sum(metrics, metric, labels));
    Ok(values.reduce(|one, other| one + other))
}
