//! Which objects a resource was made from, so that a NACK can be told to whom it concerns. Found when it is asked: refusals are rare.

use std::collections::BTreeSet;

use meshwright_core::config::{GatewayConfig, RouteEntry};
use meshwright_core::model::{ObjectId, ObjectKind};

use super::{cluster, is_servable, listener, route, secret, secrets};
use crate::TypeUrl;

/// The Gateway and the routes that a resource was made from; empty if the configuration leads to none of that name.
pub fn origins(config: &GatewayConfig, kind: TypeUrl, name: &str) -> BTreeSet<ObjectId> {
    let gateway = &config.gateway;
    let mut ports = config.ports.iter().filter(|port| is_servable(port));
    let routes = match kind {
        TypeUrl::Cluster | TypeUrl::Endpoint => {
            let name = cluster::of_endpoints(name);
            let named = |entry: &&RouteEntry| entry.rule.clusters().any(|one| cluster::name(one) == name);
            Some(config.entries().filter(named).collect::<Vec<_>>()).filter(|found| !found.is_empty())
        }
        TypeUrl::Route => {
            ports.flat_map(|port| route::configurations(gateway, port)).find(|(known, ..)| known == name).map(
                |(_, hosts, _)| hosts.into_iter().flat_map(|host| &host.routes).map(AsRef::as_ref).collect(),
            )
        }
        TypeUrl::Listener => ports.any(|port| listener::name(gateway, port.port) == name).then(Vec::new),
        TypeUrl::Secret => secrets(config).into_iter().any(|key| secret::name(key) == name).then(Vec::new),
        _ => None,
    };
    let Some(routes) = routes else { return BTreeSet::new() };
    let own = ObjectId { kind: ObjectKind::Gateway, key: gateway.clone() };
    // Thousands of entries may be of few routes.
    let routes: BTreeSet<_> = routes.into_iter().map(|entry| (entry.kind, &entry.route)).collect();
    let routes = routes.into_iter().map(|(kind, key)| ObjectId { kind: kind.object(), key: key.clone() });
    routes.chain([own]).collect()
}
