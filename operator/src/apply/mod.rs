//! The one writer: server-side apply of desired objects, written only where the live object differs, never over an
//! object that belongs to somebody else, and not against a manager that keeps changing a field back.

use std::time::Duration;

use kube::{
    ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
};

use crate::{context::Context, error::Class};

pub mod compare;
mod contest;
mod desired;
mod prune;
mod replicas;
#[cfg(test)]
pub(crate) mod tests;

pub use contest::Contests;
pub use desired::{APPLIED, Desired, Ownership};
pub use prune::{delete, find, prune};
pub use replicas::scale_to_zero;

/// Field manager of all that builders set.
pub const MANAGER: &str = "meshwright-operator";
/// Field manager of the first number of replicas; the autoscaler takes the field over.
pub const REPLICAS_MANAGER: &str = "meshwright-operator-replicas";
/// At most so often a contested object is tried again: well under five times a minute.
const CONTESTED: Duration = Duration::from_secs(20);
/// A stranger's object that is deleted or renamed brings no event of ours: looked at again after this.
pub const NOT_OURS: Duration = Duration::from_secs(15);
/// Collection of an object whose owner is gone takes about this long.
const COLLECTION: Duration = Duration::from_secs(2);

/// A step of `apply` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("could not {action} {object}")]
    Request {
        /// What was attempted.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not; boxed, because it is large.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of an earlier owner still has the name.
    #[error("{object} of an earlier owner is still being removed")]
    Leaving {
        /// Which one.
        object: String,
    },
    /// Our own object does not serialise.
    #[error("could not serialise an object")]
    Serialise(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`.
    pub fn request(action: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Request { action, object, source: Box::new(source) }
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Request { source, .. } => Class::of(source),
            Self::Leaving { .. } => Class::Waiting(COLLECTION),
            Self::Serialise(_) => Class::Terminal,
        }
    }
}

/// Something that stops one object and not the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// An object of that name belongs to somebody else.
    NotOurs {
        /// Which one.
        object: String,
        /// Whose it is.
        owner: String,
    },
    /// Somebody else's field manager has fields that we would set, and we do not take them.
    Held {
        /// Which object.
        object: String,
        /// Who has them.
        manager: String,
    },
    /// Somebody keeps changing a field back.
    Contested {
        /// Which object.
        object: String,
        /// Which field.
        field: String,
        /// Who does it.
        manager: String,
    },
}

/// What came of one or more objects.
#[derive(Debug, Default)]
pub struct Outcome {
    /// As they are in the cluster now.
    pub live: Vec<DynamicObject>,
    /// What was not done, and why.
    pub problems: Vec<Problem>,
    /// How many writes were made.
    pub writes: usize,
    /// When to look again.
    pub recheck: Option<Duration>,
}

impl Outcome {
    /// Adds another outcome.
    pub fn merge(&mut self, other: Self) {
        let Self { live, problems, writes, recheck } = other;
        self.live.extend(live);
        self.problems.extend(problems);
        self.writes += writes;
        self.recheck = [self.recheck, recheck].into_iter().flatten().min();
    }
}

/// Applies objects that belong together, in the given order, which is the order of their dependencies. Where one of
/// them is somebody else's none is written: pods that run under a stranger's ServiceAccount would be worse than none.
/// A contested object does not stop the others; a failed request does.
pub async fn apply(ctx: &Context, desired: &[Desired]) -> Result<Outcome, Error> {
    let live = futures::future::try_join_all(desired.iter().map(|object| read(ctx, object))).await?;
    let foreign: Vec<Problem> =
        desired.iter().zip(&live).filter_map(|(d, l)| not_ours(d, l.as_ref()?)).collect();
    if !foreign.is_empty() {
        return Ok(Outcome { problems: foreign, recheck: Some(NOT_OURS), ..Outcome::default() });
    }
    let mut outcome = Outcome::default();
    for (object, live) in desired.iter().zip(live) {
        outcome.merge(apply_one(ctx, object, live).await?);
    }
    Ok(outcome)
}

async fn read(ctx: &Context, desired: &Desired) -> Result<Option<DynamicObject>, Error> {
    desired.api(&ctx.client).get_opt(&desired.name).await.map_err(Error::request("read", desired.describe()))
}

fn not_ours(desired: &Desired, live: &DynamicObject) -> Option<Problem> {
    match desired.ownership(live) {
        Ownership::Foreign(owner) => Some(Problem::NotOurs { object: desired.describe(), owner }),
        Ownership::Ours | Ownership::Leaving => None,
    }
}

async fn apply_one(ctx: &Context, desired: &Desired, live: Option<DynamicObject>) -> Result<Outcome, Error> {
    let name = desired.describe();
    let Some(live) = live else {
        let live = replicas::create(ctx, desired).await?;
        tracing::info!(object = %name, "created");
        return written(ctx, desired, name, live);
    };
    if live.metadata.deletion_timestamp.is_some() || desired.ownership(&live) != Ownership::Ours {
        return Err(Error::Leaving { object: name });
    }
    mend(ctx, desired, live, name).await
}

async fn mend(ctx: &Context, desired: &Desired, live: DynamicObject, name: String) -> Result<Outcome, Error> {
    // What was written last is remembered, too: whoever reverts the whole object reverts the annotation with it.
    let known = live.annotations().get(APPLIED) == Some(&desired.hash)
        || ctx.contests.was_written(&name, &desired.hash);
    let Some(path) = compare::difference(&desired.body, &serde_json::to_value(&live)?) else {
        let mut outcome = replicas::raise(ctx, desired, live).await?;
        outcome.merge(standing(ctx, &name));
        return Ok(outcome);
    };
    // What we want has not changed, so somebody else's change is being mended.
    if known && let Some(held) = held_back(ctx, &name, contested(&live, &name, &path)) {
        return Ok(Outcome { live: vec![live], ..held });
    }
    tracing::info!(object = %name, field = %path, drift = known, "applying");
    replicas::hand_over(ctx, desired, &live).await?;
    let live = patch(ctx, desired, &desired.body, MANAGER).await?;
    written(ctx, desired, name, live)
}

fn contested(live: &DynamicObject, object: &str, path: &compare::Path) -> Problem {
    let manager = contest::other_manager(live.managed_fields(), path, MANAGER);
    Problem::Contested { object: object.to_owned(), field: path.to_string(), manager }
}

// Counts a correction under this name; what there is to tell if it must wait.
fn held_back(ctx: &Context, counted: &str, problem: Problem) -> Option<Outcome> {
    let wait = ctx.contests.admit(counted, &problem, ctx.now()).err()?;
    ctx.metrics.contested.inc();
    Some(Outcome { problems: vec![problem], recheck: Some(wait), ..Outcome::default() })
}

// Right at this moment; a fight of which this is a pause is still told of.
fn standing(ctx: &Context, name: &str) -> Outcome {
    let (problem, recheck) = ctx.contests.standing(name, ctx.now()).unzip();
    Outcome { problems: problem.into_iter().collect(), recheck, ..Outcome::default() }
}

// The answer tells whether an admission policy changed our request on its way in: that brings no event, so look again.
fn written(ctx: &Context, desired: &Desired, name: String, live: DynamicObject) -> Result<Outcome, Error> {
    ctx.contests.wrote(&name, &desired.hash);
    let mut outcome = Outcome { writes: 1, ..Outcome::default() };
    if let Some(path) = compare::difference(&desired.body, &serde_json::to_value(&live)?) {
        outcome.problems.push(contested(&live, &name, &path));
        outcome.recheck = Some(CONTESTED);
    } else {
        outcome.merge(standing(ctx, &name));
    }
    outcome.live.push(live);
    Ok(outcome)
}

// Forced, because ownership was checked just before; without force a field that somebody edited could not be mended.
async fn patch(
    ctx: &Context,
    desired: &Desired,
    body: &serde_json::Value,
    manager: &str,
) -> Result<DynamicObject, Error> {
    ctx.metrics.wrote(&desired.resource.kind, "apply");
    let params = PatchParams::apply(manager).force();
    let api = desired.api(&ctx.client);
    ctx.write(api.patch(&desired.name, &params, &Patch::Apply(body)))
        .await
        .map_err(Error::request("apply", desired.describe()))
}
