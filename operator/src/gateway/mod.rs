//! From a Gateway of our class to its proxies. The Gateway's status is the control plane's to write; what goes wrong
//! here is told by events, and by the conditions that Kubernetes leaves on the Deployment.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::ApiResource,
    runtime::{controller::Action, events::EventType},
};
use meshwright_api::{gateway::Gateway, labels, names};

use serde_json::json;

use crate::{
    apply::{self, Problem, prune},
    context::Context,
    error::{self, Class},
    mesh_control_plane::of_gateways,
    upgrade::routing::Size,
};

pub mod build;
mod dereference;
#[cfg(test)]
mod following;
pub mod secret_access;
pub mod sizes;
#[cfg(test)]
mod tests;
mod validate;

use dereference::Whose;
pub use dereference::{Held, Parameters, Seen, There};
pub use validate::{ValidatedGateway, validate};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "gateway";

/// Brings the proxies to what the Gateway says.
pub async fn reconcile(gateway: Arc<Gateway>, ctx: Arc<Context>) -> Result<Action, Error> {
    if ctx.leaving.is_cancelled() {
        return Ok(Action::await_change());
    }
    let (held, seen) = match dereference::dereference(&ctx, &gateway).await? {
        Whose::Ours(held, seen) => (held, seen),
        Whose::Others => return leave(&ctx, &gateway).await,
        Whose::Left(held) => {
            // What runs goes on as it is, and follows the mesh's revisions all the same.
            redirect(&ctx, &gateway, &held).await?;
            end_left(&ctx, &gateway, &held).await?;
            return Ok(error::settled(None));
        }
        Whose::Nobodys => return Ok(error::settled(None)),
    };
    // First of all, and whatever is wrong with the rest: a bad revision must lose its connections.
    redirect(&ctx, &gateway, &held).await?;
    let gateway = match validate(&gateway, &held, &seen) {
        Ok(valid) => valid,
        Err(invalid) => {
            end_left(&ctx, &gateway, &held).await?;
            tell(&ctx, &gateway, EventType::Warning, "InvalidParameters", invalid.to_string()).await;
            return Err(invalid.into());
        }
    };
    let desired = match build::gateway(&gateway).and_then(build::GatewayObjects::into_desired) {
        Ok(desired) => desired,
        Err(error) => {
            end_left(&ctx, &gateway.source, &held).await?;
            return Err(error.into());
        }
    };
    for unknown in build::unknown(&gateway) {
        tell(&ctx, &gateway.source, EventType::Warning, "ProxiesLeft", unknown).await;
    }
    let outcome = match apply::apply(&ctx, &desired).await {
        Ok(outcome) => outcome,
        Err(error) => {
            // A person must act, and there may be no Deployment yet whose conditions could say so.
            if matches!(error.class(), Class::Refused | Class::Terminal) {
                tell(&ctx, &gateway.source, EventType::Warning, "ObjectRefused", error::chain(&error)).await;
            }
            end_left(&ctx, &gateway.source, &held).await?;
            return Err(error.into());
        }
    };
    for problem in &outcome.problems {
        report(&ctx, &gateway.source, problem).await;
    }
    if gateway.behind == held.there.behind {
        let parts: Vec<String> = gateway.parts.into_iter().map(|p| p.name).collect();
        end_others(&ctx, &gateway.source, &held, &parts).await?;
    }
    Ok(error::settled(outcome.recheck))
}

// Without anything that the Gateway itself would have to say: what has no part any more ends. The mesh waits for it.
async fn end_left(ctx: &Context, gateway: &Gateway, held: &Held) -> Result<(), Error> {
    let behind = sizes::behind(&held.routing, &held.there, &held.plan());
    if behind != held.there.behind {
        return Ok(());
    }
    let parts = std::iter::once(&held.routing.lead).chain(&held.routing.other);
    let parts = parts.filter(|p| p.size != Size::Ending);
    let name = gateway.name_any();
    let parts: Vec<String> = parts.map(|p| names::gateway_workload(&name, &p.revision)).collect();
    end_others(ctx, gateway, held, &parts).await
}

// Limits the Service that is there to the revision that is to have the connections. Going over to all of them is for `apply`.
async fn redirect(ctx: &Context, gateway: &Gateway, held: &Held) -> Result<(), Error> {
    let Some(service) = &held.there.service else { return Ok(()) };
    let Some(revision) = sizes::behind(&held.routing, &held.there, &held.plan()) else { return Ok(()) };
    if held.there.behind.as_ref() == Some(&revision) || held.routing.other.is_none() {
        return Ok(());
    }
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let api: Api<Service> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({
        "metadata": {"resourceVersion": service.resource_version()},
        "spec": {"selector": {labels::REVISION: revision}},
    });
    ctx.metrics.wrote("Service", "apply");
    let params = PatchParams { field_manager: Some(apply::MANAGER.to_owned()), ..PatchParams::default() };
    let patched = ctx.write(api.patch(&name, &params, &Patch::Merge(&body))).await;
    patched.map_err(apply::Error::request("redirect", format!("Service {namespace}/{name}")))?;
    let note = format!("new connections go to revision {revision} only");
    tell(ctx, gateway, EventType::Normal, "Redirected", note).await;
    Ok(())
}

