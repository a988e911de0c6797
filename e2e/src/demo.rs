//! `make demo`: a mesh, Bookinfo, and what to do next.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};

use crate::product::workspace;
use crate::testing::{apply_yaml, condition, eventually, get};
use crate::{Cluster, Layout};

const PATIENCE: Duration = Duration::from_secs(300);

/// Highly available, with `more` in its spec. Of all namespaces only the mesh's own is privileged: its node proxies enter networks of pods.
pub fn mesh(more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{ name: mesh, labels: {{ pod-security.kubernetes.io/enforce: privileged }} }}
---
apiVersion: meshwright.io/v1alpha1
kind: MeshControlPlane
metadata: {{ name: mesh, namespace: mesh }}
spec: {{ profile: Production{more} }}
"
    )
}

/// Applies the mesh and Bookinfo, waits until the page answers, and says where.
///
/// # Errors
/// Names what did not become ready.
pub async fn show(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let objects =
        |group: &str, version: &str, kind: &str, plural: &str, namespace: &str| -> Api<DynamicObject> {
            let resource =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            Api::namespaced_with(client.clone(), namespace, &resource)
        };
    println!("applying a MeshControlPlane, profile Production …");
    eventually("the MeshControlPlane to be accepted", PATIENCE, || async {
        apply_yaml(&client, &mesh(""), "mesh").await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    let meshes = objects("meshwright.io", "v1alpha1", "MeshControlPlane", "meshcontrolplanes", "mesh");
    condition(&meshes, "mesh", "Ready", "True", PATIENCE).await?;
    println!("the mesh is ready; installing Bookinfo …");
    let yaml = std::fs::read_to_string(workspace().join("target/dist/bookinfo.yaml"))
        .context("read bookinfo.yaml")?;
    apply_yaml(&client, &yaml, "bookinfo").await?;
    let gateways = objects("gateway.networking.k8s.io", "v1", "Gateway", "gateways", "bookinfo");
    condition(&gateways, "bookinfo", "Programmed", "True", PATIENCE).await?;
    let gateway = gateways.get("bookinfo").await?;
    let address = gateway
        .data
        .pointer("/status/addresses/0/value")
        .and_then(|v| v.as_str())
        .context("the Gateway has no address")?;
    let ip: IpAddr =
        address.parse().with_context(|| format!("the Gateway's address {address} is no IP address"))?;
    eventually("Bookinfo's page", PATIENCE, || async {
        let answer =
            get((ip, 80).into(), "bookinfo.example", "/productpage").await.map_err(|e| format!("{e:#}"))?;
        if answer.status == 200 { Ok(()) } else { Err(format!("status {}", answer.status)) }
    })
    .await?;
    println!(
        "\nBookinfo answers through the mesh's gateway:\n  open  http://{address}/productpage\n  curl  http://{address}/productpage\n\n{}",
        what_next(cluster.context(), &Layout::find()?.environment())
    );
    Ok(())
}

/// The checkout's own cluster has its own kubectl, one outside is looked at with the user's.
fn what_next(context: Option<&str>, environment: &str) -> String {
    let (kubectl, down) = match context {
        None => (format!("{environment}\n  kubectl"), String::new()),
        Some(context) => {
            (format!("kubectl --context {context}"), format!(" CLUSTER=external CONTEXT={context}"))
        }
    };
    format!(
        "look at the mesh:\n  {kubectl} get mcp,mrev,gateways -A\n\nstop and leave nothing behind:  make demo-down{down}"
    )
}

#[cfg(test)]
mod tests {
    use super::what_next;

    #[test]
    fn what_it_says_to_type_is_for_the_cluster_that_was_used() {
        let own = what_next(None, "export PATH=bin:$PATH KUBECONFIG=file");
        assert!(own.contains("\n  export PATH=bin:$PATH KUBECONFIG=file\n  kubectl get mcp"), "{own}");
        assert!(own.ends_with("make demo-down"), "{own}");
        let outside = what_next(Some("kind"), "export KUBECONFIG=file");
        assert!(outside.contains("\n  kubectl --context kind get mcp"), "{outside}");
        assert!(outside.ends_with("make demo-down CLUSTER=external CONTEXT=kind"), "{outside}");
        assert!(!outside.contains("export"), "{outside}");
    }
}
