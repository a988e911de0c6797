//! Keeping a recorded revision as its own snapshot says: its objects and its issuing certificate. It asks nothing of the
//! spec but the bounds of scaling, so that it goes on while the spec is one that cannot be carried out.

use std::{collections::BTreeMap, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};
use meshwright_api::{MeshRevision, conditions::Finding};

use super::{Seen, apply::Error, build, step, tell};
use crate::{
    apply::{self, Outcome},
    availability::Plan,
    certificates::{issuing, root::Root},
    context::Context,
    mesh_revision,
};

/// So long pods may be missing before their Secret is suspected; then it is asked for as often.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all revisions are kept with.
pub struct Keeper<'a> {
    /// Talks to the API server.
    pub ctx: &'a Context,
    /// What there was before.
    pub seen: &'a Seen,
    /// Availability of the control plane.
    pub plan: &'a Plan,
    /// The root; without it nothing is issued, and what was issued serves on.
    pub root: Option<&'a Root>,
    /// What to record of each revision.
    pub findings: &'a BTreeMap<String, Vec<Finding>>,
}

impl Keeper<'_> {
    /// Keeps one revision; returns it as recorded now, and what failed first. A failure does not keep it from being
    /// recorded: one that the API server refuses could never be seen as unused, and never be removed.
    pub async fn keep(
        &self,
        revision: &MeshRevision,
        outcome: &mut Outcome,
    ) -> (MeshRevision, Option<Error>) {
        let name = revision.name_any();
        let mut kept = revision.clone();
        let failed = self.bring(&mut kept, outcome).await.err();
        let findings = self.findings.get(&name).cloned().unwrap_or_default();
        let ready = self.seen.pods.get(&name).map_or(0, |c| c.control_plane_ready);
        match mesh_revision::record(self.ctx, kept.clone(), findings, ready).await {
            Ok(recorded) => (recorded, failed),
            Err(error) => (kept, failed.or(Some(error.into()))),
        }
    }

    // Its certificate, then its objects.
    async fn bring(&self, revision: &mut MeshRevision, outcome: &mut Outcome) -> Result<(), Error> {
        let mut collect = Vec::new();
        if let Some(root) = self.root {
            (*revision, collect) = self.issue(revision, root, outcome).await?;
        }
        let issued = revision.status.as_ref().and_then(|s| s.issuing_ca.as_ref());
        if let Some(issued) = issued {
            let due = issuing::due_in(issued, self.ctx.now());
            let anchors = self.root.map(|r| r.pem.as_str());
            let around = build::Around { operator: &self.ctx.settings.namespace, anchors };
            let mut objects = build::revision(revision, &issued.secret_name, self.plan, around)?;
            if self.seen.pod_security.is_some() {
                // Pods that would be refused are not asked for: their controller tries ever more rarely, also when they are allowed at last.
                objects.node_proxies = None;
            }
            let desired = objects.into_desired(self.plan)?;
            outcome.merge(Outcome { recheck: Some(due).filter(|d| !d.is_zero()), ..Outcome::default() });
            outcome.merge(apply::apply(self.ctx, &desired).await?);
        }
        Ok(issuing::collect(self.ctx, revision, &collect).await?)
    }

    // Issues what is due; returns the revision as recorded then, and the epochs that can go.
    async fn issue(
        &self,
        revision: &MeshRevision,
        root: &Root,
        outcome: &mut Outcome,
    ) -> Result<(MeshRevision, Vec<u64>), Error> {
        let name = revision.name_any();
        let mounted = self.seen.pods.get(&name).map(|c| c.mounted.clone()).unwrap_or_default();
        let replaced =
            issuing::is_replaced(revision, &root.fingerprint) || self.was_deleted(revision, outcome).await?;
        let plan = issuing::plan(revision, root, replaced, &mounted, self.ctx.now());
        let Some(epoch) = plan.issue else { return Ok((revision.clone(), plan.collect)) };
        let revision = issuing::deliver(self.ctx, revision, root, epoch).await?;
        let note = format!("revision {name} has a new issuing certificate, epoch {epoch}");
        tell(self.ctx, &self.seen.fresh, EventType::Normal, "IssuingCertificateDelivered", note).await;
        Ok((revision, plan.collect))
    }

    // The operator cannot read Secrets there, so it only asks when pods are missing for long: a pod that waits for its
    // Secret says so nowhere else.
    async fn was_deleted(&self, revision: &MeshRevision, outcome: &mut Outcome) -> Result<bool, Error> {
        let issued = revision.status.as_ref().and_then(|s| s.issuing_ca.as_ref());
        let deployment = self.seen.deployments.get(&revision.name_any());
        let (Some(issued), Some(since)) = (issued, deployment.and_then(step::short_since)) else {
            return Ok(false);
        };
        let short_for = Duration::try_from(self.ctx.now().duration_since(since)).unwrap_or_default();
        let left = PATIENCE.checked_sub(short_for).filter(|left| !left.is_zero());
        outcome.merge(Outcome { recheck: Some(left.unwrap_or(PATIENCE)), ..Outcome::default() });
        if left.is_some() {
            return Ok(false);
        }
        Ok(issuing::is_gone(self.ctx, revision, &issued.secret_name).await?)
    }
}
