//! Objects from YAML text, of any kind that the API server knows.

use anyhow::{Context, Result, bail};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt, discovery};
use serde::Deserialize;

const MANAGER: &str = "meshwright-e2e";

/// The objects of a YAML stream.
///
/// # Errors
/// When a document is not a Kubernetes object.
pub fn objects_in(yaml: &str) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document).context("read a YAML document")?;
        if !value.is_null() {
            objects.push(serde_json::from_value(value).context("a document is no Kubernetes object")?);
        }
    }
    Ok(objects)
}

/// Applies every object (server-side, forced); `namespace` is for those that name none.
///
/// # Errors
/// Names the object that was refused and why.
pub async fn apply_yaml(client: &Client, yaml: &str, namespace: &str) -> Result<()> {
    for object in objects_in(yaml)? {
        let api = api_for(client, &object, namespace).await?;
        let name = object.name_any();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("apply {name}"))?;
    }
    Ok(())
}

/// Deletes every object of the stream that is there.
///
/// # Errors
/// Names the object that could not be deleted.
pub async fn delete_yaml(client: &Client, yaml: &str, namespace: &str) -> Result<()> {
    for object in objects_in(yaml)? {
        let name = object.name_any();
        match api_for(client, &object, namespace).await?.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.with_context(|| format!("delete {name}"))?),
        }
    }
    Ok(())
}

/// What the API server says against creating this object (dry run).
///
/// # Errors
/// When it has nothing against it, or cannot be asked.
pub async fn refusal_of(client: &Client, yaml: &str, namespace: &str) -> Result<String> {
    let object = objects_in(yaml)?.pop().context("one object is needed")?;
    let api = api_for(client, &object, namespace).await?;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&dry_run, &object).await {
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(other) => Err(other).context("ask the API server"),
        Ok(_) => bail!("the API server takes it:\n{yaml}"),
    }
}

async fn api_for(client: &Client, object: &DynamicObject, namespace: &str) -> Result<Api<DynamicObject>> {
    let types = object.types.clone().context("apiVersion and kind are needed")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities): (ApiResource, _) = discovery::pinned_kind(client, &gvk)
        .await
        .with_context(|| format!("look up {} {}", types.api_version, types.kind))?;
    Ok(match capabilities.scope {
        discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        discovery::Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| namespace.to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    })
}
