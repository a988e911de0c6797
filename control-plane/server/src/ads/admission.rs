//! Whether a peer may have a Gateway's configuration, or speak for its proxies: its certificate has to be that of the Gateway's own service
//! account.

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
/// Name of the pod; its namespace is the Gateway's.
const POD_NAME: &str = "POD_NAME";
/// Names of objects are no longer.
const MAX_NAME: usize = 253;

/// Whose stream it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The Gateway that the stream is for.
    pub gateway: ObjectKey,
    /// The proxy's pod.
    pub pod: ObjectKey,
}

/// Whether the stream that begins with this node may have what the node asks for.
pub fn admit(
    identity: Option<&SpiffeId>,
    node: Option<&Node>,
    trust_domain: &str,
) -> Result<Admitted, Status> {
    let node = node.ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
    let gateway = ObjectKey::new(metadata(node, GATEWAY_NAMESPACE)?, metadata(node, GATEWAY_NAME)?);
    is_proxy_of(identity, &gateway, trust_domain)?;
    let pod = metadata(node, POD_NAME)?;
    if !is_name(pod) {
        return Err(Status::invalid_argument("the node's metadata has a POD_NAME that is no name"));
    }
    // Proxies run in their Gateway's namespace; what else the node says of it would have to be believed.
    let pod = ObjectKey::new(&gateway.namespace, pod);
    Ok(Admitted { gateway, pod })
}

/// Whether the peer is a proxy of this Gateway.
pub fn is_proxy_of(
    identity: Option<&SpiffeId>,
    gateway: &ObjectKey,
    trust_domain: &str,
) -> Result<(), Status> {
    let identity = identity.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
    let account = names::gateway_resources(&gateway.name);
    let expected = SpiffeId::workload(trust_domain, &gateway.namespace, &account)
        .map_err(|_| Status::invalid_argument("it names no possible Gateway"))?;
    if *identity != expected {
        return Err(Status::permission_denied(format!(
            "{identity} is no proxy of Gateway {gateway}, that would be {expected}"
        )));
    }
    Ok(())
}

/// Whether it could be the name of an object or an id: these end in statuses and logs.
pub fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(known)
}

fn metadata<'a>(node: &'a Node, key: &str) -> Result<&'a str, Status> {
    let value =
        node.metadata.as_ref().and_then(|all| all.fields.get(key)).and_then(|value| value.kind.as_ref());
    match value {
        Some(Kind::StringValue(text)) if !text.is_empty() => Ok(text),
        _ => Err(Status::invalid_argument(format!("the node's metadata has no {key}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for (text, expected) in [
            ("edge-meshwright-5f6.a_B", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
            ("a\n", false),
            ("ä", false),
            (&"a".repeat(253), true),
            (&"a".repeat(254), false),
        ] {
            assert_eq!(is_name(text), expected, "{text:?}");
        }
    }
}
