//! From the index's output to snapshots, once per Gateway and only for Gateways that something changed for.
//!
//! A cluster that no route names any more stays for a while: a request may have been routed to it a moment ago, and a route that comes back
//! soon, as in a canary that is turned up and down, finds it warm. Without that, 200 quick route changes failed some ten requests of 6,000.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meshwright_core::ObjectKey;
use meshwright_core::config::ClusterRef;
use meshwright_core::endpoints::Endpoints;
use meshwright_core::model::SecretState;
use meshwright_index::{GatewayOutput, Index, Output};
use meshwright_runtime::CancellationToken;
use meshwright_xds::envoy::{self, Translation};
use meshwright_xds::{Resource, Snapshot, TypeUrl};
use tokio::time::Instant;

use crate::ads::{Origins, Registry};
use crate::metrics::Metrics;
use crate::nacks::Nacks;

/// How long a cluster outlives its last route.
const LINGER: Duration = Duration::from_secs(60);

/// Clusters that no route names any more by their names, and since when.
type Lingering = BTreeMap<Arc<str>, (Arc<ClusterRef>, Instant)>;

/// What the last snapshot of a Gateway was made from.
struct Made {
    gateway: Arc<GatewayOutput>,
    /// Of the clusters that linger, too.
    endpoints: BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>,
    snapshot: Arc<Snapshot>,
    origins: Arc<Origins>,
    lingering: Lingering,
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
    pub async fn run(mut self, index: Index, drain: CancellationToken) {
        let mut outputs = index.output();
        let mut kept = BTreeSet::new();
        loop {
            let output = outputs.borrow_and_update().clone();
            if let Some(output) = output {
                self.publish(&output);
            }
            let lingering = self.lingering();
            if lingering != kept {
                index.keep_clusters(lingering.clone()).await;
                kept = lingering;
            }
            let expiry = self.next_expiry();
            tokio::select! {
                () = drain.cancelled() => return,
                changed = outputs.changed() => if changed.is_err() { return },
                () = until(expiry) => self.expire(Instant::now()),
            }
        }
    }

