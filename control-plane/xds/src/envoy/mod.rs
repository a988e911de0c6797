//! From a [`GatewayConfig`] to Envoy's resources. Pure translation: whatever can be decided has been decided
//! in `meshwright-core`.
//!
//! Everything is sorted and named after the objects it comes from, so that equal input gives equal bytes on
//! every replica. Endpoints have a function of their own ([`endpoint::resource`]): they change alone and
//! often.

pub mod cluster;
mod common;
pub mod endpoint;
mod header;
pub mod listener;
mod path;
pub mod route;
pub mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwright_core::config::{ClusterRef, GatewayConfig, PortConfig, PortProtocol};
use meshwright_core::endpoints::Endpoints;
use meshwright_core::model::{ObjectId, ObjectKey, ObjectKind, TlsCertificate};

use crate::{Resource, TypeUrl};

/// What is not in the Gateway API but shapes the resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address that listeners bind to.
    pub bind_address: String,
    /// How long a client may keep a connection; None is no limit. Set while traffic moves between revisions.
    pub max_connection_duration: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { bind_address: "0.0.0.0".to_owned(), max_connection_duration: None }
    }
}

/// The resources of one Gateway's proxies.
#[derive(Debug, Clone, Default)]
pub struct Translation {
    /// By type, then by name. Types without resources are absent.
    pub resources: BTreeMap<TypeUrl, BTreeMap<String, Resource>>,
    /// Which objects a resource was made from, so that a NACK can be told to whom it concerns. Sorted,
    /// Gateway first.
    pub origins: BTreeMap<(TypeUrl, String), BTreeSet<ObjectId>>,
}

impl Translation {
    /// The objects that a resource was made from; empty for one that is unknown.
    pub fn origins_of(&self, kind: TypeUrl, name: &str) -> impl Iterator<Item = &ObjectId> {
        self.origins.get(&(kind, name.to_owned())).into_iter().flatten()
    }

    fn add(&mut self, kind: TypeUrl, resource: Resource, origins: BTreeSet<ObjectId>) {
        let name = resource.name().to_string();
        self.origins.insert((kind, name.clone()), origins);
        self.resources.entry(kind).or_default().insert(name, resource);
    }
}

/// Translates the configuration of one Gateway. `endpoints` is asked for every cluster, `certificate` for
/// every Secret that a listener uses; a certificate that is gone meanwhile is left out, and the listener's
/// chain waits for it.
pub fn translate(
    config: &GatewayConfig,
    options: &Options,
    endpoints: &mut dyn FnMut(&ClusterRef) -> Endpoints,
    certificate: &mut dyn FnMut(&ObjectKey) -> Option<TlsCertificate>,
) -> Translation {
    let mut translation = Translation::default();
    let gateway = ObjectId { kind: ObjectKind::Gateway, key: config.gateway.clone() };
    let own = BTreeSet::from([gateway]);
    for (cluster, mut origins) in cluster_origins(config) {
        origins.extend(own.iter().cloned());
        translation.add(
            TypeUrl::Endpoint,
            endpoint::resource(&cluster, &endpoints(&cluster)),
            origins.clone(),
        );
        translation.add(TypeUrl::Cluster, cluster::resource(&cluster), origins);
    }
    for port in &config.ports {
        if let Some(resource) = listener::resource(&config.gateway, port, options) {
            translation.add(TypeUrl::Listener, resource, own.clone());
            for (resource, routes) in route::resources(&config.gateway, port) {
                let origins = routes.into_iter().map(|key| ObjectId { kind: ObjectKind::HttpRoute, key });
                translation.add(TypeUrl::Route, resource, own.iter().cloned().chain(origins).collect());
            }
        }
    }
    for key in secrets(config) {
        if let Some(found) = certificate(key) {
            translation.add(TypeUrl::Secret, secret::resource(key, &found), own.clone());
        }
    }
    translation
}

/// Clusters with the routes that name them.
fn cluster_origins(config: &GatewayConfig) -> BTreeMap<ClusterRef, BTreeSet<ObjectId>> {
    let mut clusters: BTreeMap<ClusterRef, BTreeSet<ObjectId>> = BTreeMap::new();
    let listeners = config.ports.iter().flat_map(|port| &port.listeners);
    let entries = listeners.flat_map(|listener| &listener.virtual_hosts).flat_map(|host| &host.routes);
    for entry in entries {
        for cluster in entry.rule.clusters() {
            let origin = ObjectId { kind: ObjectKind::HttpRoute, key: entry.route.clone() };
            clusters.entry(cluster.clone()).or_default().insert(origin);
        }
    }
    clusters
}

fn secrets(config: &GatewayConfig) -> BTreeSet<&ObjectKey> {
    config.ports.iter().flat_map(|port| &port.listeners).flat_map(|listener| &listener.certificates).collect()
}

/// Whether a port can be opened: plain ones always, TLS ones with at least one certificate.
fn is_servable(port: &PortConfig) -> bool {
    port.protocol == PortProtocol::Http
        || port.listeners.iter().any(|listener| !listener.certificates.is_empty())
}

#[cfg(test)]
mod tests;
