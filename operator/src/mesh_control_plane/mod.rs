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
};

mod apply;
pub mod build;
mod deletion;
mod dereference;
mod status;
#[cfg(test)]
mod tests;
mod upgrade;
mod validate;

pub use deletion::{FINALIZER, finish, held, of_gateways, release};
pub use dereference::{Seen, dereference};
pub use validate::{MeshRef, ValidatedMesh, holder, reference, validate};

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
    let outcome = run(&mcp, &ctx).await;
    status::write(&ctx, &mcp, &outcome).await?; // also after an error; only when it changed
    let applied = outcome.inspect_err(|e| tracing::debug!(error = %error::chain(e), "reconcile failed"))?;
    Ok(error::settled(applied.recheck))
}

async fn run(mcp: &MeshControlPlane, ctx: &Context) -> Result<apply::Applied, Error> {
    let seen = dereference(ctx, mcp).await?; // every read
    let mesh = validate(&seen, &ctx.settings.images)?; // pure; the raw spec ends here
    let step = upgrade::next(&mesh, &seen, ctx.now()); // pure; install, move over, retire
    apply::apply(ctx, &mesh, &seen, step).await.map_err(Error::from) // builds, and is the only writer
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
            Self::Validate(validate::Error::Conflict { .. }) => {
                Class::Waiting(std::time::Duration::from_secs(15))
            }
            Self::Validate(validate::Error::Root(e)) => e.class(),
            Self::Validate(_) => Class::Terminal,
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
