//! Resident memory, by word of each node's kubelet (`stats/summary`): what metrics-server shows is the working set,
//! which counts cached files too.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::report::Report;
use crate::testing::{DEADLINE, Env, MESH, eventually};

/// Namespace and container of what is measured.
const MEASURED: [(&str, &str); 2] = [("meshwright-system", "operator"), (MESH, "control-plane")];

/// Reports the largest pod of each.
///
/// # Errors
/// When kubelets do not say it.
pub async fn measure(env: &Env, when: &str, report: &mut Report) -> Result<()> {
    let since = Timestamp::now();
    // Kubelet measures every ten seconds or so: a figure from before does not count.
    let pods = eventually("a new measurement of every pod's memory", DEADLINE, || async {
        resident(env, since).await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    for (_, container) in MEASURED {
        let largest = pods.get(container).and_then(|all| all.iter().max()).context("no pod was measured")?;
        let name = format!("resident memory (kubelet's rssBytes, largest pod) of {container} {when}");
        report.add(&name, *largest as f64 / f64::from(1 << 20), "MiB");
    }
    Ok(())
}

async fn resident(env: &Env, since: Timestamp) -> Result<BTreeMap<&'static str, Vec<u64>>> {
    let mut found = BTreeMap::<_, Vec<u64>>::new();
    for node in env.cluster.node_names() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let request = http::Request::get(&path).body(Vec::new())?;
        let summary: Value = env.client.request(request).await.with_context(|| format!("GET {path}"))?;
        for (container, bytes) in in_summary(&summary, since)? {
            found.entry(container).or_default().push(bytes);
        }
    }
    for (namespace, container) in MEASURED {
        anyhow::ensure!(found.contains_key(container), "no {container} of {namespace} is in the summaries");
    }
    Ok(found)
}

/// Containers and their resident bytes.
fn in_summary(summary: &Value, since: Timestamp) -> Result<Vec<(&'static str, u64)>> {
    let mut found = Vec::new();
    for pod in summary["pods"].as_array().into_iter().flatten() {
        for container in pod["containers"].as_array().into_iter().flatten() {
            let measured = MEASURED.iter().find(|(namespace, name)| {
                pod["podRef"]["namespace"] == *namespace && container["name"] == *name
            });
            let Some((_, name)) = measured else { continue };
            let memory = &container["memory"];
            let time: Timestamp =
                memory["time"].as_str().context("a time")?.parse().context("read a time")?;
            anyhow::ensure!(time >= since, "{} was measured at {time}", pod["podRef"]["name"]);
            found.push((*name, memory["rssBytes"].as_u64().context("no rssBytes in kubelet's summary")?));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_our_containers_count_and_only_new_measurements() {
        let container =
            |name: &str| json!({"name": name, "memory": {"time": "2026-01-01T00:00:10Z", "rssBytes": 7}});
        let pod = |namespace: &str, name: &str| json!({"podRef": {"namespace": namespace, "name": "p"}, "containers": [container(name)]});
        let summary =
            json!({"pods": [pod("mesh", "control-plane"), pod("mesh", "proxy"), pod("shop", "operator")]});
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(in_summary(&summary, at("2026-01-01T00:00:00Z")).unwrap(), [("control-plane", 7)]);
        assert!(in_summary(&summary, at("2026-01-01T00:00:11Z")).is_err());
    }
}
