//! The number of replicas of a Deployment. It belongs to the autoscaler; we give the first number with a field manager
//! of its own and never take it away: a field that its last manager drops goes back to the default, 1.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    Desired, Error, MANAGER, Outcome, REPLICAS_MANAGER,
    compare::{Path, Step},
    patch,
};
use crate::context::Context;

/// Creates an object, a workload with its first number of replicas.
pub(super) async fn create(ctx: &Context, desired: &Desired) -> Result<DynamicObject, Error> {
    let Some(floor) = desired.floor else { return patch(ctx, desired, &desired.body, MANAGER).await };
    // One request, or the Deployment would start with one pod.
    let mut body = desired.body.clone();
    if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("replicas".to_owned(), json!(floor));
    }
    patch(ctx, desired, &body, MANAGER).await
}

/// Before our main manager drops `replicas`, another one must own the field.
pub(super) async fn hand_over(ctx: &Context, desired: &Desired, live: &DynamicObject) -> Result<(), Error> {
    if desired.floor.is_none() || !only_ours(live) {
        return Ok(());
    }
    if let Some(now) = current(live) {
        set(ctx, desired, now).await?;
    }
    Ok(())
}

/// Fewer replicas than the floor: somebody scaled down, and at 0 the autoscaler would never act again.
pub(super) async fn raise(ctx: &Context, desired: &Desired, live: DynamicObject) -> Result<Outcome, Error> {
    let counted = format!("{} replicas", desired.describe());
    let too_few = desired.floor.zip(current(&live)).filter(|(floor, now)| *now < i64::from(*floor));
    let writes = usize::from(too_few.is_some());
    let live = match too_few {
        None => live,
        Some((floor, now)) => {
            let path = Path(vec![Step::Field("spec".to_owned()), Step::Field("replicas".to_owned())]);
            let problem = super::contested(&live, &desired.describe(), &path);
            // A floor that rises, as it does step by step in an upgrade, is nobody's contradiction.
            let written = ctx.contests.was_written(&counted, &floor.to_string());
            if written && let Some(held) = super::held_back(ctx, &counted, problem) {
                return Ok(Outcome { live: vec![live], ..held });
            }
            tracing::info!(object = %desired.describe(), replicas = now, floor, "raising replicas to the minimum");
            let raised = set(ctx, desired, i64::from(floor)).await?;
            ctx.contests.wrote(&counted, &floor.to_string());
            raised
        }
    };
    Ok(Outcome { live: vec![live], writes, ..super::standing(ctx, &counted) })
}

/// Ends all pods of a Deployment, for good.
pub async fn scale_to_zero(ctx: &Context, deployment: &Deployment) -> Result<(), Error> {
    let (name, namespace) = (deployment.name_any(), deployment.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": deployment.resource_version()},
        "spec": {"replicas": 0},
    });
    ctx.metrics.wrote("Deployment", "apply");
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &namespace);
    let params = PatchParams::apply(REPLICAS_MANAGER).force();
    let written = ctx.write(api.patch(&name, &params, &Patch::Apply(&body))).await;
    written.map_err(Error::request("scale down", format!("Deployment {namespace}/{name}")))?;
    tracing::info!(name, namespace, "no part any more: its pods end their connections");
    Ok(())
}

async fn set(ctx: &Context, desired: &Desired, replicas: i64) -> Result<DynamicObject, Error> {
    let body = json!({
        "apiVersion": desired.resource.api_version,
        "kind": desired.resource.kind,
        "metadata": {"name": desired.name, "namespace": desired.namespace},
        "spec": {"replicas": replicas},
    });
    patch(ctx, desired, &body, REPLICAS_MANAGER).await
}

fn current(live: &DynamicObject) -> Option<i64> {
    live.data.pointer("/spec/replicas").and_then(Value::as_i64)
}

/// No manager but our main one owns `spec.replicas`.
fn only_ours(live: &DynamicObject) -> bool {
    !live.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() != Some(MANAGER)
            && entry.fields_v1.as_ref().is_some_and(|f| f.0.pointer("/f:spec/f:replicas").is_some())
    })
}