// Proxies of revisions that have no part any more. Not before those that have one serve, and the Service is limited to them.
//
// A Deployment stays until its last pod is gone: pods without one make the budget of all proxies of the Gateway allow no eviction.
async fn end_others(ctx: &Context, gateway: &Gateway, held: &Held, parts: &[String]) -> Result<(), Error> {
    let has_part = |name: &str| parts.iter().any(|p| p == name);
    let lead = &held.routing.lead.revision;
    let left = || held.there.deployments.values().filter(|d| !has_part(&d.name_any()));
    // What serves nobody may go before anything serves; what serves, not before others have all of it.
    let serves = left().any(|d| sizes::ready_of(d) > 0);
    if serves && (sizes::ready(&held.there, lead) == 0 || held.there.behind.as_ref() != Some(lead)) {
        return Ok(());
    }
    let scalers = ApiResource::erase::<HorizontalPodAutoscaler>(&());
    let namespace = gateway.namespace().unwrap_or_default();
    prune(ctx, &scalers, Some(&namespace), &made_for(gateway), |o| {
        !is_owned(o.owner_references(), gateway) || has_part(&o.name_any())
    })
    .await?;
    for deployment in left() {
        if deployment.spec.replicas != Some(0) {
            apply::scale_to_zero(ctx, deployment).await?;
        } else if is_empty(deployment) {
            apply::delete(ctx, &ApiResource::erase::<Deployment>(&()), deployment).await?;
        }
    }
    Ok(())
}

// Where Kubernetes does not count ending pods yet, the budget is blocked while they end.
fn is_empty(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    let seen = status.and_then(|s| s.observed_generation) >= deployment.metadata.generation;
    let left = status.map_or(0, |s| s.replicas.unwrap_or(0) + s.terminating_replicas.unwrap_or(0));
    seen && left == 0
}

fn made_for(gateway: &Gateway) -> String {
    format!(
        "{}={},{}={},{}={}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::COMPONENT,
        labels::COMPONENT_GATEWAY,
        labels::GATEWAY_NAME,
        names::fit(&gateway.name_any())
    )
}

// It went over to another controller: what we made for it would go on to take its traffic.
async fn leave(ctx: &Context, gateway: &Gateway) -> Result<Action, Error> {
    let namespace = gateway.namespace().unwrap_or_default();
    let selector = made_for(gateway);
    let mut deleted = 0;
    for kind in &of_gateways() {
        let foreign = |owners: &[OwnerReference]| !is_owned(owners, gateway);
        deleted += prune(ctx, kind, Some(&namespace), &selector, |o| foreign(o.owner_references())).await?;
    }
    if deleted > 0 {
        let class = &gateway.spec.gateway_class_name;
        let note =
            format!("GatewayClass {class} is another controller's; the proxies made for it here are removed");
        tell(ctx, gateway, EventType::Normal, "ProxiesRemoved", note).await;
    }
    Ok(error::settled(None))
}

// By UID: two long names may have been shortened to one label, and a name may have been another Gateway's.
fn is_owned(owners: &[OwnerReference], gateway: &Gateway) -> bool {
    owners.iter().any(|o| o.controller == Some(true) && Some(&o.uid) == gateway.metadata.uid.as_ref())
}

async fn report(ctx: &Context, gateway: &Gateway, problem: &Problem) {
    let (reason, note) = match problem {
        Problem::NotOurs { object, owner } => {
            ("ObjectNotOurs", format!("{object} belongs to {owner} and is left alone; delete or rename it"))
        }
        Problem::Held { object, manager } => {
            ("ObjectNotOurs", format!("{object} has fields of field manager {manager} and is left alone"))
        }
        Problem::Contested { object, field, manager } => {
            ("FieldContested", format!("{object}: {field} is changed back again and again by {manager}"))
        }
    };
    tell(ctx, gateway, EventType::Warning, reason, note).await;
}

async fn tell(ctx: &Context, gateway: &Gateway, type_: EventType, reason: &str, note: String) {
    tracing::info!(gateway = %gateway.name_any(), reason, note, "decided");
    ctx.event(&gateway.object_ref(&()), type_, reason, "Reconcile", note).await;
}

/// A reconcile failed; one variant for each step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read.
    #[error(transparent)]
    Dereference(#[from] dereference::Error),
    /// The Gateway or its parameters.
    #[error(transparent)]
    Validate(#[from] validate::Error),
    /// An object could not be built.
    #[error(transparent)]
    Build(#[from] crate::mesh_control_plane::build::Error),
    /// A write.
    #[error(transparent)]
    Apply(#[from] apply::Error),
}

impl crate::reconciler::Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Dereference(e) => e.class(),
            Self::Validate(_) | Self::Build(_) => Class::Terminal,
            Self::Apply(e) => e.class(),
        }
    }
}
