//! Which revisions get connections: what the API server says of the Service, not what the operator says of itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use meshwright_api::labels;

use super::{Backend, DEADLINE, Env, eventually};

/// Ready pods behind the Gateway's Service, by revision.
///
/// # Errors
/// When the API server does not say.
pub async fn revisions_behind(env: &Env, namespace: &str) -> Result<BTreeMap<String, usize>> {
    let slices: Api<EndpointSlice> = Api::namespaced(env.client.clone(), namespace);
    let of_service =
        ListParams::default().labels(&format!("kubernetes.io/service-name={}", Backend::SERVICE));
    let slices = slices.list(&of_service).await.context("list the endpoints of the Gateway")?.items;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
    let pods =
        pods.list(&ListParams::default().labels(Backend::PROXIES)).await.context("list proxies")?.items;
    Ok(count(&slices, &pods))
}

/// Waits until no ready pod of this revision is behind the Service any more; gives the time that it took.
///
/// # Errors
/// After the deadline.
pub async fn out_of_service(env: &Env, namespace: &str, revision: &str) -> Result<Duration> {
    let start = Instant::now();
    eventually(&format!("revision {revision} to be out of service"), DEADLINE, || async {
        let behind = revisions_behind(env, namespace).await.map_err(|e| format!("{e:#}"))?;
        if behind.contains_key(revision) { Err(format!("{behind:?}")) } else { Ok(start.elapsed()) }
    })
    .await
}

fn count(slices: &[EndpointSlice], pods: &[Pod]) -> BTreeMap<String, usize> {
    let revisions: BTreeMap<String, &String> =
        pods.iter().filter_map(|pod| Some((pod.name_any(), pod.labels().get(labels::REVISION)?))).collect();
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.as_deref().unwrap_or_default());
    let ready =
        endpoints.filter(|e| e.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false));
    let names = ready.filter_map(|e| e.target_ref.as_ref()?.name.as_ref());
    let mut behind = BTreeMap::new();
    for revision in names.filter_map(|name| revisions.get(name)) {
        *behind.entry((*revision).clone()).or_default() += 1;
    }
    behind
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn ready_pods_count_for_the_revision_that_they_are_labelled_with() {
        let pod = |name: &str, revision: &str| -> Pod {
            let metadata = json!({"name": name, "labels": {"meshwright.io/revision": revision}});
            from_value(json!({"metadata": metadata})).unwrap()
        };
        let endpoint = |name: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "name": name}});
        let endpoints =
            json!([endpoint("a", true), endpoint("b", true), endpoint("c", false), endpoint("d", true)]);
        let slice: EndpointSlice =
            from_value(json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints, "ports": []}))
                .unwrap();
        let pods = [pod("a", "m-1"), pod("b", "m-1"), pod("c", "m-2")];
        assert_eq!(count(&[slice], &pods), BTreeMap::from([("m-1".to_owned(), 2)]));
    }
}
