//! The cluster, the mesh that all tests share, and how to reach a Gateway.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::Cluster;
use crate::product::{cache, workspace};

use super::{apply_yaml, condition, ensure_oha, eventually};

/// Namespace and name of the mesh.
pub const MESH: &str = "mesh";
/// Generous: a deadline says that something hangs, never that it is slow.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// How often the API server is made to look at a namespace that ends.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const TOUCHED: &str = "meshwright.io/touched";

/// `spec.upgrade` of [`MESH_YAML`], for tests that are not about upgrades: a change is there soon.
pub const IN_PLACE: &str = "{ strategy: InPlace, keepWarm: 1s }";

/// One mesh for all tests: small requests because three nodes share one machine, and for the same reason a control plane that stays at
/// three (on 20m of CPU its autoscaler would make ten of it in the middle of a measurement). Its namespace is privileged, because node proxies
/// enter the network namespaces of other pods; no namespace of an application is.
pub const MESH_YAML: &str = r"
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { pod-security.kubernetes.io/enforce: privileged } }
---
apiVersion: meshwright.io/v1alpha1
kind: MeshControlPlane
metadata: { name: mesh, namespace: mesh }
spec:
  profile: Production
  controlPlane: { resources: { requests: { cpu: 20m, memory: 64Mi } }, autoscaling: { maxReplicas: 3 } }
  gateways: { resources: { requests: { cpu: 20m, memory: 64Mi } }, autoscaling: { maxReplicas: 5 } }
  upgrade: { strategy: InPlace, keepWarm: 1s }
";

/// What a test holds.
#[derive(Clone)]
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

    /// Connects only, where tests may break things.
    pub async fn connect() -> Result<Self> {
        let cluster = Cluster::current()?.disposable().await?;
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

    /// Waits until the namespace is gone. When all of its pods are, the API server is made to look at it again; by itself it does so when half
    /// of the longest time that a pod may take to end is over, which for proxies is three minutes.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn gone(&self, namespace: &str) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let next = Cell::new(Instant::now());
        eventually(&format!("{namespace} to be gone"), DEADLINE * 4, || async {
            let Some(found) = namespaces.get_opt(namespace).await.map_err(|e| e.to_string())? else {
                return Ok(());
            };
            let left =
                pods.list_metadata(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
            if left == 0 && Instant::now() >= next.get() {
                next.set(Instant::now() + LOOK_AGAIN);
                touch(&namespaces, namespace).await;
            }
            let conditions = found.status.and_then(|status| status.conditions).unwrap_or_default();
            let said: Vec<_> =
                conditions.into_iter().filter(|c| c.status == "True").filter_map(|c| c.message).collect();
            Err(format!("{left} pods are left; {said:?}"))
        })
        .await
    }

    /// Makes the API server look again, as [`Env::gone`] does, at namespaces that somebody else deletes and whose names begin like this. For ever.
    pub async fn hurry(self, prefix: &str) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            // What cannot be hurried takes longer.
            let Ok(found) = namespaces.list_metadata(&ListParams::default()).await else { continue };
            let going = found.items.iter().filter(|one| one.metadata.deletion_timestamp.is_some());
            for name in going.map(|one| one.name_any()).filter(|name| name.starts_with(prefix)) {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name);
                if pods.list_metadata(&ListParams::default()).await.is_ok_and(|left| left.items.is_empty()) {
                    touch(&namespaces, &name).await;
                }
            }
        }
    }

    /// Waits for the end of a namespace that is being deleted, as one of an earlier run is: what is applied to it would go with it.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn not_going(&self, namespace: &str) -> Result<()> {
        let found = Api::<Namespace>::all(self.client.clone()).get_opt(namespace).await?;
        match found {
            Some(found) if found.metadata.deletion_timestamp.is_some() => self.gone(namespace).await,
            _ => Ok(()),
        }
    }

    /// Deletes a namespace, its Gateways and its mesh first, and waits for its end.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn delete_namespace(&self, namespace: &str) -> Result<()> {
        let gateways = self.gateways(namespace);
        gateways.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let meshes = self.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", namespace);
        meshes.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let proxies = ListParams::default().labels("meshwright.io/component in (gateway, node)");
        eventually(&format!("the end of the proxies of {namespace}"), DEADLINE * 3, || async {
            let left = pods.list_metadata(&proxies).await.map_err(|e| e.to_string())?.items.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await?;
        Api::<Namespace>::all(self.client.clone()).delete(namespace, &DeleteParams::default()).await?;
        self.gone(namespace).await
    }

    pub fn oha(&self) -> Result<PathBuf> {
        ensure_oha(&cache()?)
    }
}

/// It may be gone by now.
async fn touch(namespaces: &Api<Namespace>, name: &str) {
    let touched = json!({"metadata": {"annotations": {(TOUCHED): format!("{:?}", Instant::now())}}});
    let patched = namespaces.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&touched)).await;
    drop(patched);
}

/// A file of this checkout.
pub fn file(path: &str) -> Result<String> {
    let path = workspace().join(path);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
