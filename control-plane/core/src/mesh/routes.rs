//! Where routes lead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Mesh, Touched};
use crate::config::ServiceRoutes;
use crate::endpoints::{Endpoints, endpoints};
use crate::model::{ObjectKey, World};

type Backends = BTreeMap<(ObjectKey, u16), Arc<Endpoints>>;

/// The endpoints of all Services that routes lead to. What is equal to what it was is the same allocation, the whole included.
pub(super) fn backends(
    known: &Mesh,
    routes: &Arc<ServiceRoutes>,
    touched: &Touched,
    world: &World,
) -> Arc<Backends> {
    let is_same = Arc::ptr_eq(&known.routes, routes);
    if is_same && !known.backends.keys().any(|(service, _)| touched.services.contains(service)) {
        return known.backends.clone();
    }
    let keys: BTreeSet<(ObjectKey, u16)> = if is_same {
        known.backends.keys().cloned().collect()
    } else {
        let ports = routes.values().flat_map(BTreeMap::values);
        let entries = ports.flat_map(|routes| routes.entries().chain(routes.connections.entries()));
        let clusters = entries.flat_map(|entry| entry.rule.clusters());
        clusters.map(|cluster| (cluster.service.clone(), cluster.port)).collect()
    };
    let found = keys.into_iter().map(|key| {
        let before = known.backends.get(&key);
        let endpoints = match before.filter(|_| !touched.services.contains(&key.0)) {
            Some(before) => before.clone(),
            None => {
                let found = endpoints(world, &key.0, key.1);
                before.filter(|before| ***before == found).cloned().unwrap_or_else(|| Arc::new(found))
            }
        };
        (key, endpoints)
    });
    let found: Backends = found.collect();
    if *known.backends == found { known.backends.clone() } else { Arc::new(found) }
}
