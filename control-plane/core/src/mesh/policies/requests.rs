//! What is spoken at ports whose requests a policy looks at.

use std::collections::BTreeMap;

use super::super::{OPAQUE_PORTS, Protocol, protocol};
use crate::endpoints::endpoints;
use crate::model::{AuthorizationPolicy, ObjectKey, Pod, World};

/// Of these ports, those that are not HTTP, and who says so: a Service of the namespace before one of the pods, or where no Service says
/// anything, what everybody has there.
pub(super) fn not_http(world: &World, policy: &AuthorizationPolicy, pods: &[&Pod]) -> BTreeMap<u16, String> {
    let looked_at = policy.rules.iter().filter(|rule| !rule.http.is_empty());
    let ports = looked_at.flat_map(|rule| rule.ports.iter().copied());
    let mut said: BTreeMap<u16, Option<(Protocol, String)>> = ports.map(|port| (port, None)).collect();
    if said.is_empty() {
        return BTreeMap::new();
    }
    let namespace = &policy.meta.key.namespace;
    let services = world.services.range(ObjectKey::new(namespace, "")..);
    for (key, service) in services.take_while(|(key, _)| key.namespace == *namespace) {
        for port in service.ports.iter().filter(|port| port.protocol == "TCP") {
            let found = endpoints(world, key, port.port);
            for endpoint in found.zones.values().flatten() {
                let is_of = |pod: &&&Pod| pod.addresses.contains(&endpoint.address);
                if let Some(known) =
                    said.get_mut(&endpoint.port).filter(|_| pods.iter().any(|pod| is_of(&pod)))
                {
                    // One that says TCP is enough.
                    let is_news = known.as_ref().is_none_or(|(known, _)| *known != Protocol::Tcp);
                    let spoken = protocol(port);
                    if is_news && (known.is_none() || spoken == Protocol::Tcp) {
                        *known = Some((spoken, format!("by Service {}", key.name)));
                    }
                }
            }
        }
    }
    let odd = said.into_iter().filter_map(|(port, said)| match said {
        Some((Protocol::Tcp, by)) => Some((port, by)),
        None if OPAQUE_PORTS.contains(&port) => Some((port, "where servers speak first".to_owned())),
        _ => None,
    });
    odd.collect()
}
