//! Connections of callers that pods refuse since their rules changed, see [`crate::node::admission`].

use std::{collections::BTreeMap, path::PathBuf};

use meshwright_proto::nodes::NodeOrder;
use tokio::time::Instant;

use super::{Driver, Event};
use crate::node::{
    admission::{Act, Scene, Written},
    claim::Held,
    store,
};

impl Driver {
    /// Ends them.
    pub(super) fn admit(&mut self, order: &NodeOrder, now: Instant) {
        let Some(serving) = &self.serving else { return };
        let by = Held { revision: self.args.workload.revision.clone(), epoch: serving.epoch };
        let pods: BTreeMap<_, _> = self.keep.captured_in().collect();
        let (keep, relay) = (&self.keep, &self.relay);
        let scene = Scene {
            order,
            captured: &pods.keys().cloned().collect(),
            is_here: &|uid| keep.knows(uid),
            has_taken: &|uid, version| relay.has_taken_policy(uid, version),
            has_refused: &|uid, version| relay.has_refused_policy(uid, version),
        };
        let acts = self.admissions.advance(scene, now);
        // Before anything is done.
        if let Some(written) = self.admissions.unsaved(&by) {
            let path = self.admissions_file();
            if let Err(e) = self.hands.claims.acting(|| store::write_json(&path, &written)) {
                tracing::warn!(error = %format!("{e:#}"), "write down who may be connected");
                self.admissions.is_unsaved();
            }
        }
        for (uid, act) in acts {
            let Some(namespace) = pods.get(&uid).cloned() else { continue };
            let hands = self.hands.clone();
            self.spawn(move || match act {
                Act::Look => Event::Looked(uid, hands.callers(&namespace)),
                Act::End(callers) => Event::Cut(uid, hands.end_callers(&namespace, &callers)),
            });
        }
    }

    /// What a process before us wrote down, of these pods. What is older than the last hand-over says nothing: whoever served since then may be
    /// of a release that writes nothing down.
    pub(super) fn restore_admissions(&mut self, redirected: &store::AllRedirected) {
        let written: Option<Written> = store::read_json(&self.admissions_file());
        let recent = written.filter(|written| self.hands.claims.is_recent(&written.by));
        self.admissions.restore(recent.map(|written| written.admitted), redirected.keys());
    }

    pub(super) fn forget_admissions(&self) {
        if let Err(e) = store::remove(&self.admissions_file()) {
            tracing::warn!(error = %e, "forget who may be connected");
        }
    }

    fn admissions_file(&self) -> PathBuf {
        self.args.paths.node_dir.join("admissions.json")
    }
}
