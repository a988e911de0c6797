//! The gateway's pods: who has which address, and when each was told to end. Noted when it is seen, so that no clock but ours counts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use tokio::task::AbortHandle;

use crate::testing::{Backend, Env, eventually};

const LOOK: Duration = Duration::from_millis(500);
/// A pod that answers has been there for longer than this.
const KNOWN: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
struct Known {
    address: Option<IpAddr>,
    told: Option<Instant>,
    gone: bool,
}

/// What is known of all pods that were ever seen, by uid.
#[derive(Debug, Clone)]
pub struct Pods {
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    _looking: Arc<Ended>,
}

/// Ends a task when the last one that needs it goes.
#[derive(Debug)]
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pods {
    /// Looks at the pods of the Gateway until it is dropped.
    pub fn watched(env: &Env, namespace: &str) -> Self {
        let api: Api<Pod> = Api::namespaced(env.client.clone(), namespace);
        let known = Arc::new(Mutex::new(BTreeMap::new()));
        let noting = Arc::clone(&known);
        let looking = tokio::spawn(async move {
            let proxies = ListParams::default().labels(Backend::PROXIES);
            loop {
                // An API server that does not answer says nothing about pods.
                if let Ok(list) = api.list(&proxies).await {
                    note(&mut lock(&noting), &list.items, Instant::now());
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { known, _looking: Arc::new(Ended(looking.abort_handle())) }
    }

    /// The pod that has this address now.
    pub async fn uid(&self, address: IpAddr) -> Result<String> {
        eventually(&format!("a pod of the gateway with address {address}"), KNOWN, || async {
            let known = lock(&self.known);
            let found = known.iter().find(|(_, pod)| !pod.gone && pod.address == Some(address));
            found.map(|(uid, _)| uid.clone()).ok_or_else(|| format!("{:?}", *known))
        })
        .await
    }

    /// When this pod was told to end.
    pub fn told(&self, uid: &str) -> Option<Instant> {
        lock(&self.known).get(uid).and_then(|pod| pod.told)
    }
}

fn lock(known: &Mutex<BTreeMap<String, Known>>) -> MutexGuard<'_, BTreeMap<String, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(known: &mut BTreeMap<String, Known>, pods: &[Pod], now: Instant) {
    known.values_mut().for_each(|pod| pod.gone = true);
    for pod in pods {
        let Some(uid) = pod.metadata.uid.clone() else { continue };
        let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let entry = known.entry(uid).or_insert(Known { address, told: None, gone: false });
        (entry.address, entry.gone) = (address, false);
        if pod.metadata.deletion_timestamp.is_some() {
            entry.told.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{from_value, json};

    use super::*;

    fn pod(uid: &str, ip: &str, ending: bool) -> Pod {
        let since = ending.then(|| Timestamp::UNIX_EPOCH.to_string());
        let metadata = json!({"uid": uid, "deletionTimestamp": since});
        from_value(json!({"metadata": metadata, "status": {"podIP": ip}})).unwrap()
    }

    #[test]
    fn a_pod_is_told_to_end_once_and_keeps_that_when_it_is_gone() {
        let mut known = BTreeMap::new();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        note(&mut known, &[pod("a", "10.0.0.1", false)], start);
        assert_eq!(known["a"].told, None);
        note(&mut known, &[pod("a", "10.0.0.1", true)], start + second);
        note(&mut known, &[pod("a", "10.0.0.1", true)], start + second * 2);
        note(&mut known, &[pod("b", "10.0.0.1", false)], start + second * 3);
        assert_eq!(known["a"].told, Some(start + second));
        assert!(known["a"].gone && !known["b"].gone);
    }
}
