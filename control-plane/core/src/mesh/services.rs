//! Services as destinations.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MeshPort, MeshService, Protocol, protocol};
use crate::config::{PortRoutes, ServiceRoutes};
use crate::endpoints::endpoints;
use crate::model::{ObjectKey, Service, ServicePort, World};

/// The Service as a destination; None if it has no address of its own, or nothing that is spoken over TCP. Equal endpoints are those of
/// `known`.
pub(super) fn service(
    known: Option<&MeshService>,
    key: &ObjectKey,
    world: &World,
    routes: &ServiceRoutes,
) -> Option<Arc<MeshService>> {
    let service = world.services.get(key).filter(|service| !service.cluster_ips.is_empty())?;
    let ports: BTreeMap<u16, MeshPort> = tcp(service)
        .map(|port| {
            let known = known.and_then(|known| known.ports.get(&port.port));
            let routes = routes.get(key).and_then(|routes| routes.get(&port.port));
            (port.port, mesh_port(known, key, port, routes.map(AsRef::as_ref), world))
        })
        .collect();
    let (addresses, balancing) = (service.cluster_ips.clone(), service.balancing);
    (!ports.is_empty()).then(|| Arc::new(MeshService { addresses, ports, balancing }))
}

fn tcp(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(|port| port.protocol == "TCP")
}

/// A producer's TCPRoute makes TCP of the port, whatever was declared: it is about connections, and byte by byte every protocol works. A
/// producer's route about requests that names the port makes HTTP of what nobody declared. One that is for the whole Service does not: it says
/// nothing of any port, and on one of them the server may speak first. Nor does a consumer's, of whatever kind: it must change nothing for
/// others, who may say something else there.
fn mesh_port(
    known: Option<&MeshPort>,
    key: &ObjectKey,
    port: &ServicePort,
    routes: Option<&PortRoutes>,
    world: &World,
) -> MeshPort {
    let found = endpoints(world, key, port.port);
    let endpoints = match known {
        Some(known) if *known.endpoints == found => known.endpoints.clone(),
        _ => Arc::new(found),
    };
    let protocol = match routes {
        Some(routes) if routes.connections.producer.is_some() => Protocol::Tcp,
        Some(routes) if routes.is_named => Protocol::Http,
        _ => protocol(port),
    };
    MeshPort { protocol, endpoints }
}
