//! What only control planes and proxies can tell: asked while an upgrade is under way, or while a revision may be removed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use meshwright_api::{Comparison, Strategy, UpgradePhase, UpgradeStatus, Verdict, VerdictResult, labels};
use meshwright_decisions::{analysis, health};

use super::{
    Seen, ValidatedMesh,
    nodes::moved::{self, Moved},
    surroundings::{before, describe, gateways, is_behind},
};
use crate::{
    context::Context,
    inspection::{self, Observation, PairScope, Replica, Scope, probe, series},
    pods,
    upgrade::{machine::Trouble, shares},
};

/// Of the traffic before a step this much is looked at.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(60);

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
    /// Gateways whose proxies refused their newest configuration; none where they cannot be seen.
    pub behind: Option<Vec<String>>,
    /// What the preflight could not look at.
    pub unseen: Option<String>,
    /// Gateways with proxies that are left as they are, and why.
    pub unmanaged: Vec<String>,
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
    if position.is_some_and(|p| p.phase == UpgradePhase::Planned) {
        return measured;
    }
    if position.is_some_and(|p| p.phase == UpgradePhase::Preflight) {
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
    let since = position.and_then(judged_since).map_or(now - LOOK_BACK, |t| t.0);
    let upgrade = position.map_or_else(String::new, |p| format!("{} {} {}", p.from, p.to, p.started.0));
    let scope = Scope { upgrade: &upgrade, since };
    let observation = ctx.inspector.observe(asked, &scope, &names, replicas, now).await;
    for (revision, observed) in &observation.revisions {
        let open = observed.streams.as_ref().map(|all| of_gateways(all, &seen.items));
        measured.streams.insert(revision.clone(), open);
    }
    if position.is_none_or(|p| p.phase != UpgradePhase::ShiftNodes) {
        ctx.inspector.forget_pairs();
    }
    let Some(p) = position else { return };
    measured.proxies = observation.revisions.get(&p.to).map(totals);
    use UpgradePhase::{Bake, Drain, Shift, ShiftNodes};
    if !matches!(p.phase, Shift | ShiftNodes | Bake | Drain) || p.without_baseline {
        return;
    }
    measured.finding = finding(&observation, p);
    // For ten minutes and more nobody asks, unless a new proxy is in trouble; and once the old ones end nothing goes back by itself.
    let is_unready = |pod: &Pod| pods::is_of(pod, &p.to, labels::COMPONENT_GATEWAY) && !pods::is_ready(pod);
    if p.phase == UpgradePhase::Drain && (p.measured_since.is_some() || !seen.items.iter().any(is_unready)) {
        return;
    }
    // Where they cannot be listed for a moment, probes go on as they were aimed.
    let gateways = gateways(ctx).await.ok();
    let behind = |all: &Vec<_>| all.iter().filter(|g| is_behind(g)).map(describe).collect();
    measured.behind = gateways.as_ref().map(behind);
    if let Some(since) = judged_since(p) {
        if let Some(gateways) = &gateways {
            ctx.prober.aim(probe::targets(&seen.items, gateways, &mesh.upgrade.probes));
        }
        judge(ctx, mesh, seen, (p, since.0), &observation, measured);
    }
    if p.phase == ShiftNodes && measured.verdict.is_none() {
        judge_nodes(ctx, mesh, seen, p, asked, replicas, measured).await;
    }
}

/// How many of these streams, by namespace and name of the pod, are not of node proxies. Those have theirs as long as their revision is
/// there; which of them serve is what the MeshNodes say.
pub fn of_gateways(streams: &BTreeSet<String>, pods: &[Pod]) -> usize {
    let is_node = |p: &&Pod| p.labels().get(labels::COMPONENT).is_some_and(|c| c == labels::COMPONENT_NODE);
    let name = |p: &Pod| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any());
    let of_nodes: BTreeSet<String> = pods.iter().filter(is_node).map(name).collect();
    streams.difference(&of_nodes).count()
}

/// Since when both revisions have had traffic side by side. Before a step is in place for all Gateways too: some have it already.
fn judged_since(p: &UpgradeStatus) -> Option<&Time> {
    match p.phase {
        UpgradePhase::Shift => Some(p.measured_since.as_ref().unwrap_or(&p.since)),
        // While the nodes go over the gateways have the last step's share.
        UpgradePhase::ShiftNodes => Some(&p.since),
        UpgradePhase::Bake if p.strategy == Strategy::Canary && p.measured_since.is_none() => Some(&p.since),
        _ => None,
    }
}

