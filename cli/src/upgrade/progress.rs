//! Where an upgrade is.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use meshwright_api::{MeshControlPlane, UpgradePhase, UpgradeRecord, UpgradeStatus, Verdict};
use serde::Serialize;

use super::{describe_step, history, is_accepted, is_blocked, not_reconciled, place};
use crate::output::{Page, between, clock, count, grouped, span, when};

mod course;
#[cfg(test)]
mod tests;

use course::phases;

/// An upgrade as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Namespace and name of the MeshControlPlane.
    pub mesh: String,
    /// Release that is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Held by `spec.upgrade.paused`.
    pub paused: bool,
    /// Something stands in the way that nobody has accepted.
    pub blocked: bool,
    /// Somebody has accepted what stands in the way.
    pub accepted: bool,
    /// Why the spec is not carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_reconciled: Option<String>,
    /// The upgrade that is under way, or that went back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
    /// The one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<UpgradeRecord>,
}

impl Progress {
    /// What the mesh says of its upgrade.
    pub fn new(mesh: &MeshControlPlane) -> Self {
        let status = mesh.status.clone().unwrap_or_default();
        let blocked = status.upgrade.as_ref().is_some_and(|u| is_blocked(mesh, u));
        Self {
            mesh: format!("{}/{}", mesh.namespace().unwrap_or_default(), mesh.name_any()),
            version: status.version,
            paused: mesh.spec.upgrade.paused,
            blocked,
            accepted: status.upgrade.as_ref().is_some_and(|u| is_accepted(mesh, u)),
            not_reconciled: not_reconciled(mesh).map(|c| c.message.clone()),
            last: status.history.into_iter().next(),
            upgrade: status.upgrade,
        }
    }

    /// One line, for a log.
    pub fn line(&self) -> String {
        let refused = self.not_reconciled.as_ref().map(|why| format!("the spec is not carried out: {why}"));
        let Some(upgrade) = &self.upgrade else {
            let none = "no upgrade is under way".to_owned();
            return [none].into_iter().chain(refused).collect::<Vec<_>>().join("; ");
        };
        let mut parts = vec![place(upgrade)];
        parts.extend(upgrade.share.as_ref().map(|s| format!("{} % of new connections", s.connections)));
        parts.extend(upgrade.verdict.as_ref().map(|v| format!("{:?}: {}", v.result, v.reason)));
        parts.extend(self.paused.then(|| "paused".to_owned()));
        parts.extend(
            upgrade.blockers.iter().filter(|_| self.blocked).map(|b| format!("blocked by {}", b.reason)),
        );
        parts.extend(upgrade.waiting.as_ref().map(|w| format!("waiting for {w}")));
        parts.extend(upgrade.rollback.as_ref().map(|r| format!("{}: {}", r.cause, r.message)));
        parts.extend(refused);
        parts.join("; ")
    }

    /// The whole of it, for people.
    pub fn text(&self, now: Timestamp) -> String {
        let mut page = Page::default();
        let Some(upgrade) = &self.upgrade else {
            let version = self.version.as_deref().unwrap_or("none");
            page.raw(format!("No upgrade of {} is under way; version {version} serves.", self.mesh));
            self.refused(&mut page);
            if let Some(last) = &self.last {
                page.heading("The last one:");
                history::record(&mut page, last);
            }
            return page.done();
        };
        let UpgradeStatus { from, from_version, to, to_version, .. } = upgrade;
        page.raw(format!(
            "Upgrade of {}: {from_version} -> {to_version} ({:?})",
            self.mesh, upgrade.strategy
        ));
        page.field("from", &format!("revision {from}"));
        page.field("to", &format!("revision {to}"));
        page.field("started", &when(upgrade.started.0, now));
        if upgrade.without_baseline {
            page.field(
                "note",
                "the old revision was never ready: it is replaced without comparing or measuring",
            );
        }
        self.refused(&mut page);
        page.heading("Phases");
        page.table(&phases(upgrade, now));
        page.heading("Now");
        self.current(&mut page, upgrade, now);
        if let Some(comparison) = upgrade.comparison.as_ref() {
            page.heading("Configuration of the proxies, new against old");
            page.raw(format!(
                "  {} parts the same, {} changed, {} gained, {} lost",
                comparison.same, comparison.changed, comparison.gained, comparison.lost
            ));
            comparison.examples.iter().for_each(|e| page.hang("  - ", e));
        }
        if !upgrade.blockers.is_empty() {
            page.heading(self.in_the_way(upgrade));
            for blocker in &upgrade.blockers {
                page.hang("  - ", &format!("{}: {}", blocker.reason, blocker.message));
                page.hang("    remedy: ", &blocker.remedy);
            }
            if self.blocked {
                page.raw("  To go on in spite of all of them:");
                page.raw(format!("    kubectl mesh acknowledge {}", upgrade.plan));
            }
        }
        page.done()
    }

