//! The files of an installation, from typed objects, so that they say what the code needs and nothing else.

use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;

use crate::args::{InstallArgs, Manifests};

mod policy;
mod rights;
#[cfg(test)]
mod tests;
mod workload;

/// Name of the operator's Deployment, ServiceAccount, Service, PDB and roles.
pub const OPERATOR: &str = "meshwright-operator";

/// The manifests could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An object does not serialise.
    #[error("could not write an object as YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
}

/// The YAML that was asked for.
pub fn manifests(what: &Manifests) -> Result<String, Error> {
    match what {
        Manifests::Crds => {
            let mut yaml = Documents::default();
            for crd in meshwright_api::definitions() {
                yaml.push(&crd)?;
            }
            Ok(yaml.0)
        }
        Manifests::Install(args) => install(args),
    }
}

// `kubectl delete -f` goes in this order too: the operator must see its namespace go while it still has the rights to
// take its finalizers off, so its rights are the last thing in the file.
fn install(args: &InstallArgs) -> Result<String, Error> {
    let mut yaml = Documents::default();
    yaml.push(&namespace(args))?;
    yaml.push(&policy::policy(args))?;
    yaml.push(&policy::binding(policy::POLICY))?;
    yaml.push(&policy::approvals())?;
    yaml.push(&policy::binding(policy::APPROVALS))?;
    for role in rights::fixed_roles() {
        yaml.push(&role)?;
    }
    yaml.push(&workload::service(args))?;
    yaml.push(&workload::disruption_budget(args))?;
    yaml.push(&ServiceAccount { metadata: meta(args, OPERATOR), ..ServiceAccount::default() })?;
    yaml.push(&workload::deployment(args))?;
    yaml.push(&rights::own_namespace(args))?;
    yaml.push(&rights::own_namespace_binding(args))?;
    yaml.push(&rights::cluster(args))?;
    yaml.push(&rights::cluster_binding(args))?;
    Ok(yaml.0)
}

#[derive(Default)]
struct Documents(String);

impl Documents {
    fn push(&mut self, object: &impl Serialize) -> Result<(), Error> {
        self.0.push_str("---\n");
        self.0.push_str(&serde_yaml_ng::to_string(object)?);
        Ok(())
    }
}

fn namespace(args: &InstallArgs) -> Namespace {
    let level = ["enforce", "audit", "warn"]
        .map(|mode| (format!("pod-security.kubernetes.io/{mode}"), "restricted".to_owned()));
    let mut labels = labels();
    labels.extend(level);
    Namespace {
        metadata: ObjectMeta {
            name: Some(args.namespace.clone()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

// Without the mesh's labels: what the operator prunes is never a part of its own installation.
fn labels() -> std::collections::BTreeMap<String, String> {
    [("app.kubernetes.io/name", OPERATOR), ("app.kubernetes.io/part-of", "meshwright")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}

fn meta(args: &InstallArgs, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(args.namespace.clone()), ..cluster_meta(name) }
}

fn cluster_meta(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels()), ..ObjectMeta::default() }
}
