//! The only writer. The position of multi-step work is written first, by compare-and-swap: whoever acted on an older
//! picture loses there and does nothing else.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service,
    core::v1::ServiceAccount, networking::v1::NetworkPolicy, policy::v1::PodDisruptionBudget,
    rbac::v1::ClusterRoleBinding, rbac::v1::RoleBinding,
};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    core::ApiResource,
    runtime::events::EventType,
};
use meshwright_api::{GatewayApiChannel, MeshControlPlane, MeshRevision, MeshRevisionSpec, labels};
use serde_json::json;

use super::{Seen, ValidatedMesh, build, deletion::FINALIZER, tell, upgrade::Step, validate::MeshRef};
use crate::{
    apply::{self, Outcome},
    certificates::{self, issuing, root::Root},
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
    /// What there was before.
    pub pods: std::collections::BTreeMap<String, crate::pods::Count>,
    /// The root.
    pub root: Root,
    /// The Gateway API's definitions, and whether they can be used.
    pub gateway_api: (Option<meshwright_api::GatewayApiStatus>, Result<(), Unusable>),
    /// Objects that could not be brought to what they should be.
    pub problems: Vec<apply::Problem>,
    /// When to come back.
    pub recheck: Option<Duration>,
}

/// Takes the step.
pub async fn apply(ctx: &Context, mesh: &ValidatedMesh, seen: &Seen, step: Step) -> Result<Applied, Error> {
    let mcp = position(ctx, seen, mesh, &step).await?;
    let mut outcome = Outcome { recheck: step.recheck, ..Outcome::default() };
    let root = root(ctx, mesh, seen, &mcp).await?;
    let operator = (ctx.settings.namespace.as_str(), ctx.settings.service_account.as_str());
    let whole = build::whole_mesh(&mesh.mesh, &step.active, operator, seen.gateway_api.usable().is_ok())?;
    for object in &whole {
        // They do not depend on each other: a stranger's GatewayClass does not stop the control plane.
        outcome.merge(apply::apply(ctx, std::slice::from_ref(object)).await?);
    }
    if let Some(snapshot) = &step.create {
        create_revision(ctx, &mesh.mesh, &step.target, snapshot, &mcp).await?;
    }
    let mut revisions = Vec::new();
    for revision in &step.keep {
        revisions.push(keep(ctx, mesh, seen, &step, revision, &root, &mut outcome).await?);
    }
    for revision in &step.retire {
        retire(ctx, revision, &mcp).await?;
    }
    prune(ctx, &mesh.mesh, &revisions, &step).await?;
    let usable = install_gateway_api(ctx, mesh, seen, &step, &mut outcome).await?;
    Ok(Applied {
        pods: seen.pods.clone(),
        root,
        gateway_api: (seen.gateway_api.status(), usable),
        problems: outcome.problems,
        recheck: outcome.recheck,
        revisions,
        step,
    })
}

