//! From the index's output to the proxies' snapshots; what did not change is not translated again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::ClusterRef;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::model::{ObjectId, SecretState};
use meshwright_core::ObjectKey;
use meshwright_index::{GatewayOutput, Index, Output};
use meshwright_runtime::CancellationToken;
use meshwright_xds::envoy::{Options, Translation, endpoint, translate};
use meshwright_xds::{Snapshot, TypeUrl};
use tokio::sync::watch;

use crate::ads::{Gateways, Nacks};

/// What was published for one Gateway, and from what.
struct Published {
    from: Arc<GatewayOutput>,
    snapshot: Snapshot,
    origins: BTreeMap<(TypeUrl, String), BTreeSet<ObjectId>>,
}

/// Publishes until `drain`, and tells the index what proxies reject.
pub async fn run(index: Index, gateways: Gateways, nacks: Nacks, drain: CancellationToken) {
    let mut outputs = index.output();
    let mut rejections = nacks.changes();
    let mut publisher = Publisher { gateways, nacks, options: Options::default(), endpoints: BTreeMap::new(), published: BTreeMap::new() };
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            changed = outputs.changed() => match changed {
                Ok(()) => publisher.take(&mut outputs),
                Err(_) => return,
            },
            changed = rejections.changed() => if changed.is_err() { return },
        }
        let rejected = publisher.rejected();
        if rejected != told {
            index.set_rejections(rejected.clone()).await;
            told = rejected;
        }
    }
}

struct Publisher {
    gateways: Gateways,
    nacks: Nacks,
    options: Options,
    endpoints: BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>,
    published: BTreeMap<ObjectKey, Published>,
}

impl Publisher {
    fn take(&mut self, outputs: &mut watch::Receiver<Option<Arc<Output>>>) {
        let Some(output) = outputs.borrow_and_update().clone() else { return };
        let moved = moved(&self.endpoints, &output.endpoints);
        self.published.retain(|key, _| {
            let kept = output.gateways.contains_key(key);
            if !kept {
                self.gateways.remove(key);
            }
            kept
        });
        for (key, gateway) in &output.gateways {
            let next = match self.published.remove(key) {
                Some(known) if Arc::ptr_eq(&known.from, gateway) => with_endpoints(known, &moved, &output),
                _ => (self.translated(gateway, &output), true),
            };
            let (next, changed) = next;
            if changed {
                self.gateways.publish(key, next.snapshot.clone());
            }
            self.published.insert(key.clone(), next);
        }
        self.endpoints.clone_from(&output.endpoints);
    }

    fn translated(&self, gateway: &Arc<GatewayOutput>, output: &Output) -> Published {
        let mut endpoints = |cluster: &ClusterRef| output.endpoints.get(cluster).map(|found| (**found).clone()).unwrap_or_default();
        let mut certificate = |key: &ObjectKey| match gateway.certificates.get(key).map(Arc::as_ref) {
            Some(SecretState::Ok(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let Translation { resources, origins } = translate(&gateway.config, &self.options, &mut endpoints, &mut certificate);
        let mut snapshot = Snapshot::default();
        for kind in TypeUrl::ALL {
            let of_kind = resources.get(kind).into_iter().flat_map(|all| all.values().cloned());
            snapshot = snapshot.with(*kind, of_kind);
        }
        Published { from: gateway.clone(), snapshot, origins }
    }

    /// Objects behind what proxies reject, with Envoy's words.
    fn rejected(&self) -> BTreeMap<ObjectId, String> {
        let mut rejected = BTreeMap::new();
        for (gateway, published) in &self.published {
            for nack in self.nacks.of(gateway) {
                let origins = published.origins.get(&(nack.kind, nack.resource.to_string()));
                for object in origins.into_iter().flatten() {
                    rejected.insert(object.clone(), nack.message.clone());
                }
            }
        }
        rejected
    }
}

/// Clusters whose endpoints are not what they were.
fn moved(old: &BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>, new: &BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>) -> BTreeSet<Arc<ClusterRef>> {
    new.iter()
        .filter(|(cluster, endpoints)| old.get(*cluster).is_none_or(|known| !Arc::ptr_eq(known, endpoints)))
        .map(|(cluster, _)| cluster.clone())
        .collect()
}

/// Only EDS changes; the flag says whether anything did.
fn with_endpoints(mut known: Published, moved: &BTreeSet<Arc<ClusterRef>>, output: &Output) -> (Published, bool) {
    let mut changed = false;
    for cluster in moved.iter().filter(|cluster| known.from.clusters.contains(cluster.as_ref())) {
        if let Some(endpoints) = output.endpoints.get(cluster) {
            known.snapshot.edit(TypeUrl::Endpoint).insert(endpoint::resource(cluster, endpoints));
            changed = true;
        }
    }
    (known, changed)
}
