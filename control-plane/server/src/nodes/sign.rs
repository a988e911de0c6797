//! SignIdentity: an agent gets the identities of the pods that run on its node, by our own watch and not by its word.

use std::sync::Arc;
use std::time::Duration;

use meshwright_core::mesh::Mesh;
use meshwright_index::Output;
use meshwright_pki::SpiffeId;
use meshwright_proto::certificates::SignCertificateResponse;
use meshwright_proto::nodes::SignIdentityRequest;
use tokio::sync::watch;
use tonic::Status;

use super::Nodes;

type Outputs = watch::Receiver<Option<Arc<Output>>>;

/// The agent may have heard of a pod before us: from the kubelet, or from another replica.
const WATCH_BEHIND: Duration = Duration::from_secs(5);

impl Nodes {
    pub(super) async fn sign(
        &self,
        node: &str,
        request: SignIdentityRequest,
    ) -> Result<SignCertificateResponse, Status> {
        let SignIdentityRequest { csr_der, identity } = request;
        let id: SpiffeId = identity
            .parse()
            .map_err(|error: meshwright_pki::Error| Status::invalid_argument(error.to_string()))?;
        appears(self.parts.outputs.clone(), node, &id).await?;
        let response = self.signer.sign(&csr_der, &id)?;
        tracing::info!(%id, node, "certificate of a pod signed");
        Ok(response)
    }
}

/// Waits until a pod with this identity is on the node.
async fn appears(mut outputs: Outputs, node: &str, id: &SpiffeId) -> Result<(), Status> {
    let has =
        |output: &Option<Arc<Output>>| output.as_ref().is_some_and(|known| is_here(&known.mesh, node, id));
    let seen = async { outputs.wait_for(has).await.map(drop) };
    match tokio::time::timeout(WATCH_BEHIND, seen).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::unavailable("the cluster is not watched any more")),
        Err(_) if outputs.borrow().is_none() => {
            Err(Status::unavailable("not everything was listed yet, ask again in some seconds"))
        }
        Err(_) => Err(Status::not_found(format!("no pod of the mesh on node {node} has identity {id}"))),
    }
}

/// Whether a pod that is to be in the mesh has this identity and this node.
fn is_here(mesh: &Mesh, node: &str, id: &SpiffeId) -> bool {
    let mut members = mesh.nodes.get(node).into_iter().flat_map(|node| node.members.values());
    members.any(|member| *member.identity == *id.as_str())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::tests::mesh;
    use super::*;

    #[test]
    fn an_identity_is_signed_where_a_pod_has_it_and_nowhere_else() {
        let mesh = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], None);
        for (node, id, expected) in [
            ("n1", "spiffe://cluster.local/ns/shop/sa/of-u1", true),
            ("n2", "spiffe://cluster.local/ns/shop/sa/of-u1", false),
            ("n3", "spiffe://cluster.local/ns/shop/sa/of-u1", false),
            ("n1", "spiffe://other/ns/shop/sa/of-u1", false),
            ("n1", "spiffe://cluster.local/ns/shop/sa/of-u", false),
            ("n1", "spiffe://cluster.local/ns/mesh-ns/sa/mesh-1-node/node/n1", false),
        ] {
            assert_eq!(is_here(&mesh, node, &id.parse().unwrap()), expected, "{node} {id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_does_not_appear_is_waited_for_and_then_refused() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/of-u1".parse().unwrap();
        let (sender, outputs) = watch::channel(None);
        let refused = async |outputs: &Outputs| appears(outputs.clone(), "n1", &id).await.unwrap_err().code();
        assert_eq!(refused(&outputs).await, Code::Unavailable, "nobody knows yet");
        let list = |pods: &[(&str, &str, &str)]| {
            let mesh = Arc::new(mesh(pods, None));
            sender.send_replace(Some(Arc::new(Output { mesh, ..Output::default() })));
        };
        list(&[("n2", "u1", "10.0.0.1")]);
        assert_eq!(refused(&outputs).await, Code::NotFound);
        let (seen, ()) = tokio::join!(appears(outputs, "n1", &id), async {
            tokio::time::sleep(WATCH_BEHIND / 2).await;
            list(&[("n1", "u1", "10.0.0.1")]);
        });
        seen.unwrap();
    }
}
