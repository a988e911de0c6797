//! Who the agents of nodes are. An agent speaks for the one node that the API server saw its pod on, and for no other.

use meshwright_api::names;
use meshwright_pki::SpiffeId;
use tonic::Status;

/// Those of our own revision; others have control planes of their own.
#[derive(Debug, Clone)]
pub struct Agents {
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Namespace of the mesh, where their pods are.
    pub namespace: String,
    /// Our MeshRevision.
    pub revision: String,
}

impl Agents {
    /// Whether that is the service account of the agents.
    pub fn has_account(&self, namespace: &str, account: &str) -> bool {
        namespace == self.namespace && account == names::node_resources(&self.revision)
    }

    /// Identity of the agent on this node.
    ///
    /// # Errors
    /// When no node could be called so.
    pub fn id(&self, node: &str) -> Result<SpiffeId, Status> {
        let id = names::node_id(&self.trust_domain, &self.namespace, &self.revision, node);
        let id: SpiffeId = id
            .parse()
            .map_err(|error: meshwright_pki::Error| Status::permission_denied(error.to_string()))?;
        // A slash within the name would make one identity out of another's parts.
        if id.node_agent().is_none_or(|(_, _, of)| of != node) {
            return Err(Status::permission_denied(format!("{node:?} is no name of a node")));
        }
        Ok(id)
    }

    /// The node that a peer speaks for.
    ///
    /// # Errors
    /// When it is no agent of ours.
    pub fn node_of<'a>(&self, peer: Option<&'a SpiffeId>) -> Result<&'a str, Status> {
        let peer = peer.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let node = peer.node_agent().map(|(_, _, node)| node);
        node.filter(|node| self.id(node).is_ok_and(|expected| expected == *peer)).ok_or_else(|| {
            Status::permission_denied(format!(
                "{peer} is no node's agent of revision {} in namespace {}",
                self.revision, self.namespace
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn agents() -> Agents {
        let (trust_domain, namespace) = ("td".to_owned(), "mesh-ns".to_owned());
        Agents { trust_domain, namespace, revision: "mesh-1".to_owned() }
    }

    #[test]
    fn the_account_is_that_of_our_revision_in_the_meshs_namespace() {
        for (namespace, account, expected) in [
            ("mesh-ns", "mesh-1-node", true),
            ("shop", "mesh-1-node", false),
            ("mesh-ns", "mesh-2-node", false),
            ("mesh-ns", "mesh-1", false),
        ] {
            assert_eq!(agents().has_account(namespace, account), expected, "{namespace}/{account}");
        }
    }

    #[test]
    fn a_node_is_in_the_identity_whole_or_not_at_all() {
        let id = agents().id("worker-1.example").unwrap();
        assert_eq!(id.as_str(), "spiffe://td/ns/mesh-ns/sa/mesh-1-node/node/worker-1.example");
        for node in ["", "a/b", "a b", "..", "a%2fb", "../../x"] {
            assert_eq!(agents().id(node).unwrap_err().code(), Code::PermissionDenied, "{node:?}");
        }
    }

    #[test]
    fn only_an_agent_of_our_revision_speaks_for_a_node() {
        let of = |id: &str| {
            let id: SpiffeId = id.parse().unwrap();
            agents().node_of(Some(&id)).map(str::to_owned)
        };
        assert_eq!(of("spiffe://td/ns/mesh-ns/sa/mesh-1-node/node/worker-1").unwrap(), "worker-1");
        for other in [
            "spiffe://other/ns/mesh-ns/sa/mesh-1-node/node/worker-1",
            "spiffe://td/ns/shop/sa/mesh-1-node/node/worker-1",
            "spiffe://td/ns/mesh-ns/sa/mesh-2-node/node/worker-1",
            "spiffe://td/ns/mesh-ns/sa/mesh-1-node",
            "spiffe://td/ns/mesh-ns/sa/mesh-1-node/pod/worker-1",
        ] {
            assert_eq!(of(other).unwrap_err().code(), Code::PermissionDenied, "{other}");
        }
        assert_eq!(agents().node_of(None).unwrap_err().code(), Code::Unauthenticated);
    }
}