    fn refused(&self, page: &mut Page) {
        if let Some(why) = &self.not_reconciled {
            page.field("spec", &format!("it is not carried out: {why}"));
        }
    }

    fn in_the_way(&self, upgrade: &UpgradeStatus) -> &'static str {
        match &upgrade.rollback {
            _ if self.blocked => "In the way",
            _ if self.accepted => "In the way, and accepted",
            Some(_) => "In the way when it went back",
            None => "In the way, but it went on",
        }
    }

    fn current(&self, page: &mut Page, upgrade: &UpgradeStatus, now: Timestamp) {
        page.field("phase", &format!("{}, since {}", place(upgrade), when(upgrade.since.0, now)));
        if let Some(share) = &upgrade.share {
            let requests = share.requests.map(|r| format!(", {r} % of requests"));
            page.field(
                "share",
                &format!(
                    "{} % asked for; {} % of new connections{}",
                    share.asked,
                    share.connections,
                    requests.unwrap_or_default()
                ),
            );
        }
        if let Some(nodes) = &upgrade.nodes {
            let canary = nodes.canary.as_ref().map_or_else(String::new, |n| format!("; node {n} went first"));
            page.field("nodes", &format!("the new revision serves {} of {}{canary}", nodes.served, nodes.of));
            for passed in &nodes.passed_over {
                page.field("not waited for", &format!("node {}: {}", passed.node, passed.reason));
            }
        }
        if let Some(verdict) = &upgrade.verdict {
            page.field("verdict", &describe(upgrade.phase, verdict));
        }
        if self.paused {
            page.field("paused", "by spec.upgrade.paused; go on with `kubectl mesh resume`");
        }
        if let Some(waiting) = &upgrade.waiting {
            page.field("waiting for", waiting);
        }
        if let Some(deadline) = &upgrade.deadline {
            page.field("until", &format!("{} at the latest", when(deadline.0, now)));
        }
        if let Some(step) = &upgrade.awaits_approval {
            page.field("approve", &format!("kubectl mesh approve {step}"));
        }
        for approved in &upgrade.approvals {
            let what = describe_step(&approved.step, &upgrade.steps);
            page.field("approved", &format!("{what} by {}, {}", approved.user, clock(approved.time.0)));
        }
        history::accepted(page, &upgrade.accepted);
        if let Some(back) = &upgrade.rollback {
            page.field("went back", &format!("{} in phase {:?}: {}", back.cause, back.phase, back.message));
            page.field("decided", &when(back.decided.0, now));
            if let Some(free) = &back.traffic_back {
                let seconds = span(between(back.decided.0, free.0));
                page.field("traffic back", &format!("{}, {seconds} after the decision", clock(free.0)));
            }
            if upgrade.phase == UpgradePhase::RolledBack {
                page.field("next", "change the spec, or try the same again with `kubectl mesh retry`");
            }
        }
    }
}

/// What was said of this phase, with its samples.
pub fn describe(phase: UpgradePhase, verdict: &Verdict) -> String {
    let Verdict { result, reason, canary_requests, baseline_requests } = verdict;
    let (new, old) = (*canary_requests, grouped(*baseline_requests));
    // Each wave of nodes is held against its own past.
    let samples = match phase {
        UpgradePhase::ShiftNodes => {
            format!("{} and connections since they went over, {old} before", count(new, "request"))
        }
        _ => format!("with probes {} of the new revision, {old} of the old", count(new, "request")),
    };
    format!("{result:?}: {reason} ({samples})")
}
