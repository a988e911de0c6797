//! From what was read to what the state machine decides on. Pure.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};
use kube::ResourceExt;
use meshwright_api::{Accepted, MeshRevision, UpgradePhase, UpgradeStatus, labels};

use super::{
    dereference::{GatewaySeen, Seen},
    measure::Measured,
    nodes::{
        self, Proxies, Server, Wanted,
        waves::{Between, Wave},
    },
    slots,
    step::{condition, is_ready, usage},
    trouble,
    validate::ValidatedMesh,
};
use crate::{
    catalogue::Version,
    gateway::sizes,
    gateway_api::Unusable,
    pods,
    upgrade::{
        View,
        machine::{Gateways, Health, Nodes, Revision, Wishes},
        preflight::{self, POD_SECURITY, Sight},
        shares,
    },
};

/// Everything that a decision depends on.
pub fn view<'a>(
    mesh: &'a ValidatedMesh,
    seen: &'a Seen,
    measured: &Measured,
    target: &str,
    now: Timestamp,
) -> View<'a> {
    let status = seen.fresh.status.as_ref();
    let position = status.and_then(|s| s.upgrade.as_ref());
    let active = status.and_then(|s| s.active_revision.clone());
    let active = active.and_then(|name| seen.revisions.iter().find(|r| r.name_any() == name));
    let (from, to) = position.map_or((None, target), |p| (Some(p.from.as_str()), p.to.as_str()));
    let from = from.or(active.map(|a| a.metadata.name.as_deref().unwrap_or_default()));
    let health = |name: Option<&str>| name.map(|n| health(mesh, seen, measured, n, now)).unwrap_or_default();
    View {
        now,
        settings: &mesh.upgrade,
        target: Revision { name: target.to_owned(), version: mesh.snapshot.version.clone() },
        active: active.map(|a| Revision { name: a.name_any(), version: a.spec.version.clone() }),
        active_was_ready: active.is_some_and(was_ever_ready),
        position,
        generation: seen.fresh.metadata.generation,
        by_itself: mesh.by_itself,
        unseen: measured.unseen.clone(),
        opens: if mesh.by_itself { mesh.upgrade.opens(now) } else { None },
        held_back: mesh.newer.filter(|_| mesh.held_back).map(|v| v.to_string()),
        from: health(from),
        to: with_finding(health(Some(to)), measured),
        blockers: preflight::blockers(&sight(mesh, seen, measured), now),
        comparison: measured.comparison.clone(),
        gateways: position.map(|p| gateways(p, mesh, seen, measured, now)).unwrap_or_default(),
        nodes: position.map(|p| nodes(p, seen)).unwrap_or_default(),
        ports: slots::of_release(&mesh.snapshot.version, &seen.revisions, &seen.slots).err(),
        verdict: measured.verdict.clone(),
        verdict_cause: measured.cause.clone(),
        requests: measured.requests,
        wishes: wishes(seen),
    }
}

fn was_ever_ready(revision: &MeshRevision) -> bool {
    use meshwright_api::conditions::{READY, reason};
    condition(revision, READY)
        .is_some_and(|c| c.status == "True" || c.reason == reason::CONTROL_PLANE_UNAVAILABLE)
}

// What the whole of the control plane shows outweighs nothing: a pod that crashes says more than a slow answer.
fn with_finding(health: Health, measured: &Measured) -> Health {
    let trouble = health.trouble.clone().or_else(|| measured.finding.clone());
    Health { trouble, ..health }
}

