//! From a MeshControlPlane to a mesh. The first screen tells the whole story.

use std::sync::Arc;

use kube::{
    Resource, ResourceExt,
    runtime::{controller::Action, events::EventType},
};
use meshwright_api::MeshControlPlane;

use crate::{
    context::Context,
    error::{self, Class},
    upgrade::machine::LOOK,
};

mod apply;
pub mod build;
mod deletion;
mod dereference;
mod keep;
mod measure;
pub(crate) mod nodes;
mod position;
mod prune;
mod slots;
mod status;
mod step;
mod surroundings;
#[cfg(test)]
mod tests;
mod trouble;
mod validate;
mod view;

pub use deletion::{FINALIZER, clear, finish, held, of_gateways, release};
pub use dereference::{Seen, dereference, mesh_of_cluster};
pub use validate::{MeshRef, ValidatedMesh, reference, validate};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "mesh-control-plane";

/// Brings the cluster to what the MeshControlPlane says.
pub async fn reconcile(mcp: Arc<MeshControlPlane>, ctx: Arc<Context>) -> Result<Action, Error> {
    if ctx.leaving.is_cancelled() {
        return Ok(Action::await_change());
    }
    if mcp.metadata.deletion_timestamp.is_some() {
        return deletion::finish(&ctx, &mcp).await.map_err(Error::from);
    }
    let (seen, outcome) = match dereference(&ctx, &mcp).await {
        Ok(seen) => {
            let outcome = run(&seen, &ctx).await;
            (Some(seen), outcome)
        }
        Err(error) => (None, Err(error.into())),
    }; // every read
    status::write(&ctx, &mcp, seen.as_ref(), &outcome).await?; // also after an error; only when it changed
    let applied = outcome.inspect_err(|e| tracing::debug!(error = %error::chain(e), "reconcile failed"))?;
    let recheck = applied.recheck;
    match applied.failure {
        None => Ok(error::settled(recheck)),
        // Whatever cannot be written: a bad revision is looked for as often as without that.
        Some(error) if applied.step.decision.position.is_some() => {
            tracing::warn!(error = %error::chain(&error), "not all could be applied, while an upgrade is under way");
            Ok(error::settled(recheck.or(Some(LOOK))))
        }
        Some(error) => Err(error.into()),
    }
}

async fn run(seen: &Seen, ctx: &Context) -> Result<apply::Applied, Error> {
    if seen.gateway_api.usable().is_ok() {
        apply::serve(ctx, true); // whatever comes of this mesh
    }
    let settings = &ctx.settings;
    let mesh = match validate(seen, &settings.catalogue, &settings.pull_secrets, ctx.now()) {
        Ok(mesh) => mesh, // pure; the raw spec ends here
        Err(invalid) => return Err(hold(seen, ctx, invalid).await),
    };
    let measured = measure::measure(ctx, &mesh, seen).await; // asks control planes, only while something changes
    let step = step::next(&mesh, seen, &measured, ctx.now()); // pure; install, upgrade, go back, retire
    apply::apply(ctx, &mesh, seen, step).await.map_err(Error::from) // builds, and is the only writer
}

// What runs is kept, and an upgrade is watched, except where another mesh has the cluster.
async fn hold(seen: &Seen, ctx: &Context, invalid: validate::Error) -> Error {
    if matches!(invalid, validate::Error::Conflict { .. }) {
        return invalid.into();
    }
    let held = match validate::going(seen, &ctx.settings.catalogue) {
        Some(mesh) => match go_on(seen, ctx, &mesh).await {
            Ok(()) => return Error::Meanwhile { invalid },
            Err(error) => Err(error),
        },
        None => apply::hold(ctx, seen).await,
    };
    if let Err(error) = held {
        tracing::warn!(error = %error::chain(&error), "what is installed could not be kept");
        // Soon again, other than after a spec that only a user can correct.
        if !matches!(error.class(), Class::Terminal) {
            return Error::Held { invalid, error: Box::new(error) };
        }
    }
    invalid.into()
}

// A bad revision goes back whatever the spec says.
async fn go_on(seen: &Seen, ctx: &Context, mesh: &ValidatedMesh) -> Result<(), apply::Error> {
    let measured = measure::measure(ctx, mesh, seen).await;
    let step = step::next(mesh, seen, &measured, ctx.now());
    let applied = apply::apply(ctx, mesh, seen, step).await?;
    // Whatever cannot be written: it is looked for as often as without that.
    if let Some(error) = applied.failure {
        tracing::warn!(error = %error::chain(&error), "not all could be applied, while an upgrade is under way");
    }
    Ok(())
}

/// A reconcile failed; one variant for each step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read.
    #[error(transparent)]
    Dereference(#[from] dereference::Error),
    /// The spec.
    #[error(transparent)]
    Validate(#[from] validate::Error),
    /// The spec, and what is installed could not be kept either.
    #[error("{invalid}; what is installed could not be kept")]
    Held {
        /// What is wrong with the spec.
        invalid: validate::Error,
        /// What failed.
        #[source]
        error: Box<apply::Error>,
    },
    /// The spec, in the middle of an upgrade, which waits.
    #[error(
        "{invalid}; the upgrade that is under way waits where it is, and goes back if its revision is bad"
    )]
    Meanwhile {
        /// What is wrong with the spec.
        invalid: validate::Error,
    },
    /// A write.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status.
    #[error(transparent)]
    Status(#[from] status::Error),
    /// The cleaning up.
    #[error(transparent)]
    Deletion(#[from] deletion::Error),
}

impl crate::reconciler::Classified for Error {
    fn class(&self) -> Class {
        match self {
            Self::Dereference(dereference::Error::Read(e)) => e.class(),
            Self::Dereference(dereference::Error::Certificates(e)) => e.class(),
            Self::Dereference(dereference::Error::GatewayApi(e)) => e.class(),
            // The other mesh's end is no event of this one.
            Self::Dereference(dereference::Error::UnreadableMesh)
            | Self::Validate(validate::Error::Conflict { .. }) => {
                Class::Waiting(std::time::Duration::from_secs(15))
            }
            Self::Validate(validate::Error::Root(e)) => e.class(),
            Self::Validate(_) => Class::Terminal,
            Self::Meanwhile { .. } => Class::Waiting(LOOK),
            Self::Held { error, .. } => error.class(),
            Self::Apply(e) => e.class(),
            Self::Status(e) => e.class(),
            Self::Deletion(e) => e.class(),
        }
    }
}

/// An event about the mesh.
async fn tell(ctx: &Context, mcp: &MeshControlPlane, type_: EventType, reason: &str, note: String) {
    tracing::info!(mesh = %mcp.name_any(), reason, note, "decided");
    ctx.event(&mcp.object_ref(&()), type_, reason, "Reconcile", note).await;
}
