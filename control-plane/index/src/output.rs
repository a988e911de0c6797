//! What is published for the proxies. Parts that did not change are the same allocation as before, so that a reader sees by address what
//! it has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::{ClusterRef, GatewayConfig};
use meshwright_core::endpoints::{Endpoints, endpoints};
use meshwright_core::model::SecretState;
use meshwright_core::{ObjectKey, World};

/// Everything that proxies need.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// One entry for every Gateway of ours that is accepted.
    pub gateways: BTreeMap<ObjectKey, Arc<GatewayOutput>>,
    /// Endpoints of every cluster that some Gateway uses, or that was asked for by [`crate::Index::keep_clusters`].
    pub endpoints: BTreeMap<Arc<ClusterRef>, Arc<Endpoints>>,
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
        let mut gateways = BTreeMap::new();
        for (key, config) in configs {
            let gateway = GatewayOutput::next(self.gateways.get(&key), config, world);
            gateways.insert(key, gateway);
        }
        let mut all = BTreeMap::new();
        for cluster in gateways.values().flat_map(|gateway| gateway.clusters.iter()).chain(kept) {
            let known = self.endpoints.get_key_value(cluster);
            let (cluster, known) = match known {
                Some((cluster, known)) => (cluster.clone(), Some(known)),
                None if all.contains_key(cluster) => continue,
                None => (Arc::new(cluster.clone()), None),
            };
            let found = match known {
                Some(known) if !touched.contains(&cluster.service) => known.clone(),
                _ => fresh(known, &cluster, world),
            };
            all.insert(cluster, found);
        }
        Self { gateways, endpoints: all }
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
            next.get_or_insert_with(|| self.clone()).endpoints.insert(Arc::new(cluster.clone()), found);
        }
        next
    }

    /// Whether there is something new for any reader.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let same_gateways = self.gateways.len() == other.gateways.len()
            && self.gateways.iter().zip(&other.gateways).all(|((a, x), (b, y))| a == b && Arc::ptr_eq(x, y));
        let same_endpoints = self.endpoints.len() == other.endpoints.len()
            && self
                .endpoints
                .iter()
                .zip(&other.endpoints)
                .all(|((a, x), (b, y))| a == b && Arc::ptr_eq(x, y));
        !(same_gateways && same_endpoints)
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
            None => Self { clusters: Arc::new(config.clusters()), config, certificates },
        })
    }
}

fn fresh(known: Option<&Arc<Endpoints>>, cluster: &ClusterRef, world: &World) -> Arc<Endpoints> {
    let found = endpoints(world, &cluster.service, cluster.port);
    match known {
        Some(known) if **known == found => known.clone(),
        _ => Arc::new(found),
    }
}