// First of all: the finalizer, before anything exists that only it removes, and which revision is the active one.
async fn position(
    ctx: &Context,
    seen: &Seen,
    mesh: &ValidatedMesh,
    step: &Step,
) -> Result<MeshControlPlane, Error> {
    let api: Api<MeshControlPlane> = Api::namespaced(ctx.client.clone(), &mesh.mesh.namespace);
    let name = &mesh.mesh.name;
    let mut mcp = seen.fresh.clone();
    if !mcp.finalizers().iter().any(|f| f == FINALIZER) {
        mcp.finalizers_mut().push(FINALIZER.to_owned());
        let body = json!({"metadata": {
            "resourceVersion": mcp.resource_version(), "finalizers": mcp.finalizers(),
        }});
        ctx.metrics.wrote("MeshControlPlane", "apply");
        let patched = ctx.write(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await;
        mcp = patched.map_err(apply::Error::request("add the finalizer of", describe(mesh)))?;
    }
    let Some(before) = &step.promote else { return Ok(mcp) };
    let status = mcp.status.get_or_insert_default();
    status.active_revision = Some(step.active.clone());
    status.version = Some(mesh.snapshot.version.clone());
    ctx.metrics.wrote("MeshControlPlane", "status");
    let written = ctx.write(api.replace_status(name, &PostParams::default(), &mcp)).await;
    let mcp = written.map_err(apply::Error::request("record the active revision of", describe(mesh)))?;
    let note = match before {
        Some(before) => format!("gateways move from revision {before} to {}, without analysis", step.active),
        None => format!("revision {} is the first of this mesh, installed without analysis", step.active),
    };
    tell(ctx, &mcp, EventType::Normal, "RevisionActivated", note).await;
    Ok(mcp)
}

fn describe(mesh: &ValidatedMesh) -> String {
    format!("MeshControlPlane {}/{}", mesh.mesh.namespace, mesh.mesh.name)
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
        installed = gateway_api::install(ctx, &seen.gateway_api, mesh.channel).await?;
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
    ctx.gateway_api_served
        .send_if_modified(|served| std::mem::replace(served, usable.is_ok()) != usable.is_ok());
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

async fn create_revision(
    ctx: &Context,
    mesh: &MeshRef,
    name: &str,
    snapshot: &MeshRevisionSpec,
    mcp: &MeshControlPlane,
) -> Result<(), Error> {
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
    ctx.write(api.create(&PostParams::default(), &revision))
        .await
        .map_err(apply::Error::request("create", format!("MeshRevision {name}")))?;
    let note = format!("installing revision {name}, version {}", snapshot.version);
    tell(ctx, mcp, EventType::Normal, "RevisionCreated", note).await;
    Ok(())
}

async fn keep(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    step: &Step,
    revision: &MeshRevision,
    root: &Root,
    outcome: &mut Outcome,
) -> Result<MeshRevision, Error> {
    let name = revision.name_any();
    let mounted = seen.pods.get(&name).map(|c| c.mounted.clone()).unwrap_or_default();
    let recorded = seen.fresh.status.as_ref().and_then(|s| s.certificates.as_ref());
    let replaced = recorded.is_some_and(|c| c.root_fingerprint != root.fingerprint);
    let plan = issuing::plan(revision, root, replaced, &mounted, ctx.now());
    let mut revision = revision.clone();
    if let Some(epoch) = plan.issue {
        revision = issuing::deliver(ctx, &revision, root, epoch).await?;
        let note = format!("revision {name} has a new issuing certificate, epoch {epoch}");
        tell(ctx, &seen.fresh, EventType::Normal, "IssuingCertificateDelivered", note).await;
    }
    let issued = revision.status.as_ref().and_then(|s| s.issuing_ca.as_ref());
    let due = issued.map(|ca| issuing::due_in(ca, ctx.now())).filter(|d| !d.is_zero());
    let secret = issued.map_or(plan.secret, |ca| ca.secret_name.clone());
    let objects = build::revision(&revision, &secret, &mesh.control_plane)?;
    let desired = objects.into_desired(&mesh.control_plane)?;
    outcome.merge(Outcome { recheck: due, ..Outcome::default() });
    outcome.merge(apply::apply(ctx, &desired).await?);
    issuing::collect(ctx, &revision, &plan.collect).await?;
    let findings = step.findings.get(&name).cloned().unwrap_or_default();
    let ready = seen.pods.get(&name).map_or(0, |c| c.control_plane_ready);
    Ok(mesh_revision::record(ctx, revision, findings, ready).await?)
}

// The finalizer goes first: it holds deletions that others ask for, and this one is decided.
async fn retire(ctx: &Context, revision: &MeshRevision, mcp: &MeshControlPlane) -> Result<(), Error> {
    let seen = mesh_revision::release(ctx, revision).await?;
    apply::delete(ctx, &ApiResource::erase::<MeshRevision>(&()), &seen).await?;
    let note = format!("revision {} is removed: nothing used it any more", revision.name_any());
    tell(ctx, mcp, EventType::Normal, "RevisionRetired", note).await;
    Ok(())
}

// What builders of an earlier operator made and ours do not, and the cluster-scoped objects of retired revisions.
async fn prune(ctx: &Context, mesh: &MeshRef, revisions: &[MeshRevision], step: &Step) -> Result<(), Error> {
    let is_live = |labels: &std::collections::BTreeMap<String, String>| {
        labels
            .get(labels::REVISION)
            .is_some_and(|r| revisions.iter().any(|l| l.name_any() == *r) || *r == step.target)
    };
    let selector = selector(mesh);
    let cluster = ApiResource::erase::<ClusterRoleBinding>(&());
    apply::prune(ctx, &cluster, None, &selector, |o| is_live(o.labels())).await?;
    let kinds = [
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<RoleBinding>(&()),
    ];
    let component = format!("{selector},{}={}", labels::COMPONENT, labels::COMPONENT_CONTROL_PLANE);
    for kind in &kinds {
        let named = |name: &str| {
            revisions.iter().any(|r| {
                let revision = r.name_any();
                name == revision || name == format!("{revision}-lease")
            })
        };
        apply::prune(ctx, kind, Some(&mesh.namespace), &component, |o| {
            // Owned objects of a retired revision are the garbage collector's.
            !is_live(o.labels()) || named(&o.name_any())
        })
        .await?;
    }
    Ok(())
}

/// Labels of everything made for this mesh.
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
