//! Small pods, many at once, in a namespace that is in the mesh.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use meshwright_api::labels;
use serde_json::{Value, json};

use super::backend::image;
use super::{DEADLINE, Env, Installed, apply_yaml, eventually, pods_of};

/// Requests to the API server at once.
const AT_ONCE: usize = 16;
/// On the pods: what they belong to.
const GROUP: &str = "group";

/// Pods of one of Bookinfo's services, which is there at once and does next to nothing.
#[derive(Debug, Clone)]
pub struct Many {
    namespace: &'static str,
    image: String,
}

impl Many {
    /// None yet.
    ///
    /// # Errors
    /// When `target/dist` has no image for them.
    pub fn of(namespace: &'static str) -> Result<Self> {
        Ok(Self { namespace, image: image()? })
    }

    /// Makes the namespace, with Pod Security `restricted`, in the mesh or not.
    ///
    /// # Errors
    /// With the API server's words.
    pub async fn namespace(env: &Env, name: &str, member: bool) -> Result<()> {
        env.not_going(name).await?;
        let joins = if member { labels::MESH_ENABLED } else { labels::MESH_DISABLED };
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted", (labels::MESH): joins,
            }},
        });
        apply_yaml(&env.client, &object.to_string(), name).await
    }

    /// A pod of a group, with the namespace's own account; without a node it goes wherever there is room.
    pub fn pod(&self, name: &str, group: &str, node: Option<&str>) -> Value {
        let container = json!({
            "name": "app", "image": self.image, "args": ["details"],
            "ports": [{"containerPort": 9080}],
            "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "64Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        let selector = node.map(|node| json!({"kubernetes.io/hostname": node}));
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {(GROUP): group, "app": name}},
            "spec": {
                "nodeSelector": selector,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 1,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
            },
        })
    }

    fn api(&self, env: &Env) -> Api<Pod> {
        Api::namespaced(env.client.clone(), self.namespace)
    }

    /// Creates them, as fast as the API server takes them.
    ///
    /// # Errors
    /// With its words.
    pub async fn create(&self, env: &Env, pods: Vec<Value>) -> Result<()> {
        let (api, parameters) = (&self.api(env), &PostParams::default());
        let creating = pods.into_iter().map(|pod| async move {
            let pod: Pod = serde_json::from_value(pod).context("a pod")?;
            api.create(parameters, &pod).await.context("create a pod").map(drop)
        });
        stream::iter(creating).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Waits until so many of a group run.
    ///
    /// # Errors
    /// After the deadline, with what those say that do not run.
    pub async fn run(&self, env: &Env, group: &str, count: usize) -> Result<Vec<Installed>> {
        let (api, selector) = (self.api(env), format!("{GROUP}={group}"));
        eventually(&format!("{count} pods of {group} to run"), DEADLINE * 3, || async {
            let list = api.list(&ListParams::default().labels(&selector)).await.map_err(|e| e.to_string())?;
            let ready = |pod: &&Pod| {
                let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.any(|c| c.type_ == "Ready" && c.status == "True")
            };
            let (ready, others): (Vec<&Pod>, Vec<_>) = list.items.iter().partition(ready);
            let names = others.iter().filter_map(|pod| pod.metadata.name.as_deref()).take(5);
            let names: Vec<_> = names.collect();
            if ready.len() == count { Ok(()) } else { Err(format!("{} run, {names:?} do not", ready.len())) }
        })
        .await?;
        pods_of(&env.client, self.namespace, &selector).await
    }

    /// Deletes a group, and waits for the end of its pods.
    ///
    /// # Errors
    /// After the deadline.
    pub async fn delete(&self, env: &Env, group: &str) -> Result<()> {
        let (api, selector) = (self.api(env), format!("{GROUP}={group}"));
        let ours = ListParams::default().labels(&selector);
        api.delete_collection(&DeleteParams::default(), &ours).await.context("delete pods")?;
        eventually(&format!("the end of the pods of {group}"), DEADLINE * 3, || async {
            match api.list_metadata(&ours).await.map_err(|e| e.to_string())?.items.len() {
                0 => Ok(()),
                left => Err(format!("{left} pods are left")),
            }
        })
        .await
    }
}
