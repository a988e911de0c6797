//! The only writer. The position of multi-step work is written first, by compare-and-swap: whoever acted on an older
//! picture loses there and does nothing else.

use std::time::Duration;

use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
    core::ApiResource,
    runtime::events::EventType,
};
use meshwright_api::{GatewayApiChannel, MeshControlPlane, MeshRevision, MeshRevisionSpec, labels};

use super::{
    Seen, ValidatedMesh, build,
    keep::Keeper,
    nodes,
    position::position,
    prune::prune,
    step::{self, Step},
    tell,
    validate::{MeshRef, reference},
};
use crate::{
    apply::{self, Outcome},
    availability::{Workload, solve},
    certificates::{self, root::Root},
    context::Context,
    error::Class,
    gateway_api::{self, Unusable},
    mesh_revision,
};

/// A write failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request.
    #[error(transparent)]
    Request(#[from] apply::Error),
    /// A certificate.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// An object could not be built.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The Gateway API's definitions.
    #[error(transparent)]
    GatewayApi(#[from] gateway_api::Error),
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Request(e) => e.class(),
            Self::Certificates(e) => e.class(),
            Self::Build(_) => Class::Terminal,
            Self::GatewayApi(e) => e.class(),
        }
    }
}

/// What was done; the status is made of it.
#[derive(Debug)]
pub struct Applied {
    /// The step that was taken.
    pub step: Step,
    /// The revisions as recorded now.
    pub revisions: Vec<MeshRevision>,
    /// What a user should know of releases.
    pub releases: Releases,
    /// What there was before.
    pub pods: std::collections::BTreeMap<String, crate::pods::Count>,
    /// The root.
    pub root: Root,
    /// The Gateway API's definitions, and whether they can be used.
    pub gateway_api: (Option<meshwright_api::GatewayApiStatus>, Result<(), Unusable>),
    /// Objects that could not be brought to what they should be.
    pub problems: Vec<apply::Problem>,
    /// What failed first; all that does not depend on it was done.
    pub failure: Option<Error>,
    /// When to come back.
    pub recheck: Option<Duration>,
}

/// Releases that can be gone to.
#[derive(Debug, Clone, Default)]
pub struct Releases {
    /// A newer one.
    pub newer: Option<String>,
    /// It is taken by itself.
    pub by_itself: bool,
    /// It went back before, and is not taken by itself again.
    pub held_back: bool,
    /// All of them.
    pub available: Vec<String>,
}

/// Takes the step. What fails for one revision or one kind of object does not stop the others: the first failure is told
/// in [`Applied::failure`], because a revision that the API server refuses must not keep the one that serves from being
/// mended, nor itself from being removed.
pub async fn apply(ctx: &Context, mesh: &ValidatedMesh, seen: &Seen, step: Step) -> Result<Applied, Error> {
    let mcp = position(ctx, seen, mesh, &step).await?;
    let mut outcome = Outcome { recheck: step.recheck, ..Outcome::default() };
    let mut first = First::default();
    let root = root(ctx, mesh, seen, &mcp).await?;
    first.or(whole_mesh(ctx, &mesh.mesh, seen, step.active(), &mut outcome).await);
    if let Some(snapshot) = &step.create {
        outcome.merge(create_revision(ctx, &mesh.mesh, &step.target, snapshot, &mcp).await?);
    }
    let (plan, findings) = (&mesh.control_plane, &step.findings);
    let keeper = Keeper { ctx, seen, plan, root: Some(&root), findings };
    let mut revisions = Vec::new();
    for revision in &step.keep {
        let (kept, failed) = keeper.keep(revision, &mut outcome).await;
        revisions.push(kept);
        first.note(failed);
    }
    for revision in &step.retire {
        first.or(retire(ctx, revision, &mcp).await);
    }
    let wanted = nodes::wanted(step.active(), step.decision.position.as_ref());
    first.or(give_nodes(ctx, &mesh.mesh, seen, wanted).await);
    first.or(prune(ctx, &mesh.mesh, &revisions, &step).await);
    let usable = install_gateway_api(ctx, mesh, seen, &step, &mut outcome).await;
    let usable = first.or(usable).unwrap_or_else(|| seen.gateway_api.usable());
    let newer = mesh.newer.map(|v| v.to_string());
    Ok(Applied {
        releases: Releases {
            newer,
            by_itself: mesh.by_itself,
            held_back: mesh.held_back,
            available: mesh.available.clone(),
        },
        pods: seen.pods.clone(),
        root,
        gateway_api: (seen.gateway_api.status(), usable),
        problems: outcome.problems,
        failure: first.0,
        recheck: outcome.recheck,
        revisions,
        step,
    })
}

