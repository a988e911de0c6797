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
use crate::{
    apply::{self, Problem},
    context::Context,
};

/// Installs what is absent and raises what is ours and older; returns the names, and what others hold.
pub async fn install(
    ctx: &Context,
    found: &Found,
    channel: GatewayApiChannel,
) -> Result<(Vec<String>, Vec<Problem>), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let shipped = super::shipped(&ctx.settings.gateway_api_dir, channel).into_iter();
    // All at once: the API server takes a while for each.
    let each = shipped.filter(|(name, _)| found.wants(name, channel)).map(|(name, path)| {
        let api = &api;
        async move {
            let body = read(&path)?;
            ctx.metrics.wrote("CustomResourceDefinition", "apply");
            // Not forced: between the read and now somebody else may have installed it.
            let params = PatchParams::apply(apply::MANAGER);
            let object = format!("CustomResourceDefinition {name}");
            match ctx.write(api.patch(&name, &params, &Patch::Apply(&body))).await {
                Ok(_) => {
                    tracing::info!(name, "Gateway API definition installed");
                    Ok::<_, Error>(Ok(name))
                }
                Err(error) => match holder(&error) {
                    Some(manager) => Ok(Err(Problem::Held { object, manager })),
                    None => Err(apply::Error::request("apply", object)(error).into()),
                },
            }
        }
    });
    let each = futures::future::try_join_all(each).await?;
    let (installed, held): (Vec<_>, Vec<_>) = each.into_iter().partition(Result::is_ok);
    Ok((installed.into_iter().flatten().collect(), held.into_iter().filter_map(Result::err).collect()))
}

/// Who has the fields, if that is why a request was refused. Another conflict passes by itself; this one stays until a
/// person decides.
fn holder(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else { return None };
    let mut causes = status.details.iter().flat_map(|d| &d.causes);
    let held = causes.find(|c| c.reason == "FieldManagerConflict")?;
    // conflict with "manager" using apiextensions.k8s.io/v1
    let manager = held.message.split('"').nth(1).unwrap_or("somebody else");
    Some(manager.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_somebody_holds_names_the_manager() {
        let error = |causes: Value| {
            let status = json!({"status": "Failure", "reason": "Conflict", "code": 409,
                "details": {"causes": causes}});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        let cause = json!([{"reason": "FieldManagerConflict", "field": ".spec.versions",
            "message": "conflict with \"helm\" using apiextensions.k8s.io/v1"}]);
        assert_eq!(holder(&error(cause)).as_deref(), Some("helm"));
        assert_eq!(holder(&error(json!([]))), None);
    }
}
