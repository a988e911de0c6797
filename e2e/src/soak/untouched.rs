//! The revision that serves, as it was before an upgrade, and whether that went past it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;

use super::kill::restarts;
use super::mesh::OPERATOR_NAMESPACE;
use crate::testing::{Env, MESH, Write, active_revision};

/// What nobody may change of it while another revision comes and goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    revision: String,
    /// Deployments and DaemonSets by namespace and name: what they say of their pods, and for all but gateways how often they were changed
    /// at all. The number of proxies of a gateway follows the load.
    deployments: BTreeMap<String, Value>,
    /// Restarts of each pod, by uid: each is still the same.
    pods: BTreeMap<String, i32>,
}

impl Baseline {
    /// What serves now, of the control plane and of the Gateway in this namespace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn of(env: &Env, namespace: &str) -> Result<Self> {
        let revision = active_revision(env).await?;
        Self::now(env, namespace, revision).await
    }

    async fn now(env: &Env, namespace: &str, revision: String) -> Result<Self> {
        let ours = ListParams::default().labels(&format!("meshwright.io/revision={revision}"));
        let mut now = Self { revision, deployments: BTreeMap::new(), pods: BTreeMap::new() };
        for namespace in [MESH, namespace] {
            for (kind, plural) in [("Deployment", "deployments"), ("DaemonSet", "daemonsets")] {
                let found = env.api("apps/v1", kind, plural, namespace).list(&ours).await?;
                let described = found.iter().map(|d| (format!("{namespace}/{}", d.name_any()), describe(d)));
                now.deployments.extend(described);
            }
            let pods = Api::<Pod>::namespaced(env.client.clone(), namespace).list(&ours).await?;
            let counted = pods.iter().filter_map(|pod| Some((pod.uid()?, restarts(pod))));
            now.pods.extend(counted);
        }
        ensure!(now.deployments.len() > 1 && !now.pods.is_empty(), "revision {} has no pods", now.revision);
        Ok(now)
    }

    /// Its name.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Compares it with what is there now.
    ///
    /// # Errors
    /// With what is different.
    pub async fn is_untouched(&self, env: &Env, namespace: &str) -> Result<()> {
        let now = Self::now(env, namespace, self.revision.clone()).await?;
        ensure!(*self == now, "revision {} was {self:?}, and now it is {now:?}", self.revision);
        Ok(())
    }
}

fn describe(deployment: &DynamicObject) -> Value {
    let mut spec = deployment.data["spec"].clone();
    if deployment.labels().get("meshwright.io/component").is_some_and(|component| component == "gateway") {
        spec["replicas"] = Value::Null;
    } else {
        spec["generation"] = deployment.metadata.generation.into();
    }
    spec
}

/// Whether the operator changed an object of this revision's control plane. What it sees of the revision it may say.
pub fn of_revision(write: &Write, revision: &str) -> bool {
    let theirs = write.name == revision || write.name.starts_with(&format!("{revision}-"));
    by_operator(write) && theirs && !(write.resource == "meshrevisions" && write.subresource == "status")
}

/// Whether the operator changed anything of the mesh. What it knows, and what it sees, it may say.
pub fn to_mesh(write: &Write) -> bool {
    let says = write.resource == "events" || write.subresource == "status";
    by_operator(write) && !says && write.namespace != OPERATOR_NAMESPACE
}

fn by_operator(write: &Write) -> bool {
    write.user.starts_with(&format!("{OPERATOR_NAMESPACE}:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(resource: &str, subresource: &str, name: &str) -> Write {
        Write {
            user: "meshwright-system:meshwright-operator".to_owned(),
            verb: "patch".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: "mesh".to_owned(),
            name: name.to_owned(),
            code: 200,
        }
    }

    #[test]
    fn what_is_said_of_a_revision_does_not_touch_it_and_its_secrets_are_its_own() {
        let touches =
            |resource, subresource, name| of_revision(&write(resource, subresource, name), "mesh-1");
        assert!(touches("deployments", "", "mesh-1") && touches("secrets", "", "mesh-1-issuing-2"));
        assert!(touches("meshrevisions", "", "mesh-1"));
        assert!(!touches("meshrevisions", "status", "mesh-1"));
        assert!(!touches("deployments", "", "mesh-12") && !touches("deployments", "", "mesh-2"));
        let foreign = Write { user: "mesh:mesh-1".to_owned(), ..write("deployments", "", "mesh-1") };
        assert!(!of_revision(&foreign, "mesh-1"));
    }

    #[test]
    fn a_status_and_an_event_change_nothing_of_the_mesh() {
        assert!(to_mesh(&write("deployments", "", "mesh-1")));
        assert!(!to_mesh(&write("meshcontrolplanes", "status", "mesh")));
        assert!(!to_mesh(&write("events", "", "")));
        let own = Write { namespace: "meshwright-system".to_owned(), ..write("secrets", "", "root") };
        assert!(!to_mesh(&own));
    }

    #[test]
    fn the_number_of_proxies_may_follow_the_load_and_nothing_else_may_change() {
        let deployment = |component: &str, replicas: i32, image: &str, generation: i64| -> Value {
            let metadata = serde_json::json!({"name": "x", "generation": generation,
                "labels": {"meshwright.io/component": component}});
            let spec = serde_json::json!({"replicas": replicas, "template": {"image": image}});
            let object = serde_json::json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
            describe(&serde_json::from_value(object).unwrap())
        };
        assert_eq!(deployment("gateway", 3, "a", 1), deployment("gateway", 4, "a", 2));
        assert_ne!(deployment("gateway", 3, "a", 1), deployment("gateway", 3, "b", 1));
        assert_ne!(deployment("control-plane", 3, "a", 1), deployment("control-plane", 3, "a", 2));
    }
}
