//! From a Gateway of our class to its proxies. The Gateway's status is the control plane's to write; what goes wrong
//! here is told by events, and by the conditions that Kubernetes leaves on the Deployment.

use std::sync::Arc;

use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::EventType},
};
use meshwright_api::gateway::Gateway;

use crate::{
    apply::{self, Problem},
    context::Context,
    error::{self, Class},
};

pub mod build;
mod dereference;
pub mod secret_access;
#[cfg(test)]
mod tests;
mod validate;

pub use dereference::{Parameters, Seen};
pub use validate::{ValidatedGateway, validate};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "gateway";

/// Brings the proxies to what the Gateway says.
pub async fn reconcile(gateway: Arc<Gateway>, ctx: Arc<Context>) -> Result<Action, Error> {
    if ctx.leaving.is_cancelled() || gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change()); // the garbage collector follows the owner references
    }
    let Some(seen) = dereference::dereference(&ctx, &gateway).await? else {
        return Ok(error::settled(None)); // not of our class, or no mesh serves it
    };
    let gateway = match validate(&gateway, &seen) {
        Ok(valid) => valid,
        Err(invalid) => {
            // What runs goes on as it is.
            tell(&ctx, &gateway, EventType::Warning, "InvalidParameters", invalid.to_string()).await;
            return Err(invalid.into());
        }
    };
    let desired = build::gateway(&gateway)?.into_desired(&gateway.plan)?;
    let outcome = apply::apply(&ctx, &desired).await?;
    for problem in &outcome.problems {
        report(&ctx, &gateway.source, problem).await;
    }
    Ok(error::settled(outcome.recheck))
}

async fn report(ctx: &Context, gateway: &Gateway, problem: &Problem) {
    let (reason, note) = match problem {
        Problem::NotOurs { object, owner } => {
            ("ObjectNotOurs", format!("{object} belongs to {owner} and is left alone; delete or rename it"))
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
    Build(#[from] build::Error),
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
