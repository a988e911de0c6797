//! Following backendRefs. The outcome for all references of one route is a small table: together with the
//! route it is everything that compilation depends on, so equal tables mean an equal result.

use std::collections::BTreeMap;

use super::grants::{self, From, To};
use crate::conditions::reason;
use crate::config::{BackendProtocol, ClusterRef};
use crate::model::{
    BackendRef, GATEWAY_GROUP, HttpRoute, HttpRouteFilter, ObjectKey, RouteKind, Service, ServiceType, World,
};
use crate::status::Finding;

/// A backendRef with the API's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BackendKey {
    group: String,
    kind: String,
    object: ObjectKey,
    port: Option<u16>,
}

impl BackendKey {
    /// What a reference of a route in `namespace` stands for.
    pub(crate) fn new(reference: &BackendRef, namespace: &str) -> Self {
        Self {
            group: reference.group.clone().unwrap_or_default(),
            kind: reference.kind.clone().unwrap_or_else(|| "Service".to_owned()),
            object: ObjectKey::new(
                reference.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
                reference.name.clone(),
            ),
            port: reference.port,
        }
    }

    /// What it names, whether that exists or not.
    pub(crate) fn object(&self) -> &ObjectKey {
        &self.object
    }
}

/// Whose proxies a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// A Gateway's.
    Gateway,
    /// Those of the pods that call a Service.
    Mesh,
}

/// Where each backendRef of one route leads, or why nowhere.
pub(crate) type BackendTable = BTreeMap<BackendKey, Result<ClusterRef, Finding>>;

/// Follows every backendRef of a route, those of mirrors included. In the mesh no grant is needed (GEP-1294): nothing is exposed that callers
/// could not call without the route, from the same pods and in the same name.
pub(crate) fn backend_table(route: &HttpRoute, side: Side, world: &World) -> BackendTable {
    let from = From { group: GATEWAY_GROUP, kind: route.kind.as_str(), namespace: &route.meta.key.namespace };
    let mut table = BackendTable::new();
    for rule in &route.rules {
        let backends = rule.backend_refs.iter();
        let mirrors = rule
            .filters
            .iter()
            .chain(rule.backend_refs.iter().flat_map(|backend| &backend.filters))
            .filter_map(|filter| match filter {
                HttpRouteFilter::RequestMirror(mirror) => Some(&mirror.backend_ref),
                _ => None,
            });
        for reference in backends.map(|backend| &backend.backend_ref).chain(mirrors) {
            let key = BackendKey::new(reference, from.namespace);
            table.entry(key).or_insert_with_key(|key| resolve_backend(key, route.kind, &from, side, world));
        }
    }
    table
}

fn resolve_backend(
    key: &BackendKey,
    kind: RouteKind,
    from: &From<'_>,
    side: Side,
    world: &World,
) -> Result<ClusterRef, Finding> {
    if !key.group.is_empty() || key.kind != "Service" {
        return Err(Finding::new(
            reason::INVALID_KIND,
            format!(
                "backend {} has kind {} of group {:?}; only Service is known",
                key.object, key.kind, key.group
            ),
        ));
    }
    // The right comes before the existence: an answer must not tell what is in another namespace.
    let to = To { group: "", kind: "Service", namespace: &key.object.namespace, name: &key.object.name };
    if side == Side::Gateway && !grants::permitted(world, from, &to) {
        return Err(Finding::new(
            reason::REF_NOT_PERMITTED,
            format!(
                "no ReferenceGrant in namespace {} permits Service {}",
                key.object.namespace, key.object.name
            ),
        ));
    }
    let Some(service) = world.services.get(&key.object) else {
        return Err(Finding::new(reason::BACKEND_NOT_FOUND, format!("no Service {}", key.object)));
    };
    resolve_port(key, kind, service)
}

fn resolve_port(key: &BackendKey, kind: RouteKind, service: &Service) -> Result<ClusterRef, Finding> {
    let not_found = |message: String| Finding::new(reason::BACKEND_NOT_FOUND, message);
    if let ServiceType::ExternalName(_) = service.kind {
        return Err(not_found(format!(
            "Service {} is of type ExternalName, which is no backend",
            key.object
        )));
    }
    let Some(number) = key.port else {
        return Err(not_found(format!("the reference to Service {} names no port", key.object)));
    };
    let Some(port) = service.ports.iter().find(|port| port.port == number && port.protocol == "TCP") else {
        return Err(not_found(format!("Service {} has no TCP port {number}", key.object)));
    };
    // Whatever it speaks, byte by byte it arrives.
    let any = (kind == RouteKind::Tcp).then_some(BackendProtocol::Http1);
    let protocol = any.or_else(|| backend_protocol(port.app_protocol.as_deref())).ok_or_else(|| {
        let name = port.app_protocol.as_deref().unwrap_or_default();
        Finding::new(
            reason::UNSUPPORTED_PROTOCOL_BACKEND,
            format!("port {number} of Service {} has appProtocol {name}", key.object),
        )
    })?;
    Ok(ClusterRef { service: key.object.clone(), port: number, protocol })
}

/// `appProtocol` is free text apart from the `kubernetes.io/` names, so only unknown names of that kind are
/// an error.
fn backend_protocol(app_protocol: Option<&str>) -> Option<BackendProtocol> {
    match app_protocol {
        Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Some(BackendProtocol::H2c),
        None | Some("kubernetes.io/ws") => Some(BackendProtocol::Http1),
        Some(other) if other.starts_with("kubernetes.io/") => None,
        Some(_) => Some(BackendProtocol::Http1),
    }
}
