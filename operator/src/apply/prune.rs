//! Deletion, always of the very object that was seen: with its UID and resourceVersion as preconditions.

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Preconditions, PropagationPolicy},
    core::{ApiResource, PartialObjectMeta},
};

use super::Error;
use crate::context::Context;

/// Deletes objects of one kind that carry our labels and that `keep` does not want. `namespace` none: in all of them.
pub async fn prune(
    ctx: &Context,
    resource: &ApiResource,
    namespace: Option<&str>,
    selector: &str,
    keep: impl Fn(&PartialObjectMeta<DynamicObject>) -> bool,
) -> Result<usize, Error> {
    let mut deleted = 0;
    for object in find(ctx, resource, namespace, selector).await?.iter().filter(|o| !keep(o)) {
        deleted += usize::from(delete(ctx, resource, object).await?);
    }
    Ok(deleted)
}

/// Objects of one kind that carry our labels and are not being deleted.
pub async fn find(
    ctx: &Context,
    resource: &ApiResource,
    namespace: Option<&str>,
    selector: &str,
) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
    let params = ListParams::default().labels(selector);
    let list = scoped(&ctx.client, resource, namespace).list_metadata(&params).await;
    let list = list.map_err(Error::request("list", &resource.kind))?;
    Ok(list.items.into_iter().filter(|o| o.metadata.deletion_timestamp.is_none()).collect())
}

/// Deletes this object, in the state in which it was seen. False when it was gone already.
pub async fn delete<K: Resource>(ctx: &Context, resource: &ApiResource, seen: &K) -> Result<bool, Error> {
    let name = seen.name_any();
    let api = scoped(&ctx.client, resource, seen.namespace().as_deref());
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: seen.uid(), resource_version: seen.resource_version() }),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    ctx.metrics.wrote(&resource.kind, "delete");
    match ctx.write(api.delete(&name, &params)).await {
        Ok(_) => {
            tracing::info!(kind = %resource.kind, name, namespace = ?seen.namespace(), "deleted");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(Error::request("delete", format!("{} {name}", resource.kind))(error)),
    }
}

fn scoped(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}
