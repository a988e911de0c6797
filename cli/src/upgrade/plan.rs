//! What an upgrade would do. Changes nothing.

use kube::ResourceExt;
use meshwright_api::{
    Approval, MeshControlPlane, MeshRevision, OnInsufficient, Strategy, Upgrade, UpgradeMode, UpgradePhase,
};
use serde::Serialize;

use super::running;
use crate::output::{Page, go_seconds, span};

mod changes;
mod obstacles;
#[cfg(test)]
mod tests;

use changes::{Change, candidate, differences};
use obstacles::{Obstacle, obstacles};

/// A phase of the upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    name: String,
    at_least_seconds: i64,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
}

/// What an upgrade would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    mesh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    to: String,
    under_way: bool,
    changes: Vec<Change>,
    strategy: Strategy,
    phases: Vec<Phase>,
    at_least_seconds: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    analysis: Option<String>,
    windows: Vec<String>,
    obstacles: Vec<Obstacle>,
    known_versions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
}

/// Plans. `to` is a release; without it what the spec asks for.
pub fn plan(mesh: &MeshControlPlane, revisions: &[MeshRevision], to: Option<&str>) -> Plan {
    let status = mesh.status.clone().unwrap_or_default();
    let known = &status.available_versions;
    let automatic = mesh.spec.version.is_none() && mesh.spec.upgrade.mode == UpgradeMode::Automatic;
    let installed = status.version.clone();
    let wanted = to.map(str::to_owned).or_else(|| mesh.spec.version.clone());
    let wanted = wanted.or_else(|| known.last().cloned().filter(|_| automatic || installed.is_none()));
    let under_way = running(mesh).filter(|u| wanted.as_ref().is_none_or(|w| *w == u.to_version));
    let wanted = under_way.map(|u| u.to_version.clone()).or(wanted).or_else(|| installed.clone());
    let wanted = wanted.unwrap_or_else(|| "unknown".to_owned());
    let find = |name: &str| revisions.iter().find(|r| r.name_any() == name).map(|r| &r.spec);
    let from = under_way.map(|u| &u.from).or(status.active_revision.as_ref()).and_then(|name| find(name));
    let target = under_way.and_then(|u| find(&u.to).cloned());
    let target = target.or_else(|| from.map(|from| candidate(from, &mesh.spec, &wanted)));
    let changes = from.zip(target.as_ref()).map(|(from, to)| differences(from, to));
    let upgrade = &mesh.spec.upgrade;
    let phases = phases(upgrade, automatic);
    let before = phases.iter().take_while(|p| p.name != "Drain").map(|p| p.at_least_seconds).sum();
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let by_itself = under_way.is_some() || mesh.spec.version.as_ref() == Some(&wanted) || to.is_none();
    let windows = upgrade.windows.iter().filter(|_| automatic);
    Plan {
        mesh: format!("{namespace}/{name}"),
        from: under_way.map(|u| u.from_version.clone()).or(installed),
        under_way: under_way.is_some(),
        changes: changes.unwrap_or_default(),
        strategy: upgrade.strategy,
        phases,
        at_least_seconds: before,
        analysis: (upgrade.strategy == Strategy::Canary).then(|| analysis(upgrade)),
        windows: windows
            .map(|w| format!("{} for {} ({})", w.schedule, w.duration, w.time_zone))
            .collect(),
        obstacles: obstacles(mesh, &wanted),
        known_versions: known.clone(),
        command: (!by_itself).then(|| {
            format!(
                "kubectl -n {namespace} patch mcp {name} --type merge -p '{{\"spec\":{{\"version\":\"{wanted}\"}}}}'"
            )
        }),
        to: wanted,
    }
}

fn analysis(upgrade: &Upgrade) -> String {
    let analysis = &upgrade.analysis;
    let without = match analysis.on_insufficient {
        OnInsufficient::Wait => "then for a person",
        OnInsufficient::Continue => "then it goes on",
        OnInsufficient::RollBack => "then it goes back",
    };
    format!(
        "against the old revision at the same time: it goes back when over {} more requests fail or latency is \
         clearly higher (a rise by {} is found); a step waits for {} requests up to {}, {without}",
        analysis.max_error_increase, analysis.max_latency_increase, analysis.min_requests, analysis.deadline
    )
}

