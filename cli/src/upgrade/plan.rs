//! What an upgrade would do. Changes nothing.

use kube::ResourceExt;
use meshwright_api::{MeshControlPlane, MeshRevision, MeshRevisionSpec, Strategy, UpgradeMode};
use serde::Serialize;

use super::{
    running,
    version::{is_older, newer},
};
use crate::output::{Page, span};

mod changes;
mod obstacles;
mod phases;
#[cfg(test)]
mod tests;

use changes::{Change, candidate, differences};
use obstacles::{Obstacle, obstacles, refusal};
use phases::{Phase, analysis, phases};

/// What `operator/src/upgrade/preflight.rs` looks at and a plan does not.
const PREFLIGHT: &str = "Preflight looks at more: whether the new version is made for this version of Kubernetes, \
    control planes and gateways without all of their pods, pods that find no node, proxies that are left as they are, \
    the Gateway API's definitions, PodDisruptionBudgets of others, configuration that Envoy refused, and known dangers of \
    this step. Whether the new pods find room shows only when they are made.";

/// What an upgrade would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    mesh: String,
    /// There is nothing to do.
    changes_nothing: bool,
    /// Something keeps it from beginning, or from going on.
    stopped: bool,
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
    /// What that command changes beside the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    caution: Option<String>,
}

/// Plans. `to` is a release; without it what the spec asks for. `pods` are those of each Gateway that serve now; none where they could
/// not be seen.
pub fn plan(mesh: &MeshControlPlane, revisions: &[MeshRevision], to: Option<&str>, pods: &[i32]) -> Plan {
    let status = mesh.status.clone().unwrap_or_default();
    let known = &status.available_versions;
    let is_automatic = mesh.spec.version.is_none() && mesh.spec.upgrade.mode == UpgradeMode::Automatic;
    // Who names a release does not wait for a window.
    let automatic = is_automatic && to.is_none();
    let installed = status.version.clone();
    let wanted = to.map(str::to_owned).or_else(|| mesh.spec.version.clone());
    let newest = match &installed {
        Some(installed) => newer(known, installed).filter(|newer| automatic && !mesh.went_back(newer)),
        None => known.last().map(String::as_str),
    };
    let wanted = wanted.or_else(|| newest.map(str::to_owned));
    let under_way = running(mesh).filter(|u| wanted.as_ref().is_none_or(|w| *w == u.to_version));
    let wanted = under_way.map(|u| u.to_version.clone()).or(wanted).or_else(|| installed.clone());
    let wanted = wanted.unwrap_or_else(|| "unknown".to_owned());
    let find = |name: &str| revisions.iter().find(|r| r.name_any() == name).map(|r| &r.spec);
    let from = under_way.map(|u| &u.from).or(status.active_revision.as_ref()).and_then(|name| find(name));
    let target = under_way.and_then(|u| find(&u.to).cloned());
    let target = target.or_else(|| from.map(|from| candidate(from, &mesh.spec, &wanted)));
    let changes = from.zip(target.as_ref()).map(|(from, to)| differences(from, to));
    let upgrade = &mesh.spec.upgrade;
    // What comes before the first release with node proxies has none.
    let has_nodes = |spec: &MeshRevisionSpec| spec.node_slot.is_some() && !is_older(&wanted, &spec.version);
    let nodes = from.is_some_and(has_nodes) && target.as_ref().is_some_and(|to| to.node_slot.is_some());
    let phases = phases(upgrade, automatic, pods, nodes);
    let before = phases.iter().take_while(|p| p.name != "Drain").map(|p| p.at_least_seconds).sum();
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let by_itself = under_way.is_some() || mesh.spec.version.as_ref() == Some(&wanted) || to.is_none();
    let windows = upgrade.windows.iter().filter(|_| automatic);
    let changes = changes.unwrap_or_default();
    let changes_nothing = under_way.is_none() && changes.is_empty() && installed.as_ref() == Some(&wanted);
    let (refusal, obstacles) = (refusal(mesh, to), obstacles(mesh, revisions, &wanted));
    Plan {
        stopped: refusal.as_ref().is_some_and(|o| o.blocks)
            || !changes_nothing && obstacles.iter().any(|o| o.blocks),
        changes_nothing,
        mesh: format!("{namespace}/{name}"),
        from: under_way.map(|u| u.from_version.clone()).or(installed),
        under_way: under_way.is_some(),
        changes,
        strategy: upgrade.strategy,
        phases,
        at_least_seconds: before,
        analysis: (upgrade.strategy == Strategy::Canary).then(|| analysis(upgrade)),
        windows: windows
            .map(|w| format!("{} for {} ({})", w.schedule, w.duration, w.time_zone))
            .collect(),
        obstacles: refusal.into_iter().chain(obstacles).collect(),
        known_versions: known.clone(),
        command: (!by_itself).then(|| {
            format!(
                "kubectl -n {namespace} patch mcp {name} --type merge -p '{{\"spec\":{{\"version\":\"{wanted}\"}}}}'"
            )
        }),
        caution: (!by_itself && is_automatic).then(|| {
            "It begins at once, whatever spec.upgrade.windows says, and nothing is taken by itself any more until spec.version is \
             removed again."
                .to_owned()
        }),
        to: wanted,
    }
}

impl Plan {
    /// Something keeps it from beginning, or from going on.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        let from = self.from.as_deref().unwrap_or("nothing");
        let known = self.known_versions.join(", ");
        if self.changes_nothing {
            let says = if self.stopped { "." } else { ", as its spec says." };
            page.raw(format!("Nothing would change: {} is at {}{says}", self.mesh, self.to));
            page.field("known", &known);
            self.in_the_way(&mut page);
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
        let of_release = |c: &&Change| c.field == "version" || c.field.starts_with("images.");
        if !self.windows.is_empty() && self.changes.iter().filter(of_release).count() < self.changes.len() {
            page.field("", "outside of it the settings are changed at once, without the new release");
        }
        page.field("way back", "`kubectl mesh rollback` in every phase before Retire");
        if self.obstacles.is_empty() {
            page.heading("Nothing that a plan looks at is in the way.");
        }
        self.in_the_way(&mut page);
        if self.from.is_some() && !self.under_way {
            page.hang("", PREFLIGHT);
        }
        if let Some(command) = &self.command {
            page.heading("Nothing was changed. To do it:");
            page.raw(format!("  {command}"));
        }
        if let Some(caution) = &self.caution {
            page.hang("  ", caution);
        }
        page.done()
    }

    fn in_the_way(&self, page: &mut Page) {
        if !self.obstacles.is_empty() {
            page.heading("In the way");
        }
        for obstacle in &self.obstacles {
            page.hang(if obstacle.blocks { "  - stops it: " } else { "  - " }, &obstacle.message);
        }
    }
}
