//! The cluster, the mesh that all tests share, and how to reach a Gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};

use crate::Cluster;
use crate::product::{cache, workspace};

use super::{apply_yaml, condition, ensure_oha, eventually};

/// Namespace and name of the mesh.
pub const MESH: &str = "mesh";
/// Generous: a deadline says that something hangs, never that it is slow.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// One mesh for all tests, small requests because three nodes share one machine.
pub const MESH_YAML: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { pod-security.kubernetes.io/enforce: restricted } }
---
apiVersion: meshwright.io/v1alpha1
kind: MeshControlPlane
metadata: { name: mesh, namespace: mesh }
spec:
  profile: Production
  controlPlane: { resources: { requests: { cpu: 20m, memory: 64Mi } } }
  gateways: { resources: { requests: { cpu: 20m, memory: 64Mi } }, autoscaling: { maxReplicas: 5 } }
";

/// What a test holds.
pub struct Env {
    pub cluster: Cluster,
    pub client: Client,
}

impl Env {
    /// Connects, and makes sure that the mesh is there and Ready.
    pub async fn with_mesh() -> Result<Self> {
        let env = Self::connect().await?;
        apply_yaml(&env.client, MESH_YAML, MESH).await?;
        let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
        condition(&meshes, MESH, "Ready", "True", DEADLINE).await?;
        Ok(env)
    }

    /// Connects only.
    pub async fn connect() -> Result<Self> {
        let cluster = Cluster::current().context("start it with `make cluster`")?;
        let client = cluster.client().await?;
        Ok(Self { cluster, client })
    }

    pub fn api(&self, version: &str, kind: &str, plural: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        Api::namespaced_with(self.client.clone(), namespace, &ApiResource::from_gvk_with_plural(&gvk, plural))
    }

    pub fn gateways(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("gateway.networking.k8s.io/v1", "Gateway", "gateways", namespace)
    }

    pub fn routes(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", namespace)
    }

    /// Waits until the Gateway is Programmed; gives its first address with `port`.
    pub async fn address(&self, namespace: &str, gateway: &str, port: u16) -> Result<SocketAddr> {
        let gateways = self.gateways(namespace);
        condition(&gateways, gateway, "Programmed", "True", DEADLINE).await?;
        eventually(&format!("an address of Gateway {namespace}/{gateway}"), DEADLINE, || async {
            let object = gateways.get(gateway).await.map_err(|e| e.to_string())?;
            let status = object.data.get("status").cloned().unwrap_or_default();
            let address = status.pointer("/addresses/0/value").and_then(|v| v.as_str()).map(str::to_owned);
            let ip = address.and_then(|a| a.parse().ok()).ok_or_else(|| status.to_string())?;
            Ok(SocketAddr::new(ip, port))
        })
        .await
    }

    pub fn oha(&self) -> Result<PathBuf> {
        ensure_oha(&cache()?)
    }
}

/// A file of this checkout.
pub fn file(path: &str) -> Result<String> {
    let path = workspace().join(path);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
