//! Where an upgrade is.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use meshwright_api::{
    MeshControlPlane, UpgradePhase, UpgradeRecord, UpgradeStatus, Verdict, conditions::APPROVED,
};
use serde::Serialize;

use super::{PHASES, awaited, condition, describe_step, history, is_blocked, place, shift};
use crate::output::{Page, between, clock, count, span, when};

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
    /// What somebody must approve: the number of a step, or `promote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits_approval: Option<String>,
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
        let asks = !blocked && condition(mesh, APPROVED).is_some_and(|c| c.status == "False");
        Self {
            mesh: format!("{}/{}", mesh.namespace().unwrap_or_default(), mesh.name_any()),
            version: status.version,
            paused: mesh.spec.upgrade.paused,
            blocked,
            awaits_approval: status.upgrade.as_ref().filter(|_| asks).and_then(awaited),
            last: status.history.into_iter().next(),
            upgrade: status.upgrade,
        }
    }

    /// One line, for a log.
    pub fn line(&self) -> String {
        let Some(upgrade) = &self.upgrade else { return "no upgrade is under way".to_owned() };
        let mut parts = vec![place(upgrade)];
        parts.extend(upgrade.share.as_ref().map(|s| format!("{} % of new connections", s.connections)));
        parts.extend(upgrade.verdict.as_ref().map(|v| format!("{:?}: {}", v.result, v.reason)));
        parts.extend(self.paused.then(|| "paused".to_owned()));
        parts.extend(
            upgrade.blockers.iter().filter(|_| self.blocked).map(|b| format!("blocked by {}", b.reason)),
        );
        parts.extend(upgrade.waiting.as_ref().map(|w| format!("waiting for {w}")));
        parts.extend(upgrade.rollback.as_ref().map(|r| format!("{}: {}", r.cause, r.message)));
        parts.join("; ")
    }

    /// The whole of it, for people.
    pub fn text(&self, now: Timestamp) -> String {
        let mut page = Page::default();
        let Some(upgrade) = &self.upgrade else {
            let version = self.version.as_deref().unwrap_or("none");
            page.raw(format!("No upgrade of {} is under way; version {version} serves.", self.mesh));
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
            page.heading(if self.blocked { "In the way" } else { "In the way, and accepted" });
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
        if let Some(verdict) = &upgrade.verdict {
            page.field("verdict", &describe(verdict));
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
        if let Some(step) = &self.awaits_approval {
            page.field("approve", &format!("kubectl mesh approve {step}"));
        }
        for approved in &upgrade.approvals {
            let what = describe_step(&approved.step, &upgrade.steps);
            page.field("approved", &format!("{what} by {}, {}", approved.user, clock(approved.time.0)));
        }
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

/// A verdict with its samples.
pub fn describe(verdict: &Verdict) -> String {
    format!(
        "{:?}: {} ({} of the new revision, {} of the old)",
        verdict.result,
        verdict.reason,
        count(verdict.canary_requests, "request"),
        verdict.baseline_requests
    )
}

// What is over, what goes on, what is still to come.
fn phases(upgrade: &UpgradeStatus, now: Timestamp) -> Vec<Vec<String>> {
    let row = |mark: &str, (phase, step): Stop, took: String, note: String| {
        let name = match phase {
            UpgradePhase::Shift => shift(&upgrade.steps, step.unwrap_or(1)),
            phase => format!("{phase:?}"),
        };
        vec![mark.to_owned(), name, took, note]
    };
    let here = (upgrade.phase, upgrade.step);
    let ended = upgrade.phase == UpgradePhase::RolledBack;
    let so_far = format!("{} so far", span(between(upgrade.since.0, now)));
    let done = upgrade.done.iter().map(|d| {
        let verdict = d.verdict.as_ref().map(describe).unwrap_or_default();
        row("done", (d.phase, d.step), span(d.seconds), verdict)
    });
    let current = match ended {
        true => row("end", here, String::new(), String::new()),
        false => row("now", here, so_far, String::new()),
    };
    let coming = course(upgrade).into_iter().skip_while(|stop| *stop != here).skip(1);
    let coming = coming.map(|stop| row("", stop, String::new(), String::new()));
    done.chain([current]).chain(coming).collect()
}

/// A phase, and the step of phase Shift.
type Stop = (UpgradePhase, Option<i32>);

/// All that a good upgrade goes through.
fn course(upgrade: &UpgradeStatus) -> Vec<Stop> {
    let steps = i32::try_from(upgrade.steps.len()).unwrap_or(0);
    let stops = PHASES.into_iter().flat_map(|phase| match phase {
        UpgradePhase::Shift => (1..=steps).map(|step| (phase, Some(step))).collect(),
        UpgradePhase::Compare if upgrade.without_baseline => Vec::new(),
        _ => vec![(phase, None)],
    });
    stops.collect()
}

#[cfg(test)]
mod tests;
