//! What is published for the proxies. Parts that did not change are the same allocation as before, so that a reader sees by address what
//! it has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::{ClusterRef, GatewayConfig};
use meshwright_core::endpoints::{Endpoints, endpoints};
use meshwright_core::mesh::Mesh;
use meshwright_core::model::SecretState;
use meshwright_core::{ObjectKey, World, difference};

/// Everything that proxies need.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// One entry for every Gateway of ours, accepted or not.
    pub gateways: BTreeMap<ObjectKey, Arc<GatewayOutput>>,
    /// Endpoints of every cluster that some Gateway uses, or that is kept.
    pub endpoints: BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>,
    /// Clusters that were asked for by [`crate::Index::keep_clusters`].
    pub kept: BTreeSet<ClusterRef>,
    /// What node proxies do.
    pub mesh: Arc<Mesh>,
}

/// One Gateway.
#[derive(Debug, Clone)]
pub struct GatewayOutput {
    /// What its proxies do.
    pub config: Arc<GatewayConfig>,
    /// The clusters that the configuration names.
    pub clusters: Arc<BTreeSet<ClusterRef>>,
    /// The certificates that the configuration names, and no others.
    pub certificates: BTreeMap<ObjectKey, Arc<SecretState>>,
}

impl Output {
    /// The output after a resolution. `touched`: Services whose endpoints may have changed.
    pub(crate) fn resolved(
        &self,
        configs: BTreeMap<ObjectKey, Arc<GatewayConfig>>,
        world: &World,
        touched: &BTreeSet<ObjectKey>,
        kept: &BTreeSet<ClusterRef>,
    ) -> Self {
        let gateways: BTreeMap<_, _> = configs
            .into_iter()
            .map(|(key, config)| {
                let gateway = GatewayOutput::next(self.gateways.get(&key), config, world);
                (key, gateway)
            })
            .collect();
        let endpoints = self.endpoints_for(&gateways, world, touched, kept);
        Self { gateways, endpoints, kept: kept.clone(), mesh: self.mesh.clone() }
    }

    /// The endpoints that we have, with those of clusters that are new and without those of clusters that nobody names any more.
    fn endpoints_for(
        &self,
        gateways: &BTreeMap<ObjectKey, Arc<GatewayOutput>>,
        world: &World,
        touched: &BTreeSet<ObjectKey>,
        kept: &BTreeSet<ClusterRef>,
    ) -> BTreeMap<Arc<ClusterRef>, Arc<Endpoints>> {
        let same = |a: &Arc<GatewayOutput>, b: &Arc<GatewayOutput>| Arc::ptr_eq(&a.clusters, &b.clusters);
        let mut pairs = vec![(Some(&self.kept), Some(kept))];
        pairs.extend(difference(&self.gateways, gateways, same).map(|key| {
            let (before, after) = (self.gateways.get(key), gateways.get(key));
            (before.map(|gateway| &*gateway.clusters), after.map(|gateway| &*gateway.clusters))
        }));
        let none = BTreeSet::new();
        let pairs =
            pairs.into_iter().map(|(before, after)| (before.unwrap_or(&none), after.unwrap_or(&none)));
        let mut endpoints = self.endpoints.clone();
        let is_named = |cluster: &ClusterRef| {
            kept.contains(cluster) || gateways.values().any(|gateway| gateway.clusters.contains(cluster))
        };
        for (before, after) in pairs {
            for cluster in before.difference(after).filter(|cluster| !is_named(cluster)) {
                endpoints.remove(cluster);
            }
            for cluster in after.difference(before) {
                if !endpoints.contains_key(cluster) {
                    endpoints.insert(Arc::new(cluster.clone()), fresh(None, cluster, world));
                }
            }
        }
        let moved = endpoints.iter_mut().filter(|(cluster, _)| touched.contains(&cluster.service));
        moved.for_each(|(cluster, known)| *known = fresh(Some(known), cluster, world));
        endpoints
    }

    /// Looks again at the endpoints of these Services; None if they are what they were.
    pub(crate) fn with_endpoints(
        &self,
        world: &World,
        touched: &BTreeSet<ObjectKey>,
        kept: &BTreeSet<ClusterRef>,
    ) -> Option<Self> {
        let mut next: Option<Self> = None;
        for (cluster, known) in &self.endpoints {
            if touched.contains(&cluster.service) {
                let found = fresh(Some(known), cluster, world);
                if !Arc::ptr_eq(&found, known) {
                    next.get_or_insert_with(|| self.clone()).endpoints.insert(cluster.clone(), found);
                }
            }
        }
        // Those that are kept no longer go with the next resolution.
        for cluster in kept.iter().filter(|cluster| !self.endpoints.contains_key(*cluster)) {
            let found = fresh(None, cluster, world);
            let next = next.get_or_insert_with(|| self.clone());
            next.endpoints.insert(Arc::new(cluster.clone()), found);
            next.kept.insert(cluster.clone());
        }
        next
    }

    /// Whether there is something new for any reader.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        difference(&self.gateways, &other.gateways, Arc::ptr_eq).next().is_some()
            || difference(&self.endpoints, &other.endpoints, Arc::ptr_eq).next().is_some()
            || !Arc::ptr_eq(&self.mesh, &other.mesh)
    }
}

impl GatewayOutput {
    fn next(known: Option<&Arc<Self>>, config: Arc<GatewayConfig>, world: &World) -> Arc<Self> {
        let listeners = config.ports.iter().flat_map(|port| &port.listeners);
        let certificates: BTreeMap<_, _> = listeners
            .flat_map(|listener| &listener.certificates)
            .filter_map(|key| {
                // What is forgotten was needed no longer; only a configuration that is held back still names it.
                let last = || known.and_then(|known| known.certificates.get(key));
                Some((key.clone(), world.secrets.get(key).or_else(last)?.clone()))
            })
            .collect();
        let same_config = known.filter(|known| known.config == config);
        if let Some(known) = same_config
            && known.certificates == certificates
        {
            return known.clone();
        }
        Arc::new(match same_config {
            Some(known) => {
                Self { config: known.config.clone(), clusters: known.clusters.clone(), certificates }
            }
            None => Self { clusters: clusters(known, &config), config, certificates },
        })
    }
}

fn clusters(known: Option<&Arc<GatewayOutput>>, config: &GatewayConfig) -> Arc<BTreeSet<ClusterRef>> {
    let named = config.clusters();
    match known {
        Some(known) if known.clusters.iter().eq(named.iter().copied()) => known.clusters.clone(),
        _ => Arc::new(named.into_iter().cloned().collect()),
    }
}

fn fresh(known: Option<&Arc<Endpoints>>, cluster: &ClusterRef, world: &World) -> Arc<Endpoints> {
    let found = endpoints(world, &cluster.service, cluster.port);
    match known {
        Some(known) if **known == found => known.clone(),
        _ => Arc::new(found),
    }
}

#[cfg(test)]
mod tests;
