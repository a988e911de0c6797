//! The mesh on one screen.

use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{
    CertificatesStatus, MeshControlPlane, MeshControlPlaneStatus, RevisionSummary, UpgradePhase,
    gateway::Gateway, labels, names,
};
use serde::Serialize;

use crate::{
    gather::Installed,
    output::{Page, when},
    upgrade::progress::Progress,
};

/// A live revision, with its share of the gateways' new connections in percent where the upgrade says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RevisionLine {
    #[serde(flatten)]
    summary: RevisionSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<i32>,
}

/// A Gateway of the mesh; its ready pods by revision where pods may be listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayLine {
    namespace: String,
    name: String,
    programmed: String,
    addresses: Vec<String>,
    routes: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<BTreeMap<String, usize>>,
}

/// The mesh.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    mesh: String,
    version: Option<String>,
    active_revision: Option<String>,
    summary: Option<String>,
    conditions: Vec<Condition>,
    revisions: Vec<RevisionLine>,
    upgrade: Progress,
    certificates: Option<CertificatesStatus>,
    gateways: Vec<GatewayLine>,
    not_seen: Vec<String>,
}

impl Status {
    /// From the mesh and all around it.
    pub fn new(mesh: &MeshControlPlane, seen: &Installed) -> Self {
        let status = mesh.status.clone().unwrap_or_default();
        let revision =
            |r: &RevisionSummary| RevisionLine { share: share(&status, &r.name), summary: r.clone() };
        let unseen = [("Gateways", seen.gateways.as_ref().err()), ("pods", seen.pods.as_ref().err())];
        let unseen = unseen.into_iter().filter_map(|(what, error)| Some(format!("{what}: {}", error?)));
        Self {
            mesh: format!("{}/{}", mesh.namespace().unwrap_or_default(), mesh.name_any()),
            conditions: status.conditions.clone(),
            revisions: status.revisions.iter().map(revision).collect(),
            upgrade: Progress::new(mesh),
            gateways: seen.gateways.iter().flatten().map(|g| gateway(g, seen)).collect(),
            not_seen: unseen.collect(),
            version: status.version,
            active_revision: status.active_revision,
            summary: status.summary,
            certificates: status.certificates,
        }
    }

    /// For people.
    pub fn text(&self, now: Timestamp) -> String {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let mut page = Page::default();
        page.raw(format!("Mesh {}: version {}", self.mesh, or_none(&self.version)));
        page.field("active", &or_none(&self.active_revision));
        page.field("summary", self.summary.as_deref().unwrap_or("no operator has looked at it yet"));
        if self.upgrade.upgrade.is_some() {
            let upgrade =
                self.upgrade.upgrade.iter().map(|u| format!("{} -> {}: ", u.from_version, u.to_version));
            page.field("upgrade", &(upgrade.collect::<String>() + &self.upgrade.line()));
            page.field("", "more: kubectl mesh upgrade status");
        } else if self.upgrade.paused {
            page.field("upgrade", "paused; the next one waits for `kubectl mesh resume`");
        }
        if let Some(certificates) = &self.certificates {
            page.field("root", &format!("expires {}", when(certificates.root_not_after.0, now)));
            let first = when(certificates.earliest_not_after.0, now);
            page.field("expires first", &format!("{}: {first}", certificates.earliest));
        }
        page.heading("Conditions");
        let row =
            |c: &Condition| vec![c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone()];
        page.table(&self.conditions.iter().map(row).collect::<Vec<_>>());
        page.heading("Revisions");
        page.table(&with_head(
            &["NAME", "VERSION", "ROLE", "SHARE", "CONTROL PLANE PODS", "GATEWAY PODS"],
            self.revisions.iter().map(|RevisionLine { summary: r, share }| {
                let (control_plane, gateways) = (r.ready_replicas.to_string(), r.ready_proxies.to_string());
                let (role, share) =
                    (format!("{:?}", r.role), share.map_or("?".to_owned(), |s| format!("{s} %")));
                vec![r.name.clone(), r.version.clone(), role, share, control_plane, gateways]
            }),
        ));
        page.heading("Gateways");
        page.table(&with_head(
            &["NAME", "PROGRAMMED", "ROUTES", "PODS", "ADDRESSES"],
            self.gateways.iter().map(|g| {
                let name = format!("{}/{}", g.namespace, g.name);
                let pods = g.pods.as_ref().map_or("?".to_owned(), |p| p.values().sum::<usize>().to_string());
                vec![name, g.programmed.clone(), g.routes.to_string(), pods, g.addresses.join(" ")]
            }),
        ));
        for what in &self.not_seen {
            page.hang("  not seen: ", what);
        }
        page.done()
    }
}