fn phases(upgrade: &Upgrade, automatic: bool) -> Vec<Phase> {
    let canary = upgrade.strategy == Strategy::Canary;
    let every = upgrade.approval == Approval::EveryStep;
    let seconds = |text: &str| go_seconds(text).unwrap_or(0);
    let phase = |phase: UpgradePhase, seconds: i64, what: &str| Phase {
        name: format!("{phase:?}"),
        at_least_seconds: seconds,
        what: what.to_owned(),
        approval: None,
    };
    let begin =
        if automatic && !upgrade.windows.is_empty() { "waits for its window" } else { "begins at once" };
    let mut phases = vec![
        phase(UpgradePhase::Planned, 0, begin),
        phase(UpgradePhase::Preflight, 0, "looks for what stands in the way"),
        phase(UpgradePhase::InstallCanary, 0, "the new control plane comes up beside the old one"),
    ];
    phases.push(phase(UpgradePhase::Compare, 0, "a listener or route that would be lost stops it"));
    let steps = upgrade.steps.iter().filter(|_| canary);
    for (number, step) in (1..).zip(steps) {
        phases.push(Phase {
            name: format!("Shift {number} of {}", upgrade.steps.len()),
            at_least_seconds: seconds(&step.hold),
            what: format!("{} % of new connections", step.percent),
            approval: every.then(|| number.to_string()),
        });
    }
    let (bake, what) = match canary {
        true => (seconds(&upgrade.bake), "all traffic goes to the new revision"),
        false => (0, "all traffic goes to the new revision in one step, not measured"),
    };
    let number = if canary { upgrade.steps.len() + 1 } else { 1 };
    phases
        .push(Phase { approval: every.then(|| number.to_string()), ..phase(UpgradePhase::Bake, bake, what) });
    phases.push(Phase {
        approval: (upgrade.approval != Approval::Never).then(|| "promote".to_owned()),
        ..phase(UpgradePhase::Promote, 0, "the new revision is the active one")
    });
    let warm = "the old gateway pods stay ready to go back to, then end their connections";
    phases.push(phase(UpgradePhase::Drain, seconds(&upgrade.keep_warm), warm));
    phases.push(phase(UpgradePhase::Retire, 0, "the old revision is removed once nothing uses it"));
    phases
}

impl Plan {
    /// For people.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        let from = self.from.as_deref().unwrap_or("nothing");
        let known = self.known_versions.join(", ");
        if self.changes.is_empty() && self.from.as_ref() == Some(&self.to) {
            page.raw(format!("Nothing would change: {} is at {}, as its spec says.", self.mesh, self.to));
            page.field("known", &known);
            page.raw("Plan another one with `kubectl mesh upgrade plan --to VERSION`.");
            return page.done();
        }
        page.raw(format!("Upgrade of {}: {from} -> {} ({:?})", self.mesh, self.to, self.strategy));
        page.field("known", &known);
        if self.from.is_none() {
            page.raw("  Nothing is installed yet: it is installed at once, without the phases below.");
        }
        if self.under_way {
            page.raw("  It is under way: `kubectl mesh upgrade status` shows where.");
        }
        if !self.changes.is_empty() {
            page.heading("What changes");
            let row = |c: &Change| vec![c.field.clone(), format!("{} -> {}", c.from, c.to)];
            page.table(&self.changes.iter().map(row).collect::<Vec<_>>());
        }
        page.heading("What happens, and how long it takes at least");
        let row = |p: &Phase| {
            let time = if p.at_least_seconds > 0 { span(p.at_least_seconds) } else { String::new() };
            let approval = p.approval.as_ref().map(|a| format!("waits for `kubectl mesh approve {a}`; "));
            vec![p.name.clone(), time, approval.unwrap_or_default() + &p.what]
        };
        page.table(&self.phases.iter().map(row).collect::<Vec<_>>());
        page.raw("");
        page.field(
            "at least",
            &format!("{} until the new revision is the active one", span(self.at_least_seconds)),
        );
        let approvals = self.phases.iter().filter(|p| p.approval.is_some()).count();
        page.field("approvals", &if approvals == 0 { "none".to_owned() } else { approvals.to_string() });
        if let Some(analysis) = &self.analysis {
            page.field("measured", analysis);
        }
        for window in &self.windows {
            page.field("window", window);
        }
        page.field("way back", "`kubectl mesh rollback` in every phase before Retire");
        page.heading(if self.obstacles.is_empty() { "Nothing is seen in the way." } else { "In the way" });
        for obstacle in &self.obstacles {
            page.hang(if obstacle.blocks { "  - stops it: " } else { "  - " }, &obstacle.message);
        }
        if let Some(command) = &self.command {
            page.heading("Nothing was changed. To do it:");
            page.raw(format!("  {command}"));
        }
        page.done()
    }
}