    /// Brings every Gateway up to date.
    pub fn publish(&mut self, output: &Output) {
        for (key, gateway) in &output.gateways {
            let next = match self.made.get(key) {
                Some(made) if Arc::ptr_eq(&made.gateway, gateway) => self.with_endpoints(made, output),
                made => Some(self.translate(key, made, gateway, output)),
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

    fn next_expiry(&self) -> Option<Instant> {
        self.made.values().flat_map(|made| made.lingering.values()).map(|(_, since)| *since + LINGER).min()
    }

    /// Every cluster that lingers somewhere.
    fn lingering(&self) -> BTreeSet<ClusterRef> {
        let all = self.made.values().flat_map(|made| made.lingering.values());
        all.map(|(cluster, _)| ClusterRef::clone(cluster)).collect()
    }

    /// Takes away the clusters that lingered long enough.
    fn expire(&mut self, now: Instant) {
        for (key, made) in &mut self.made {
            if self.nacks.is_behind(key) {
                begin_again(&mut made.lingering, now);
            }
            let over: Vec<_> = expired(&made.lingering, now).cloned().collect();
            if over.is_empty() {
                continue;
            }
            let mut snapshot = Snapshot::clone(&made.snapshot);
            snapshot.set_generation(made.snapshot.generation() + 1);
            for name in over {
                snapshot.edit(TypeUrl::Cluster).remove(&name);
                snapshot.edit(TypeUrl::Endpoint).remove(&name);
                if let Some((cluster, _)) = made.lingering.remove(&name) {
                    made.endpoints.remove(&cluster);
                }
            }
            made.snapshot = Arc::new(snapshot);
            self.registry.publish(key, made.snapshot.clone(), made.origins.clone());
        }
    }

    fn translate(
        &self,
        key: &ObjectKey,
        made: Option<&Made>,
        gateway: &Arc<GatewayOutput>,
        output: &Output,
    ) -> Made {
        let start = std::time::Instant::now();
        let mut used = BTreeMap::new();
        let mut endpoints = |cluster: &ClusterRef| {
            let Some((cluster, found)) = output.endpoints.get_key_value(cluster) else {
                // The index publishes both together; whatever it is, the cluster has to be known to linger later.
                used.insert(Arc::new(cluster.clone()), Arc::default());
                return Endpoints::default();
            };
            used.insert(cluster.clone(), found.clone());
            Endpoints::clone(found)
        };
        let mut certificate = |key: &ObjectKey| match gateway.certificates.get(key).map(Arc::as_ref) {
            Some(SecretState::Ok(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let Translation { mut resources, origins } =
            envoy::translate(&gateway.config, &self.options, &mut endpoints, &mut certificate);
        let known = made.map(|made| made.snapshot.as_ref());
        let wanted = resources.get(&TypeUrl::Cluster);
        let behind = self.nacks.is_behind(key);
        let wanted = |name: &str| wanted.is_some_and(|all| all.contains_key(name));
        let lingering = next_lingering(made, wanted, behind, Instant::now());
        for (cluster, _) in lingering.values() {
            let last = || made.and_then(|made| made.endpoints.get(cluster));
            if let Some(found) = output.endpoints.get(cluster).or_else(last) {
                let resource = envoy::endpoint::resource(cluster, found);
                let name = resource.name().to_string();
                resources.entry(TypeUrl::Endpoint).or_default().insert(name, resource);
                used.insert(cluster.clone(), found.clone());
            }
        }
        let snapshot = Arc::new(next_snapshot(known, resources, &lingering));
        self.metrics.translation_seconds.observe(start.elapsed().as_secs_f64());
        Made { gateway: gateway.clone(), endpoints: used, snapshot, origins: Arc::new(origins), lingering }
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
            lingering: made.lingering.clone(),
        })
    }
}

/// Sleeps until then; for ever if there is no such time.
pub(crate) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn expired(lingering: &Lingering, now: Instant) -> impl Iterator<Item = &Arc<str>> {
    lingering.iter().filter(move |(_, (_, since))| now.duration_since(*since) >= LINGER).map(|(name, _)| name)
}

/// The last good route table of a proxy that refused a newer one may name any of them, for as long as that lasts and a while after.
fn begin_again(lingering: &mut Lingering, now: Instant) {
    for (_, since) in lingering.values_mut().filter(|(_, since)| now.duration_since(*since) >= LINGER) {
        *since = now;
    }
}

/// Clusters of the last snapshot that are not wanted any more and have not been so for too long.
fn next_lingering(
    made: Option<&Made>,
    wanted: impl Fn(&str) -> bool,
    behind: bool,
    now: Instant,
) -> Lingering {
    let Some(made) = made else { return Lingering::new() };
    let present =
        made.endpoints.keys().map(|cluster| (Arc::<str>::from(envoy::cluster::name(cluster)), cluster));
    let unwanted = present.filter(|(name, _)| !wanted(name));
    let since = |name: &str| made.lingering.get(name).map_or(now, |(_, since)| *since);
    let mut lingering: Lingering =
        unwanted.map(|(name, cluster)| (name.clone(), (cluster.clone(), since(&name)))).collect();
    if behind {
        begin_again(&mut lingering, now);
    }
    lingering.retain(|_, (_, since)| now.duration_since(*since) < LINGER);
    lingering
}

/// The new resources, on top of what did not change: a type that is as it was keeps its allocation, which is how a stream sees at a glance
/// that it has nothing to send.
fn next_snapshot(
    known: Option<&Snapshot>,
    resources: BTreeMap<TypeUrl, BTreeMap<String, Resource>>,
    lingering: &Lingering,
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
            .filter(|resource| {
                let with_cluster = matches!(kind, TypeUrl::Cluster | TypeUrl::Endpoint);
                !(with_cluster && lingering.contains_key(resource.name()))
            })
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

#[cfg(test)]
mod tests;
