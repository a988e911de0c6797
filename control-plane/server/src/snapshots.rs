//! From the index's output to snapshots, once per Gateway and only for Gateways that something changed for.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::config::ClusterRef;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::model::SecretState;
use meshwright_index::{GatewayOutput, Output};
use meshwright_runtime::CancellationToken;
use meshwright_xds::envoy::{self, Translation};
use meshwright_xds::{Resource, Snapshot, TypeUrl};
use tokio::sync::watch;

use crate::ads::{Origins, Registry};
use crate::metrics::Metrics;
use crate::nacks::Nacks;

/// What the last snapshot of a Gateway was made from.
struct Made {
    gateway: Arc<GatewayOutput>,
    endpoints: BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>,
    snapshot: Arc<Snapshot>,
    origins: Arc<Origins>,
}

/// Makes snapshots of outputs.
pub struct Translator {
    made: BTreeMap<ObjectKey, Made>,
    registry: Registry,
    nacks: Nacks,
    options: envoy::Options,
    metrics: Metrics,
}

impl Translator {
    /// Publishes to this registry.
    pub fn new(registry: Registry, nacks: Nacks, metrics: Metrics) -> Self {
        Self { made: BTreeMap::new(), registry, nacks, options: envoy::Options::default(), metrics }
    }

    /// Follows the index until `drain` is cancelled.
    pub async fn run(mut self, mut outputs: watch::Receiver<Option<Arc<Output>>>, drain: CancellationToken) {
        loop {
            let output = outputs.borrow_and_update().clone();
            if let Some(output) = output {
                self.publish(&output);
            }
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Brings every Gateway up to date.
    pub fn publish(&mut self, output: &Output) {
        for (key, gateway) in &output.gateways {
            let next = match self.made.get(key) {
                Some(made) if Arc::ptr_eq(&made.gateway, gateway) => self.with_endpoints(made, output),
                made => Some(self.translate(made, gateway, output)),
            };
            if let Some(next) = next {
                self.registry.publish(key, next.snapshot.clone(), next.origins.clone());
                self.made.insert(key.clone(), next);
            }
        }
        let before = self.made.len();
        self.made.retain(|key, _| output.gateways.contains_key(key));
        if before != self.made.len() {
            self.registry.retain(|key| output.gateways.contains_key(key));
        }
        // A resource that is gone cannot be refused any more.
        self.nacks.recheck();
    }

    fn translate(&self, made: Option<&Made>, gateway: &Arc<GatewayOutput>, output: &Output) -> Made {
        let start = std::time::Instant::now();
        let mut used = BTreeMap::new();
        let mut endpoints = |cluster: &ClusterRef| {
            let Some((cluster, found)) = output.endpoints.get_key_value(cluster) else {
                return Endpoints::default();
            };
            used.insert(cluster.clone(), found.clone());
            Endpoints::clone(found)
        };
        let mut certificate = |key: &ObjectKey| match gateway.certificates.get(key).map(Arc::as_ref) {
            Some(SecretState::Ok(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let Translation { resources, origins } =
            envoy::translate(&gateway.config, &self.options, &mut endpoints, &mut certificate);
        let known = made.map(|made| made.snapshot.as_ref());
        let snapshot = Arc::new(next_snapshot(known, resources));
        self.metrics.translation_seconds.observe(start.elapsed().as_secs_f64());
        Made { gateway: gateway.clone(), endpoints: used, snapshot, origins: Arc::new(origins) }
    }

    /// Only the endpoints that are others now; None if there are none.
    fn with_endpoints(&self, made: &Made, output: &Output) -> Option<Made> {
        let changed: Vec<(Arc<ClusterRef>, Arc<Endpoints>)> = made
            .endpoints
            .iter()
            .filter_map(|(cluster, known)| {
                let found = output.endpoints.get(cluster).filter(|found| !Arc::ptr_eq(known, found))?;
                Some((cluster.clone(), found.clone()))
            })
            .collect();
        if changed.is_empty() {
            return None;
        }
        let mut snapshot = Snapshot::clone(&made.snapshot);
        let mut endpoints = made.endpoints.clone();
        let resources = snapshot.edit(TypeUrl::Endpoint);
        for (cluster, found) in changed {
            resources.insert(envoy::endpoint::resource(&cluster, &found));
            endpoints.insert(cluster, found);
        }
        snapshot.set_generation(made.snapshot.generation() + 1);
        Some(Made {
            gateway: made.gateway.clone(),
            endpoints,
            snapshot: Arc::new(snapshot),
            origins: made.origins.clone(),
        })
    }
}

/// The new resources, on top of what did not change: a type that is as it was keeps its allocation, which is how a stream sees at a glance
/// that it has nothing to send.
fn next_snapshot(
    known: Option<&Snapshot>,
    resources: BTreeMap<TypeUrl, BTreeMap<String, Resource>>,
) -> Snapshot {
    let mut snapshot = known.cloned().unwrap_or_default();
    snapshot.set_generation(known.map_or(1, |known| known.generation() + 1));
    let mut resources = resources;
    for kind in TypeUrl::ALL {
        let wanted = resources.remove(kind).unwrap_or_default();
        let current = snapshot.resources(*kind);
        let gone: Vec<Arc<str>> = current
            .into_iter()
            .flat_map(|current| current.iter())
            .filter(|resource| !wanted.contains_key(&**resource.name()))
            .map(|resource| resource.name().clone())
            .collect();
        let new: Vec<Resource> = wanted
            .into_values()
            .filter(|resource| {
                let known = current.and_then(|current| current.get(resource.name()));
                known.is_none_or(|known| known.version() != resource.version())
            })
            .collect();
        if current.is_some() && gone.is_empty() && new.is_empty() {
            continue;
        }
        let all = snapshot.edit(*kind);
        gone.iter().for_each(|name| all.remove(name));
        new.into_iter().for_each(|resource| all.insert(resource));
    }
    snapshot
}
