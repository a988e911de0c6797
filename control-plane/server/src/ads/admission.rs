//! Whether a peer may have a Gateway's configuration: its certificate has to be that of the Gateway's own service account.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind;
use meshwright_api::names;
use meshwright_core::ObjectKey;
use meshwright_pki::SpiffeId;
use tonic::Status;

/// Name of the Gateway in the node's metadata.
const GATEWAY_NAME: &str = "GATEWAY_NAME";
/// Its namespace.
const GATEWAY_NAMESPACE: &str = "GATEWAY_NAMESPACE";

/// The Gateway that the stream is for.
pub fn admit(
    identity: Option<&SpiffeId>,
    node: Option<&Node>,
    trust_domain: &str,
) -> Result<ObjectKey, Status> {
    let identity = identity.ok_or_else(|| Status::unauthenticated("ADS needs a client certificate"))?;
    let node = node.ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
    let gateway = ObjectKey::new(metadata(node, GATEWAY_NAMESPACE)?, metadata(node, GATEWAY_NAME)?);
    let account = names::gateway_resources(&gateway.name);
    let expected = SpiffeId::workload(trust_domain, &gateway.namespace, &account)
        .map_err(|_| Status::invalid_argument("the node's metadata names no possible Gateway"))?;
    if *identity != expected {
        return Err(Status::permission_denied(format!(
            "{identity} may not have the configuration of Gateway {gateway}, which is {expected}'s"
        )));
    }
    Ok(gateway)
}

fn metadata<'a>(node: &'a Node, key: &str) -> Result<&'a str, Status> {
    let value =
        node.metadata.as_ref().and_then(|all| all.fields.get(key)).and_then(|value| value.kind.as_ref());
    match value {
        Some(Kind::StringValue(text)) if !text.is_empty() => Ok(text),
        _ => Err(Status::invalid_argument(format!("the node's metadata has no {key}"))),
    }
}
