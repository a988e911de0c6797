//! What only control planes and proxies can tell: asked while an upgrade is under way, or while a revision may be removed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, jiff::SignedDuration};
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::{
    Comparison, UpgradePhase, UpgradeStatus, Verdict, VerdictResult, gateway::Gateway, labels,
};
use meshwright_decisions::{analysis, health};

use super::{Seen, ValidatedMesh};
use crate::{
    context::Context,
    inspection::{self, Observation, Replica, Scope, probe, series},
    reconciler,
    upgrade::{machine::Trouble, shares},
};

/// Of the traffic before a step this much is looked at.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(60);
/// How the control plane begins to say that a proxy refused what it was given.
const REFUSED: &str = "a proxy refused the configuration";

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// What the analysis says of the step.
    pub verdict: Option<Verdict>,
    /// One word for what a bad verdict found.
    pub cause: String,
    /// Share of the measured requests that the new revision had, in percent.
    pub requests: Option<i32>,
    /// What is wrong with the new control plane, in spite of its being ready.
    pub finding: Option<Trouble>,
    /// How the configuration differs; an error while it cannot be seen.
    pub comparison: Option<Result<Comparison, String>>,
    /// Open xDS streams by revision; none where it cannot be seen.
    pub streams: BTreeMap<String, Option<usize>>,
    /// What the new control plane says of its proxies.
    pub proxies: Option<Proxies>,
    /// Minor version of Kubernetes 1.x.
    pub kubernetes: Option<u32>,
    /// Budgets of others on our pods.
    pub foreign_budgets: Vec<String>,
    /// Gateways whose proxies refused their newest configuration.
    pub behind: Vec<String>,
}

/// What a control plane says of its proxies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Certificates that it signed.
    pub certificates_signed: u64,
    /// Certificates that it refused.
    pub certificates_refused: u64,
    /// Configurations that Envoy refused.
    pub configurations_refused: u64,
}

/// Asks what the position of the upgrade needs. What cannot be asked is unknown, and never fails the reconcile.
pub async fn measure(ctx: &Context, mesh: &ValidatedMesh, seen: &Seen) -> Measured {
    let status = seen.fresh.status.as_ref();
    let position = status.and_then(|s| s.upgrade.as_ref());
    let active = status.and_then(|s| s.active_revision.as_deref());
    let strays = seen.revisions.iter().any(|r| Some(r.name_any().as_str()) != active);
    let Some(root) = seen.root.as_ref().filter(|_| strays || position.is_some()) else {
        return Measured::default();
    };
    let asked =
        inspection::Mesh { namespace: &mesh.mesh.namespace, trust_domain: &mesh.snapshot.trust_domain, root };
    let replicas = inspection::replicas(&seen.items);
    let mut measured = Measured::default();
    if position.is_some_and(|p| matches!(p.phase, UpgradePhase::Planned | UpgradePhase::Preflight)) {
        before(ctx, seen, &mut measured).await;
        return measured;
    }
    observe(ctx, mesh, seen, position, &asked, &replicas, &mut measured).await;
    if let Some(p) = position.filter(|p| p.phase == UpgradePhase::Compare) {
        measured.comparison = Some(compare(ctx, p, &asked, &replicas).await);
    }
    measured
}

async fn observe(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    position: Option<&UpgradeStatus>,
    asked: &inspection::Mesh<'_>,
    replicas: &[Replica],
    measured: &mut Measured,
) {
    let names: Vec<String> = seen.revisions.iter().map(ResourceExt::name_any).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let now = ctx.now();
    let since = position.and_then(|p| p.measured_since.as_ref()).map_or(now - LOOK_BACK, |t| t.0);
    let upgrade = position.map_or_else(String::new, |p| format!("{} {} {}", p.from, p.to, p.started.0));
    let scope = Scope { upgrade: &upgrade, since };
    let observation = ctx.inspector.observe(asked, &scope, &names, replicas, now).await;
    for (revision, observed) in &observation.revisions {
        measured.streams.insert(revision.clone(), observed.streams.as_ref().map(BTreeSet::len));
    }
    let Some(p) = position else { return };
    measured.proxies = observation.revisions.get(&p.to).map(totals);
    if !matches!(p.phase, UpgradePhase::Shift | UpgradePhase::Bake | UpgradePhase::Drain)
        || p.without_baseline
    {
        return;
    }
    measured.finding = finding(&observation, p);
    // What follows is about new proxies, and those serve by then.
    if p.phase == UpgradePhase::Drain {
        return;
    }
    let gateways = gateways(ctx).await;
    measured.behind = gateways.iter().filter(|g| is_behind(g)).map(describe).collect();
    if p.phase == UpgradePhase::Shift {
        ctx.prober.aim(probe::targets(&seen.items, &gateways, &mesh.upgrade.probes));
        if p.measured_since.is_some() {
            judge(ctx, mesh, seen, p, &observation, measured);
        }
    }
}

