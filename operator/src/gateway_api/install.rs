//! Applies the definitions that come with the image.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use meshwright_api::{GatewayApiChannel, labels};
use serde_json::{Value, json};

use super::{Error, Found};
use crate::{apply, context::Context};

/// Installs what is absent and raises what is ours and older; returns the names.
pub async fn install(ctx: &Context, found: &Found, channel: GatewayApiChannel) -> Result<Vec<String>, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let shipped = super::shipped(&ctx.settings.gateway_api_dir, channel).into_iter();
    // All at once: the API server takes a while for each.
    let each = shipped.filter(|(name, _)| found.wants(name)).map(|(name, path)| {
        let api = &api;
        async move {
            let body = read(&path)?;
            ctx.metrics.wrote("CustomResourceDefinition", "apply");
            // Not forced: between the read and now somebody else may have installed it.
            let params = PatchParams::apply(apply::MANAGER);
            ctx.write(api.patch(&name, &params, &Patch::Apply(&body)))
                .await
                .map_err(apply::Error::request("apply", format!("CustomResourceDefinition {name}")))?;
            tracing::info!(name, "Gateway API definition installed");
            Ok::<_, Error>(name)
        }
    });
    futures::future::try_join_all(each).await
}

/// The definition in a file, with our label.
fn read(path: &Path) -> Result<Value, Error> {
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Unreadable { file: file.clone(), source })?;
    let mut body: Value = serde_yaml_ng::from_str(&text).map_err(|source| Error::File { file, source })?;
    if let Some(map) = body.as_object_mut() {
        map.remove("status");
    }
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("creationTimestamp");
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(labels::MANAGED_BY.to_owned(), json!(labels::MANAGER));
        }
    }
    Ok(body)
}
