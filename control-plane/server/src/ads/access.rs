//! Which proxy may have which Gateway's configuration.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::value::Kind;
use meshwright_api::names;
use meshwright_core::model::ObjectKey;
use meshwright_pki::{SpiffeId, peer_identity};
use tonic::{Request, Status};

/// The identity in the client's certificate, which the handshake has verified.
pub fn peer<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let certs = request.peer_certs().ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
    let leaf = certs.first().ok_or_else(|| Status::unauthenticated("the client's certificate chain is empty"))?;
    peer_identity(leaf).map_err(|error| Status::unauthenticated(format!("client certificate: {error}")))
}

/// Name of the proxy and the Gateway that it says it belongs to.
pub fn gateway_of(first: &DeltaDiscoveryRequest) -> Result<(String, ObjectKey), Status> {
    let node = first.node.as_ref().ok_or_else(|| Status::invalid_argument("the first request names no node"))?;
    let field = |name: &str| {
        let value = node.metadata.as_ref()?.fields.get(name)?.kind.as_ref()?;
        match value {
            Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    };
    match (field("GATEWAY_NAMESPACE"), field("GATEWAY_NAME")) {
        (Some(namespace), Some(name)) => Ok((node.id.clone(), ObjectKey::new(namespace, name))),
        _ => Err(Status::invalid_argument("node metadata needs GATEWAY_NAMESPACE and GATEWAY_NAME")),
    }
}

/// Only the service account that the operator made for a Gateway gets its configuration, and its certificates' keys.
pub fn allowed(peer: &SpiffeId, gateway: &ObjectKey, trust_domain: &str) -> Result<(), Status> {
    let needed = names::spiffe_id(trust_domain, &gateway.namespace, &names::gateway_resources(&gateway.name));
    if peer.as_str() == needed {
        return Ok(());
    }
    Err(Status::permission_denied(format!("{peer} is not {needed}, the identity of that Gateway's proxies")))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_proxy_gets_its_own_gateway_only() {
        let id = SpiffeId::workload("cluster.local", "shop", "edge-meshwright").unwrap();
        assert!(allowed(&id, &ObjectKey::new("shop", "edge"), "cluster.local").is_ok());
        for (namespace, name, domain) in [("shop", "other", "cluster.local"), ("bank", "edge", "cluster.local"), ("shop", "edge", "elsewhere")] {
            let refusal = allowed(&id, &ObjectKey::new(namespace, name), domain).unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied);
        }
    }

    #[test]
    fn a_request_without_a_gateway_is_refused() {
        assert_eq!(gateway_of(&DeltaDiscoveryRequest::default()).unwrap_err().code(), Code::InvalidArgument);
    }
}