fn totals(observed: &inspection::Observed) -> Proxies {
    let mut totals = Proxies::default();
    for samples in observed.health.values() {
        let Some(last) = samples.last() else { continue };
        totals.certificates_signed += last.certificates_signed;
        totals.certificates_refused += last.certificates_refused;
        totals.configurations_refused += last.configurations_refused;
    }
    totals
}

fn judge(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    p: &UpgradeStatus,
    observation: &Observation,
    measured: &mut Measured,
) {
    if seen.gateways.is_empty() {
        let reason = "there is no Gateway, so there is nothing to measure".to_owned();
        let result = VerdictResult::Pass;
        measured.verdict = Some(Verdict { result, reason, canary_requests: 0, baseline_requests: 0 });
        return;
    }
    let since = p.measured_since.as_ref().map_or(ctx.now(), |t| t.0);
    let sides = series::sides(observation, &ctx.prober.probed(), &p.to, &p.from, since);
    let look = analysis::Look { steps: p.steps.len().max(1) };
    let verdict = analysis::judge_with_probes(
        &sides.canary,
        &sides.baseline,
        &sides.probes,
        &mesh.upgrade.analysis,
        &look,
    );
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (canary, baseline) = (count(verdict.canary_requests), count(verdict.baseline_requests));
    let (per_cent, all) = (|n: i64| i32::try_from(n.min(1_000_000)).unwrap_or(0), canary + baseline);
    measured.requests = (all > 0).then(|| shares::share(per_cent(canary), per_cent(baseline)));
    verdict.cause.as_str().clone_into(&mut measured.cause);
    measured.verdict = Some(Verdict {
        result: match verdict.result {
            analysis::VerdictResult::Pass => VerdictResult::Pass,
            analysis::VerdictResult::Fail => VerdictResult::Fail,
            analysis::VerdictResult::Insufficient => VerdictResult::Insufficient,
        },
        reason: verdict.reason,
        canary_requests: canary,
        baseline_requests: baseline,
    });
}

fn finding(observation: &Observation, p: &UpgradeStatus) -> Option<Trouble> {
    let samples = inspection::health::samples(observation, &p.to, &p.from);
    let found = health::examine(&samples.canary, &samples.baseline)?;
    Some(Trouble { cause: found.cause.as_str().to_owned(), message: found.reason, lasting: true })
}

async fn compare(
    ctx: &Context,
    p: &UpgradeStatus,
    mesh: &inspection::Mesh<'_>,
    replicas: &[Replica],
) -> Result<Comparison, String> {
    let rendered = |revision: String| async move {
        let rendered = ctx.inspector.render(mesh, &revision, replicas).await;
        rendered.map_err(|e| format!("{:#}", anyhow::Error::from(e)))
    };
    let (old, new) = tokio::join!(rendered(p.from.clone()), rendered(p.to.clone()));
    Ok(inspection::compare::compare(&old?, &new?))
}

// What the preflight looks at beyond our own objects.
async fn before(ctx: &Context, seen: &Seen, measured: &mut Measured) {
    let version = ctx.client.apiserver_version().await;
    measured.kubernetes = version.ok().and_then(|v| v.minor.trim_end_matches('+').parse().ok());
    let budgets = Api::<PodDisruptionBudget>::all(ctx.client.clone()).list(&ListParams::default()).await;
    let budgets = budgets.inspect_err(|error| tracing::warn!(%error, "could not list PodDisruptionBudgets"));
    let ours = |o: &PodDisruptionBudget| {
        o.labels().get(labels::MANAGED_BY).map(String::as_str) == Some(labels::MANAGER)
    };
    let selects = |o: &PodDisruptionBudget| {
        let selector = o.spec.as_ref().and_then(|s| s.selector.as_ref());
        let wanted = selector.and_then(|s| s.match_labels.as_ref());
        seen.items.iter().any(|pod| {
            pod.namespace() == o.namespace()
                && wanted
                    .is_some_and(|w| !w.is_empty() && w.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
        })
    };
    let foreign = budgets.map(|b| b.items).unwrap_or_default().into_iter().filter(|o| !ours(o) && selects(o));
    measured.foreign_budgets =
        foreign.map(|o| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any())).collect();
    measured.behind = gateways(ctx).await.iter().filter(|g| is_behind(g)).map(describe).collect();
}

/// A proxy of it goes on with an older configuration; its control plane says so in its status.
fn is_behind(gateway: &Gateway) -> bool {
    let conditions = gateway.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.status == "False" && c.message.starts_with(REFUSED))
}

fn describe(gateway: &Gateway) -> String {
    format!("{}/{}", gateway.namespace().unwrap_or_default(), gateway.name_any())
}

async fn gateways(ctx: &Context) -> Vec<Gateway> {
    let gateways = reconciler::list(Api::all(ctx.client.clone()), &ListParams::default()).await;
    gateways.inspect_err(|error| tracing::warn!(%error, "could not list Gateways")).unwrap_or_default()
}