/// The first failure of several things that do not depend on each other.
#[derive(Default)]
struct First(Option<Error>);

impl First {
    fn or<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(Some(error));
                None
            }
        }
    }

    fn note(&mut self, failed: Option<Error>) {
        self.0 = self.0.take().or(failed);
    }

    fn end(self) -> Result<(), Error> {
        self.0.map_or(Ok(()), Err)
    }
}

/// While the spec cannot be carried out: what is installed is kept as its own snapshots say. Certificates run out and
/// objects drift whatever the spec says.
pub async fn hold(ctx: &Context, seen: &Seen) -> Result<(), Error> {
    let status = seen.fresh.status.as_ref();
    let Some(active) = status.and_then(|s| s.active_revision.as_deref()) else { return Ok(()) };
    let spec = &seen.fresh.spec;
    let plan = &solve(Workload::ControlPlane, spec.profile, &[spec.control_plane.autoscaling]);
    // What the spec asks for is not known, so none is called unused.
    let findings = &step::findings(plan.min, seen, None);
    let mut outcome = Outcome::default();
    let mut first = First::default();
    first.or(whole_mesh(ctx, &reference(&seen.fresh), seen, active, &mut outcome).await);
    let keeper = Keeper { ctx, seen, plan, root: seen.root.as_ref(), findings };
    for revision in &seen.revisions {
        let (_, failed) = keeper.keep(revision, &mut outcome).await;
        first.note(failed);
    }
    let wanted = nodes::wanted(active, status.and_then(|s| s.upgrade.as_ref()));
    first.or(give_nodes(ctx, &reference(&seen.fresh), seen, wanted).await);
    for problem in &outcome.problems {
        // The status has room for one reason, and that is the spec.
        tracing::warn!(?problem, "not as it should be, while the spec is invalid");
    }
    first.end()
}

/// The Gateway controllers need no valid spec, only the kinds.
pub fn serve(ctx: &Context, served: bool) {
    ctx.gateway_api_served.send_if_modified(|before| std::mem::replace(before, served) != served);
}

async fn whole_mesh(
    ctx: &Context,
    mesh: &MeshRef,
    seen: &Seen,
    active: &str,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let operator = (ctx.settings.namespace.as_str(), ctx.settings.service_account.as_str());
    let whole = build::whole_mesh(mesh, active, operator, seen.gateway_api.usable().is_ok())?;
    let mut first = First::default();
    for object in &whole {
        // They do not depend on each other: a stranger's GatewayClass does not stop the control plane.
        let applied = apply::apply(ctx, std::slice::from_ref(object)).await.map_err(Error::from);
        first.or(applied).into_iter().for_each(|applied| outcome.merge(applied));
    }
    first.end()
}

// After the position is on record.
async fn give_nodes(
    ctx: &Context,
    mesh: &MeshRef,
    seen: &Seen,
    wanted: nodes::Wanted<'_>,
) -> Result<(), Error> {
    let server = nodes::server(&seen.revisions, wanted);
    let changes = nodes::assign(&seen.nodes, &nodes::Proxies::new(&seen.items), server, ctx.now());
    Ok(nodes::apply::apply(ctx, mesh, changes).await?)
}

async fn install_gateway_api(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    step: &Step,
    outcome: &mut Outcome,
) -> Result<Result<(), Unusable>, Error> {
    let mut installed = Vec::new();
    // A revision that was created a moment ago comes first: its pods start while the definitions are installed.
    if step.create.is_none() {
        let held;
        (installed, held) = gateway_api::install(ctx, &seen.gateway_api, mesh.channel).await?;
        outcome.problems.extend(held);
    }
    let mut usable = seen.gateway_api.usable();
    if let Some(name) = installed.first() {
        let note = format!("installed {} CustomResourceDefinitions of the Gateway API", installed.len());
        tell(ctx, &seen.fresh, EventType::Normal, "GatewayAPIInstalled", note).await;
        usable = Err(Unusable::NotEstablished { name: name.clone() });
    } else if step.create.is_some()
        && mesh.channel != GatewayApiChannel::None
        && let Err(Unusable::Absent { name }) = usable
    {
        usable = Err(Unusable::NotEstablished { name });
    }
    serve(ctx, usable.is_ok());
    if usable.is_err() {
        // Definitions are not watched: soon after installing them, from time to time when a person must act.
        let wait = if installed.is_empty() { 10 } else { 1 };
        outcome.merge(Outcome { recheck: Some(Duration::from_secs(wait)), ..Outcome::default() });
    }
    Ok(usable)
}

