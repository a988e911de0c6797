//! What a resolution looked at. Objects are shared, so whether one is still the same is a question of its address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::difference::difference;
use crate::model::{
    GatewayObservation, GatewayParameters, HttpRoute, Namespace, ObjectId, ObjectKey, ReferenceGrant,
    SecretState, Service, World,
};

/// What Gateways and routes refer to, and the routes. (A Gateway is small, and is remembered with what was made of it.) To hold the objects
/// keeps their addresses from being used again.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    http_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    grpc_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    tcp_routes: BTreeMap<ObjectKey, Arc<HttpRoute>>,
    reference_grants: BTreeMap<ObjectKey, Arc<ReferenceGrant>>,
    services: BTreeMap<ObjectKey, Arc<Service>>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    secrets: BTreeMap<ObjectKey, Arc<SecretState>>,
    gateway_parameters: BTreeMap<ObjectKey, Arc<GatewayParameters>>,
    gateway_observations: BTreeMap<ObjectKey, Arc<GatewayObservation>>,
    rejections: BTreeMap<ObjectId, String>,
}

/// Names of what is not as it was: new, gone, or another object.
#[derive(Debug)]
pub(crate) struct Changes {
    pub http_routes: BTreeSet<ObjectKey>,
    pub grpc_routes: BTreeSet<ObjectKey>,
    pub tcp_routes: BTreeSet<ObjectKey>,
    pub reference_grants: BTreeSet<ObjectKey>,
    pub services: BTreeSet<ObjectKey>,
    pub namespaces: BTreeSet<String>,
    pub secrets: BTreeSet<ObjectKey>,
    pub gateway_parameters: BTreeSet<ObjectKey>,
    pub gateway_observations: BTreeSet<ObjectKey>,
    pub rejections: BTreeSet<ObjectId>,
}

impl Seen {
    /// Looks at the world; what was found is not found again.
    pub(crate) fn update(&mut self, world: &World) -> Changes {
        Changes {
            http_routes: update(&mut self.http_routes, &world.http_routes, Arc::ptr_eq),
            grpc_routes: update(&mut self.grpc_routes, &world.grpc_routes, Arc::ptr_eq),
            tcp_routes: update(&mut self.tcp_routes, &world.tcp_routes, Arc::ptr_eq),
            reference_grants: update(&mut self.reference_grants, &world.reference_grants, Arc::ptr_eq),
            services: update(&mut self.services, &world.services, Arc::ptr_eq),
            namespaces: update(&mut self.namespaces, &world.namespaces, Arc::ptr_eq),
            secrets: update(&mut self.secrets, &world.secrets, Arc::ptr_eq),
            gateway_parameters: update(&mut self.gateway_parameters, &world.gateway_parameters, Arc::ptr_eq),
            gateway_observations: update(
                &mut self.gateway_observations,
                &world.gateway_observations,
                Arc::ptr_eq,
            ),
            rejections: update(&mut self.rejections, &world.rejections, |a, b| a == b),
        }
    }
}

fn update<K: Ord + Clone, V: Clone>(
    seen: &mut BTreeMap<K, V>,
    now: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> BTreeSet<K> {
    let changed: BTreeSet<K> = difference(seen, now, same).cloned().collect();
    for key in &changed {
        match now.get(key) {
            Some(value) => seen.insert(key.clone(), value.clone()),
            None => seen.remove(key),
        };
    }
    changed
}
