//! Memory in use, as metrics-server says it: the working set, which counts active cached files too. (The kubelet's
//! `stats/summary` would know the resident part, but answers 500 without local storage isolation.)

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
    // Measured every ten seconds or so: a figure from before does not count.
    let pods = eventually("a new measurement of every pod's memory", DEADLINE, || async {
        used(env, since).await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    for (_, container) in MEASURED {
        let largest = pods.get(container).and_then(|all| all.iter().max()).context("no pod was measured")?;
        let name = format!("memory (working set, largest pod) of {container} {when}");
        report.add(&name, *largest as f64 / 1024.0, "MiB");
    }
    Ok(())
}

async fn used(env: &Env, since: Timestamp) -> Result<BTreeMap<&'static str, Vec<u64>>> {
    let mut found = BTreeMap::<_, Vec<u64>>::new();
    for (namespace, container) in MEASURED {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let request = http::Request::get(&path).body(Vec::new())?;
        let metrics: Value = env.client.request(request).await.with_context(|| format!("GET {path}"))?;
        let pods = in_metrics(&metrics, container, since)?;
        // A new pod has no figure for its first half minute.
        anyhow::ensure!(!pods.is_empty(), "no pod of {namespace} has a figure yet");
        found.insert(container, pods);
    }
    Ok(found)
}

/// KiB of each container of that name.
fn in_metrics(metrics: &Value, name: &str, since: Timestamp) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for pod in metrics["items"].as_array().into_iter().flatten() {
        let time: Timestamp = pod["timestamp"].as_str().context("a time")?.parse().context("read a time")?;
        anyhow::ensure!(time >= since, "{} was measured at {time}", pod["metadata"]["name"]);
        for container in pod["containers"].as_array().into_iter().flatten().filter(|c| c["name"] == name) {
            let usage = container.pointer("/usage/memory").and_then(Value::as_str).unwrap_or_default();
            let kib = usage.strip_suffix("Ki").and_then(|n| n.parse().ok());
            found.push(kib.with_context(|| format!("a memory usage of {usage:?}"))?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_container_counts_and_only_new_measurements() {
        let containers = json!([{"name": "operator", "usage": {"memory": "7Ki"}}, {"name": "other", "usage": {"memory": "9Ki"}}]);
        let metrics = json!({"items": [{"timestamp": "2026-01-01T00:00:10Z", "containers": containers}]});
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(in_metrics(&metrics, "operator", at("2026-01-01T00:00:00Z")).unwrap(), [7]);
        assert!(in_metrics(&metrics, "operator", at("2026-01-01T00:00:11Z")).is_err());
    }
}