fn with_head(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    std::iter::once(head.iter().map(|h| (*h).to_owned()).collect()).chain(rows).collect()
}

/// Before the first share, and when all is over, the active revision has all traffic.
fn share(status: &MeshControlPlaneStatus, revision: &str) -> Option<i32> {
    let active = if status.active_revision.as_deref() == Some(revision) { 100 } else { 0 };
    let running = status.upgrade.as_ref().filter(|u| u.phase != UpgradePhase::RolledBack);
    let Some(upgrade) = running else { return Some(active) };
    match &upgrade.share {
        Some(share) if upgrade.to == revision => Some(share.connections),
        Some(share) if upgrade.from == revision => Some(100 - share.connections),
        Some(_) => Some(0),
        None if upgrade.phase < UpgradePhase::Shift => Some(active),
        None => None,
    }
}

fn gateway(gateway: &Gateway, seen: &Installed) -> GatewayLine {
    let status = gateway.status.as_ref();
    let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
    let programmed = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Programmed"));
    let addresses = status.iter().flat_map(|s| s.addresses.iter().flatten());
    let routes = status.iter().flat_map(|s| s.listeners.iter().flatten()).map(|l| l.attached_routes);
    let label = names::fit(&name);
    let pods = seen.pods.as_ref().ok().map(|all| {
        let mut pods = BTreeMap::new();
        for pod in all {
            let is_its = pod.namespace().as_deref() == Some(&namespace)
                && pod.labels().get(labels::GATEWAY_NAME) == Some(&label);
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
            if let (true, true, Some(revision)) = (is_its, ready, pod.labels().get(labels::REVISION)) {
                *pods.entry(revision.clone()).or_insert(0) += 1;
            }
        }
        pods
    });
    GatewayLine {
        programmed: programmed.map_or("Unknown", |c| c.status.as_str()).to_owned(),
        addresses: addresses.map(|a| a.value.clone()).collect(),
        routes: routes.sum(),
        namespace,
        name,
        pods,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Sought,
        fixtures::{NOW, mesh},
    };

    #[test]
    fn the_mesh_fits_on_one_screen() {
        let gateway = "metadata: { name: web, namespace: shop }\nspec: { gatewayClassName: meshwright, listeners: [] }\n\
            status: { addresses: [{ value: 10.0.0.7 }], listeners: [{ name: http, attachedRoutes: 3, conditions: [] }] }";
        let seen = Installed {
            mesh: Ok(Sought::NoneIn(None)),
            revisions: Ok(Vec::new()),
            operators: Ok(Vec::new()),
            deployments: Ok(Vec::new()),
            pods: Err("pods is forbidden".to_owned()),
            autoscalers: Ok(Vec::new()),
            budgets: Ok(Vec::new()),
            gateways: Ok(vec![serde_yaml_ng::from_str(gateway).unwrap()]),
        };
        let text = Status::new(&mesh("shift"), &seen).text(NOW.parse().unwrap());
        assert!(text.lines().count() <= 40 && text.lines().all(|l| l.chars().count() <= 100), "{text}");
        insta::assert_snapshot!("status", text);
    }
}
