//! Whether a peer may have a Gateway's configuration, or speak for its proxies: its certificate has to be that of the Gateway's own service
//! account. A node's configuration is for the agent of that very node.

use std::fmt;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind;
use meshwright_api::{NodeSlot, names};
use meshwright_core::ObjectKey;
use meshwright_pki::SpiffeId;
use tonic::Status;

use crate::nodes::Agents;

/// Name of the Gateway in the node's metadata.
const GATEWAY_NAME: &str = "GATEWAY_NAME";
/// Its namespace.
const GATEWAY_NAMESPACE: &str = "GATEWAY_NAMESPACE";
/// Name of the pod; its namespace is the Gateway's, or the mesh's.
const POD_NAME: &str = "POD_NAME";
/// Name of the Node.
const NODE_NAME: &str = "NODE_NAME";
/// Which ports the node's proxy has.
const SLOT: &str = "SLOT";
/// Names of objects are no longer.
const MAX_NAME: usize = 253;

/// Whose stream it is, and of which pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What the stream is for.
    pub owner: Owner,
    /// The proxy's pod.
    pub pod: ObjectKey,
}

/// What there is configuration for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A Gateway.
    Gateway(ObjectKey),
    /// The proxy of a node, with its ports.
    Node(String, NodeSlot),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(gateway) => write!(f, "gateway {gateway}"),
            Self::Node(node, slot) => write!(f, "node {node} slot {}", slot.as_str()),
        }
    }
}

/// Whether the stream that begins with this node may have what the node asks for.
pub fn admit(identity: Option<&SpiffeId>, node: Option<&Node>, agents: &Agents) -> Result<Admitted, Status> {
    let node = node.ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
    if identity.is_some_and(|identity| identity.node_agent().is_some()) {
        let (name, slot) = admit_agent(identity, node, agents)?;
        return Ok(Admitted { owner: Owner::Node(name, slot), pod: pod(node, &agents.namespace)? });
    }
    let gateway = ObjectKey::new(metadata(node, GATEWAY_NAMESPACE)?, metadata(node, GATEWAY_NAME)?);
    is_proxy_of(identity, &gateway, &agents.trust_domain)?;
    // Proxies run in their Gateway's namespace; what else the node says of it would have to be believed.
    let pod = pod(node, &gateway.namespace)?;
    Ok(Admitted { owner: Owner::Gateway(gateway), pod })
}

fn admit_agent(
    identity: Option<&SpiffeId>,
    node: &Node,
    agents: &Agents,
) -> Result<(String, NodeSlot), Status> {
    let (certified, asked) = (agents.node_of(identity)?, metadata(node, NODE_NAME)?);
    if certified != asked {
        return Err(Status::permission_denied(format!(
            "the agent of node {certified} may not ask for node {asked:?}"
        )));
    }
    let slot = metadata(node, SLOT)?;
    let slot = NodeSlot::ALL.into_iter().find(|known| known.as_str() == slot);
    let slot = slot
        .ok_or_else(|| Status::invalid_argument("the node's metadata has a SLOT that is neither A nor B"))?;
    Ok((certified.to_owned(), slot))
}

fn pod(node: &Node, namespace: &str) -> Result<ObjectKey, Status> {
    match metadata(node, POD_NAME)? {
        pod if is_name(pod) => Ok(ObjectKey::new(namespace, pod)),
        _ => Err(Status::invalid_argument("the node's metadata has a POD_NAME that is no name")),
    }
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