fn totals(observed: &inspection::Observed) -> Proxies {
    let newest = observed.health.values().filter_map(|samples| samples.last());
    let configurations_refused = newest.map(|sample| sample.configurations_refused).sum();
    let inspection::Certificates { signed, refused } = observed.certificates;
    Proxies { certificates_signed: signed, certificates_refused: refused, configurations_refused }
}

fn judge(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    (p, since): (&UpgradeStatus, Timestamp),
    observation: &Observation,
    measured: &mut Measured,
) {
    let gathering = p.measured_since.is_none() || p.phase == UpgradePhase::ShiftNodes;
    if seen.gateways.is_empty() {
        if gathering {
            return;
        }
        measured.verdict = Some(nothing_measured("there is no Gateway, so there is nothing to measure"));
        return;
    }
    let sides = series::sides(observation, &ctx.prober.probed(), &p.to, &p.from, since);
    let (canary, baseline, probes) = (&sides.canary, &sides.baseline, &sides.probes);
    let (settings, steps) = (&mesh.upgrade.analysis, p.steps.len().max(1));
    let verdict = if gathering {
        let look = analysis::Look { steps, window: analysis::Window::Before };
        analysis::judge_with_probes(canary, baseline, probes, settings, &look)
    } else {
        let times = (since.as_second(), observation.at.as_second());
        analysis::judge_step(canary, baseline, probes, settings, steps, times)
    };
    // Of a share that is not in place, or has been measured already, only what is bad counts.
    if gathering && verdict.result != analysis::VerdictResult::Fail {
        return;
    }
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (canary, baseline) = (count(verdict.canary_requests), count(verdict.baseline_requests));
    let users = (verdict.canary_users, verdict.baseline_users);
    measured.requests = (users.0 + users.1 > 0).then(|| shares::share_of(users.0, users.1));
    verdict.cause.as_str().clone_into(&mut measured.cause);
    measured.verdict = Some(Verdict {
        result: match verdict.result {
            analysis::VerdictResult::Pass => VerdictResult::Pass,
            analysis::VerdictResult::Fail => VerdictResult::Fail,
            analysis::VerdictResult::Insufficient => VerdictResult::Insufficient,
        },
        reason: if canary + baseline > 0 { verdict.reason } else { nothing_yet(verdict.reason) },
        canary_requests: canary,
        baseline_requests: baseline,
    });
}

// Each pair of a workload and a Service against its own past on the same nodes.
async fn judge_nodes(
    ctx: &Context,
    mesh: &ValidatedMesh,
    seen: &Seen,
    p: &UpgradeStatus,
    asked: &inspection::Mesh<'_>,
    replicas: &[Replica],
    measured: &mut Measured,
) {
    let (moved, now) = (Moved::of(&seen.nodes, p), ctx.now());
    let Some(since) = moved.since() else { return };
    let scope = PairScope { nodes: moved.names(), since };
    let revisions = [p.from.as_str(), p.to.as_str()];
    let told = ctx.inspector.observe_pairs(asked, scope, &revisions, replicas, now).await;
    measured.verdict = moved.judge(&told, p, &mesh.upgrade.analysis, now);
    moved::CAUSE.clone_into(&mut measured.cause);
}

fn nothing_measured(why: &str) -> Verdict {
    let reason = why.to_owned();
    Verdict { result: VerdictResult::Pass, reason, canary_requests: 0, baseline_requests: 0 }
}

// Also where a step just began, "too few requests" would be true, and would sound like trouble.
fn nothing_yet(reason: String) -> String {
    format!("{reason}; the first {} s of a step and of a pod do not count", series::WARM_UP)
}

fn finding(observation: &Observation, p: &UpgradeStatus) -> Option<Trouble> {
    let samples = inspection::health::samples(observation, &p.to, &p.from);
    let found = health::examine(&samples.canary, &samples.baseline);
    let found = found.map(|found| (found.cause.as_str(), found.reason));
    let ends = || Some(("ProxyCrashes", inspection::health::envoy_ends(observation, &p.to, &p.from)?));
    let (cause, message) = found.or_else(ends)?;
    Some(Trouble { cause: cause.to_owned(), message, lasting: true })
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