async fn root(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    mcp: &MeshControlPlane,
) -> Result<Root, Error> {
    if let Some(root) = &seen.root {
        return Ok(root.clone());
    }
    let MeshRef { name, namespace, .. } = &mesh.mesh;
    let root =
        certificates::root::create(ctx, namespace, name, &mesh.snapshot.trust_domain, mesh.root_ttl).await?;
    let note = format!("root certificate {} is valid until {}", root.fingerprint, root.not_after);
    tell(ctx, mcp, EventType::Normal, "RootCreated", note).await;
    Ok(root)
}

pub(super) async fn create_revision(
    ctx: &Context,
    mesh: &MeshRef,
    name: &str,
    snapshot: &MeshRevisionSpec,
    mcp: &MeshControlPlane,
) -> Result<Outcome, Error> {
    let mut revision = MeshRevision::new(name, snapshot.clone());
    revision.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(mesh.namespace.clone()),
        labels: Some(build::shared::labels(&mesh.name, &mesh.namespace, &[(labels::REVISION, name)])),
        finalizers: Some(vec![mesh_revision::FINALIZER.to_owned()]),
        owner_references: mesh.owner.clone().map(|o| vec![o]),
        ..ObjectMeta::default()
    };
    let api: Api<MeshRevision> = Api::namespaced(ctx.client.clone(), &mesh.namespace);
    ctx.metrics.wrote("MeshRevision", "create");
    // Its own event brings the next reconcile, which builds it.
    match ctx.begin(api.create(&PostParams::default(), &revision)).await {
        Ok(_) => {}
        // Ours were read a moment ago, and it is none of them.
        Err(kube::Error::Api(status)) if status.is_already_exists() => return taken(&api, name).await,
        Err(error) => {
            return Err(apply::Error::request("create", format!("MeshRevision {name}"))(error).into());
        }
    }
    let note = format!("installing revision {name}, version {}", snapshot.version);
    tell(ctx, mcp, EventType::Normal, "RevisionCreated", note).await;
    Ok(Outcome::default())
}

// The name of a revision is somebody else's, or still that of an earlier mesh's.
async fn taken(api: &Api<MeshRevision>, name: &str) -> Result<Outcome, Error> {
    let object = format!("MeshRevision {name}");
    let there = api.get_metadata_opt(name).await;
    let there = there.map_err(apply::Error::request("read", object.clone()))?;
    let Some(there) = there.filter(|r| r.metadata.deletion_timestamp.is_none()) else {
        return Err(apply::Error::Leaving { object }.into());
    };
    let owner = there.owner_references().first().map(|o| format!("{} {}", o.kind, o.name));
    let owner = owner.unwrap_or_else(|| "somebody else".to_owned());
    let problems = vec![apply::Problem::NotOurs { object, owner }];
    Ok(Outcome { problems, recheck: Some(apply::NOT_OURS), ..Outcome::default() })
}

// The finalizer goes first: it holds deletions that others ask for, and this one is decided.
async fn retire(ctx: &Context, revision: &MeshRevision, mcp: &MeshControlPlane) -> Result<(), Error> {
    let seen = mesh_revision::release(ctx, revision).await?;
    apply::delete(ctx, &ApiResource::erase::<MeshRevision>(&()), &seen).await?;
    let note = format!("revision {} is removed: nothing used it any more", revision.name_any());
    tell(ctx, mcp, EventType::Normal, "RevisionRetired", note).await;
    Ok(())
}

/// Selector of everything made for this mesh.
pub(super) fn selector(mesh: &MeshRef) -> String {
    format!(
        "{}={},{}={},{}={}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::MESH_NAME,
        mesh.name,
        labels::MESH_NAMESPACE,
        mesh.namespace
    )
}
