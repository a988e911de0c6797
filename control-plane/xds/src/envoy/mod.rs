//! From a [`GatewayConfig`] to Envoy's resources. Pure translation: whatever can be decided has been decided
//! in `meshwright-core`.
//!
//! Everything is sorted and named after the objects it comes from, so that equal input gives equal bytes on
//! every replica. Clusters and endpoints have functions of their own ([`cluster::resource`],
//! [`endpoint::resource`]): endpoints change alone and often, and a cluster depends on nothing else.

pub mod cluster;
pub(crate) mod common;
pub mod endpoint;
mod header;
pub mod listener;
mod mtls;
mod origins;
mod parts;
mod path;
pub mod route;
pub mod secret;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meshwright_core::config::{GatewayConfig, PortConfig, PortProtocol};
use meshwright_core::model::{ObjectKey, TlsCertificate};

use self::route::Encoder;
use crate::{Resource, TypeUrl};

pub use self::mtls::Backends;
pub use self::origins::origins;
pub use self::parts::{Part, PartKind, parts};
pub use self::route::EncodedHosts;

/// What is not in the Gateway API but shapes the resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address that listeners bind to.
    pub bind_address: String,
    /// At what age clients are asked to come back on another connection.
    pub max_connection_duration: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind_address: "0.0.0.0".to_owned(),
            max_connection_duration: listener::MAX_CONNECTION_DURATION,
        }
    }
}

/// The resources of one Gateway's proxies, clusters and their endpoints apart.
#[derive(Debug, Default)]
pub struct Translation {
    /// By type, then by name. Types without resources are absent.
    pub resources: BTreeMap<TypeUrl, BTreeMap<Arc<str>, Resource>>,
    /// What the next translation may use again.
    pub hosts: EncodedHosts,
}

impl Translation {
    fn add(&mut self, kind: TypeUrl, resource: Resource) {
        self.resources.entry(kind).or_default().insert(resource.name().clone(), resource);
    }
}

/// Translates the configuration of one Gateway. `certificate` is asked for every Secret that a listener uses; one that is gone meanwhile is
/// left out, and the listener's chain waits for it. `known` is what the last translation left, or empty: it saves work and changes nothing.
pub fn translate(
    config: &GatewayConfig,
    options: &Options,
    certificate: &mut dyn FnMut(&ObjectKey) -> Option<TlsCertificate>,
    known: &EncodedHosts,
) -> Translation {
    let mut translation = Translation::default();
    let mut encoder = Encoder { known, used: EncodedHosts::default() };
    for port in &config.ports {
        if let Some(resource) = listener::resource(&config.gateway, port, options) {
            translation.add(TypeUrl::Listener, resource);
            let routes = route::resources(&config.gateway, port, &mut encoder);
            routes.into_iter().for_each(|resource| translation.add(TypeUrl::Route, resource));
        }
    }
    for key in secrets(config) {
        if let Some(found) = certificate(key) {
            translation.add(TypeUrl::Secret, secret::resource(key, &found));
        }
    }
    Translation { hosts: encoder.used, ..translation }
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
