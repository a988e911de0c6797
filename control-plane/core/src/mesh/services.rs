//! Services as destinations.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MeshPort, MeshService, protocol};
use crate::endpoints::endpoints;
use crate::model::{ObjectKey, Service, ServicePort, World};

/// The Service as a destination; None if it has no address of its own, or nothing that is spoken over TCP. Equal endpoints are those of
/// `known`.
pub(super) fn service(
    known: Option<&MeshService>,
    key: &ObjectKey,
    world: &World,
) -> Option<Arc<MeshService>> {
    let service = world.services.get(key).filter(|service| !service.cluster_ips.is_empty())?;
    let ports: BTreeMap<u16, MeshPort> = tcp(service)
        .map(|port| {
            let known = known.and_then(|known| known.ports.get(&port.port));
            (port.port, mesh_port(known, key, port, world))
        })
        .collect();
    (!ports.is_empty()).then(|| Arc::new(MeshService { addresses: service.cluster_ips.clone(), ports }))
}

fn tcp(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol == "TCP")
}

fn mesh_port(known: Option<&MeshPort>, key: &ObjectKey, port: &ServicePort, world: &World) -> MeshPort {
    let found = endpoints(world, key, port.port);
    let endpoints = match known {
        Some(known) if *known.endpoints == found => known.endpoints.clone(),
        _ => Arc::new(found),
    };
    MeshPort { protocol: protocol(port), endpoints }
}