fn wishes(seen: &Seen) -> Wishes {
    let said = |name: &str| seen.fresh.annotations().get(name).filter(|v| !v.is_empty()).cloned();
    let approve = said(labels::APPROVE).and_then(|text| {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    Wishes {
        approve,
        acknowledge: said(labels::ACKNOWLEDGE)
            .and_then(|text| text.split_once('/').map(|(plan, user)| (plan.to_owned(), user.to_owned()))),
        rollback: said(labels::ROLLBACK),
        retry: said(labels::RETRY),
        end_keep_warm: said(labels::END_KEEP_WARM),
    }
}

fn health(mesh: &ValidatedMesh, seen: &Seen, measured: &Measured, name: &str, now: Timestamp) -> Health {
    let exists = seen.revisions.iter().any(|r| r.name_any() == name);
    Health {
        exists,
        ready: is_ready(mesh.control_plane.min, seen, name),
        trouble: trouble::control_plane(seen, name, now).or_else(|| trouble::nodes(seen, name, now)),
        in_use: usage(seen, measured, name, now),
    }
}

fn nodes(p: &UpgradeStatus, seen: &Seen) -> Nodes {
    let (there, proxies) = (&seen.nodes, Proxies::new(&seen.items));
    let of = |name| nodes::server(&seen.revisions, Wanted::All(name));
    // Where its proxies may not run and somebody has accepted that, who serves the nodes goes on to.
    let accepted = |a: &Accepted| a.reasons.iter().any(|reason| reason == POD_SECURITY);
    let may = seen.pod_security.is_none() || !p.accepted.iter().any(accepted);
    let has = |name| matches!(of(name), Server::Revision(_));
    let waves = (may && has(&p.from) && has(&p.to)).then(|| Wave::of(p).look(there, &proxies));
    Nodes {
        forward: match of(&p.to) {
            Server::Revision(_) if !may => None,
            Server::Revision(to) => {
                let from = has(&p.from).then_some(p.from.as_str());
                nodes::awaited(there, &proxies, Between { from, to })
            }
            Server::Nobody => nodes::released(there),
            Server::Absent | Server::Wave(_) => None,
        },
        back: nodes::left(there, &p.to),
        waves,
    }
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(0)
}

// Every pod that there should be is the newest and ready.
fn is_settled(deployment: &Deployment, wanted: i32) -> bool {
    let Some(status) = &deployment.status else { return false };
    let there = [status.ready_replicas, status.updated_replicas, status.replicas];
    status.observed_generation >= deployment.metadata.generation
        && replicas(deployment) == wanted
        && there.iter().all(|n| n.unwrap_or(0) == wanted)
}

fn gateways(
    p: &UpgradeStatus,
    mesh: &ValidatedMesh,
    seen: &Seen,
    measured: &Measured,
    now: Timestamp,
) -> Gateways {
    let mut waiting = None;
    let (mut canary, mut all, mut back) = (0, 0, true);
    for ((namespace, name), gateway) in &seen.gateways {
        if let Some(what) = awaited(p, mesh, gateway) {
            waiting.get_or_insert(format!("{what} of Gateway {namespace}/{name}"));
        }
        let ready = |revision: &str| gateway.deployments.get(revision).map_or(0, sizes::ready_of);
        let behind = behind(gateway);
        back &= behind == Some(p.from.as_str()) || gateway.service.is_none();
        let counts = |revision: &str| behind.is_none_or(|b| b == revision);
        let of = |revision: &str| if counts(revision) { ready(revision) } else { 0 };
        canary += of(&p.to);
        all += of(&p.to) + of(&p.from);
    }
    Gateways {
        settled: waiting.is_none(),
        back,
        connections: shares::share(canary, all - canary),
        waiting,
        trouble: trouble::proxies(seen, measured, (&p.from, &p.to), now),
    }
}

fn behind(gateway: &GatewaySeen) -> Option<&str> {
    let selector = gateway.service.as_ref()?.spec.as_ref()?.selector.as_ref()?;
    selector.get(labels::REVISION).map(String::as_str)
}

// What this Gateway lacks of what the position asks for.
fn awaited(p: &UpgradeStatus, mesh: &ValidatedMesh, gateway: &GatewaySeen) -> Option<String> {
    let (from, to) = (gateway.deployments.get(&p.from), gateway.deployments.get(&p.to));
    let steady = from.or(to).map_or(0, replicas);
    let wanted = match p.phase {
        UpgradePhase::Shift | UpgradePhase::ShiftNodes => {
            shares::canary_pods(steady, p.percent(), mesh.upgrade.surge_percent)
        }
        UpgradePhase::Bake => steady,
        // They lead by now.
        UpgradePhase::Drain if p.measured_since.is_none() => to.map_or(steady, replicas),
        UpgradePhase::RollingBack => {
            let back = behind(gateway) == Some(p.from.as_str());
            return (!back).then(|| "the Service to send connections to the old proxies".to_owned());
        }
        _ => return None,
    };
    // A Gateway that is served by nobody, for whatever reason, holds up no other's: its Service goes where pods are ready.
    let serves = from.is_some_and(|d| sizes::ready_of(d) > 0);
    if !serves && !to.is_some_and(|to| is_settled(to, wanted)) {
        return None;
    }
    let Some(to) = to else { return Some(format!("{wanted} new proxies")) };
    if !is_settled(to, wanted) {
        let ready = to.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        return Some(format!("{wanted} new proxies, {ready} are ready,"));
    }
    let over = behind(gateway) == Some(p.to.as_str());
    let is_left =
        p.phase == UpgradePhase::Drain || p.phase == UpgradePhase::Bake && p.measured_since.is_some();
    let late = is_left && !over;
    let mixes = matches!(p.phase, UpgradePhase::Shift | UpgradePhase::ShiftNodes);
    let mixed = mixes && behind(gateway).is_some();
    (late || mixed).then(|| "the Service to send connections to the new proxies".to_owned())
}

fn has_members(seen: &Seen) -> bool {
    seen.nodes.mesh_nodes.values().filter_map(|m| m.status.as_ref()).any(|s| !s.pods.is_empty())
}

fn sight(mesh: &ValidatedMesh, seen: &Seen, measured: &Measured) -> Sight {
    let status = seen.fresh.status.as_ref();
    let active = status.and_then(|s| s.active_revision.as_deref()).unwrap_or_default();
    let to: Option<Version> = mesh.snapshot.version.parse().ok();
    let from: Option<Version> = status.and_then(|s| s.version.as_ref()?.parse().ok());
    let ledger = crate::certificates::ledger(seen.root.as_ref(), &seen.revisions);
    let first = ledger.iter().min_by_key(|e| e.not_after);
    let proxies = || seen.items.iter().filter(|p| pods::is_of(p, active, labels::COMPONENT_GATEWAY));
    let name = |p: &Pod| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any());
    let unready = seen.gateways.iter().filter(|(_, g)| {
        let of_active = g.deployments.get(active);
        of_active.is_none_or(|d| sizes::ready_of(d) < replicas(d))
    });
    let ready = is_ready(mesh.control_plane.min, seen, active);
    let has = |version: Option<Version>| version.is_some_and(Version::has_node_proxies);
    let gains = has(to);
    Sight {
        earliest: first.map(|e| (format!("{} certificate {}", e.kind, e.name), e.not_after)),
        kubernetes: measured.kubernetes,
        supported: to.map_or((0, u32::MAX), Version::kubernetes),
        // Absent definitions are absent for the old revision, too.
        gateway_api: match seen.gateway_api.usable() {
            Ok(()) | Err(Unusable::Absent { .. } | Unusable::NotEstablished { .. }) => None,
            Err(unusable) => Some(unusable.to_string()),
        },
        control_plane: (!ready)
            .then(|| format!("the control plane of revision {active} is not as it should be")),
        pending: proxies().filter(|p| pods::unschedulable(p).is_some()).map(name).collect(),
        unready: unready.map(|((namespace, name), _)| format!("{namespace}/{name}")).collect(),
        foreign_budgets: measured.foreign_budgets.clone(),
        behind: measured.behind.clone().unwrap_or_default(),
        unmanaged: measured.unmanaged.clone(),
        pod_security: seen.pod_security.as_deref().filter(|_| gains).map(|level| {
            let namespace = &mesh.mesh.namespace;
            (nodes::missing::refused(namespace, level), nodes::missing::remedy(namespace))
        }),
        leaving: has(from) && !has(to) && has_members(seen),
        hazards: from.zip(to).map(|(from, to)| from.hazards(to)).unwrap_or_default(),
    }
}
